# SPDX-License-Identifier: Apache-2.0
"""An open log file: it stays the same file when it is renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from typing import NamedTuple

import msgspec

from .line_text import whole_characters

CHUNK = 65536
"""Bytes per read."""

FINGERPRINT_BYTES = 256
"""How much of a file's beginning, and of what was read last, distinguishes it from others. The
beginning alone does not: many logs begin with the same banner."""


class LogLine(NamedTuple):
    """A line as read."""

    raw: bytes
    """Its bytes, without the newline."""
    end: int
    """The position of the first byte after the newline."""
    cut: int
    """The number of bytes missing from ``raw``, because the line was too long."""


class FilePosition(msgspec.Struct):
    """How far a file has been delivered, and how to recognize the file."""

    device: int
    inode: int
    offset: int
    size: int
    """The largest known size."""
    base: int = 0
    """The position of the fingerprint's first byte."""
    length: int = 0
    digest: str = ""
    tail: int = 0
    """The number of bytes before ``offset`` in ``tail_digest``; 0: unknown."""
    tail_digest: str = ""

    def is_in(self, fd: int) -> bool:
        """Tell whether a file holds the bytes that were read: its first ones, and the last."""
        return all(
            digest_of(os.pread(fd, length, start)) == digest
            for length, start, digest in (
                (self.length, self.base, self.digest),
                (self.tail, self.offset - self.tail, self.tail_digest),
            )
            if length
        )


class Truncated(Exception):  # noqa: N818 - an event, not an error
    """The file no longer holds the bytes that were read before."""


def open_log(path: str) -> int | None:
    """Return a descriptor of the regular file ``path``, or None if there is none.

    Raises:
        OSError: The file cannot be opened.
    """
    try:
        # Non-blocking, because ``path`` may be a FIFO.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def digest_of(data: bytes) -> str:
    """Return the fingerprint of ``data``."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class TailedFile:
    """An open log file, and how far it was read and delivered.

    Args:
        fd: The descriptor, which this object owns from now on.
        max_line_bytes: Longer lines are cut.
        position: Where to continue; None: at the beginning.
    """

    def __init__(self, fd: int, max_line_bytes: int, position: FilePosition | None = None) -> None:
        found = os.fstat(fd)
        self.fd = fd
        self.key = (found.st_dev, found.st_ino)
        self.offset = position.offset if position else 0
        """The position of the next line to read."""
        self.acked = self.offset
        """The position up to which everything is delivered."""
        self.size = found.st_size
        self.frozen = False
        """Whether no more lines can follow, because they are lost."""
        self.is_copy = False
        """Whether it is a copy, to which no process writes."""
        self.quiet_since = 0.0
        """When it last grew (monotonic time)."""
        self.read_up_ns = 0
        """When it was last read to its end (nanoseconds since 1970)."""
        self._max_line = max_line_bytes
        self._scan = self.offset
        self._long = b""
        self._tail = 0
        self._changed = (-1, -1)
        self._modified = found.st_mtime_ns
        self._base = position.base if position else 0
        self._head = b""
        if position is not None and position.length:
            self._head = os.pread(fd, position.length, position.base)
        self._last = os.pread(fd, min(self.offset, FINGERPRINT_BYTES), self._last_start())
        """The bytes before ``offset``."""
        self._tail_of = (-1, 0, "")
        """A position, and length and digest of the bytes before it."""

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def position(self) -> FilePosition:
        """Return the position to store."""
        if self._tail_of[0] != self.acked:
            self._tail_of = (self.acked, *self._tail_before(self.acked))
        return FilePosition(
            device=self.key[0],
            inode=self.key[1],
            offset=self.acked,
            size=self.size,
            base=self._base,
            length=len(self._head),
            digest=digest_of(self._head) if self._head else "",
            tail=self._tail_of[1],
            tail_digest=self._tail_of[2],
        )

    def _tail_before(self, end: int) -> tuple[int, str]:
        """Return length and digest of the bytes before ``end``; 0 if they cannot be read."""
        with contextlib.suppress(OSError):
            data = os.pread(self.fd, min(end, FINGERPRINT_BYTES), max(end - FINGERPRINT_BYTES, 0))
            if data and not self.frozen and self._is_same():
                return len(data), digest_of(data)
        return 0, ""

    def _last_start(self) -> int:
        return max(self.offset - FINGERPRINT_BYTES, 0)

    def skip_to_end(self) -> None:
        """Skip the current content."""
        self.offset = self.acked = self._scan = self.size
        self._last = b""

    @property
    def unread(self) -> int:
        """The number of unread bytes, as far as known."""
        return 0 if self.frozen else max(self.size - self.offset, 0)

    @property
    def delivered(self) -> bool:
        """Whether everything read is delivered."""
        return self.acked >= self.offset

    @property
    def modified_ns(self) -> int:
        """The time of the last write, as far as known."""
        with contextlib.suppress(OSError):
            self._modified = os.fstat(self.fd).st_mtime_ns
        return self._modified

    @property
    def unlinked(self) -> bool:
        """Whether the file is known to be deleted."""
        with contextlib.suppress(OSError):
            return os.fstat(self.fd).st_nlink == 0
        return False

    def look(self, now: float) -> None:
        """Check the file's size.

        Raises:
            Truncated: The bytes that were read before are gone.
            OSError: The file cannot be read.
        """
        if self.frozen:
            return
        found = os.fstat(self.fd)
        changed = (found.st_size, found.st_mtime_ns)
        if changed == self._changed:
            return
        if found.st_size < max(self.size, self._scan + self._tail):
            raise Truncated
        self._note_head(found.st_size)
        self._changed = changed
        self._modified = found.st_mtime_ns
        self.size = found.st_size
        self.quiet_since = now

    def read(self, *, final: bool = False) -> list[LogLine]:
        """Return the next lines; none at the end of the file.

        Args:
            final: Whether to take a last line without a newline.

        Raises:
            Truncated: The bytes that were read before are gone.
            OSError: The file cannot be read.
        """
        while not self.frozen:
            if self.size <= self._scan + self._tail and not (final and self.size > self.offset):
                self.read_up_ns = time.time_ns() // 1_000_000 * 1_000_000
                return []
            data = os.pread(self.fd, CHUNK, self._scan)
            if not self._is_same():
                raise Truncated
            if not data:
                self._tail = 0
                if final and self._long:
                    return self._lines(b"", final=True)
                return []
            self.size = max(self.size, self._scan + len(data))
            if data[0] == 0 and self._scan == self.offset:
                self._skip_hole(data)
                continue
            lines = self._lines(data, final=final)
            if lines or self._tail:
                return lines
        return []

    def freeze(self) -> None:
        """Stop reading; lines that were read can still be acknowledged."""
        self.frozen = True
        self.size = self.offset

    def rebind(self, fd: int) -> None:
        """Continue with another descriptor of the file, or of its copy, at the same position."""
        self.close()
        self.fd = fd
        found = os.fstat(fd)
        self.key = (found.st_dev, found.st_ino)
        self.size = found.st_size
        self._changed = (-1, -1)
        self._scan, self._long, self._tail = self.offset, b"", 0

    def matches(self, fd: int) -> bool:
        """Tell whether another file holds what was read of this one, as far as known."""
        with contextlib.suppress(OSError):
            return bool(self._head) and os.fstat(fd).st_size >= self.offset and self._holds_read(fd)
        return False

    @property
    def is_unread(self) -> bool:
        """Whether only the file's beginning is known, which other files may share."""
        return not self._last

    def _is_same(self) -> bool:
        return self._holds_read(self.fd)

    def _holds_read(self, fd: int) -> bool:
        """Tell whether a file has the same beginning, and the same bytes before ``offset``."""
        head, last = self._head, self._last
        if head and os.pread(fd, len(head), self._base) != head:
            return False
        return not last or os.pread(fd, len(last), self.offset - len(last)) == last

    def _skip_hole(self, data: bytes) -> None:
        """Skip zero bytes: a writer without O_APPEND leaves a hole after a truncation."""
        rest = data.lstrip(b"\0")
        position = self._scan + len(data) - len(rest)
        if not rest:
            try:
                position = max(position, os.lseek(self.fd, self._scan, os.SEEK_DATA))
            except OSError:
                position = max(position, min(self.size, position))  # no data up to the end
        if self._base == self.offset:
            self._base, self._head = position, b""
        self.offset = self._scan = position
        self._tail, self._last = 0, b""
        self.size = max(self.size, position)
        self._changed = (-1, -1)  # so that the next check takes the fingerprint

    def _lines(self, data: bytes, *, final: bool) -> list[LogLine]:
        last = data.rfind(b"\n")
        if last < 0:
            total = self._scan - self.offset + len(data)
            if final and len(data) < CHUNK:
                self._note_last(data)
                return [self._line(data, self._scan + len(data))]
            if total > self._max_line:
                self._long = self._long or data[: self._max_line]
                self._scan += len(data)
                self._tail = 0
            else:
                self._tail = len(data)
            return []
        self._note_last(data[: last + 1])
        begun = self._scan
        lines = []
        start = 0
        for raw in data[:last].split(b"\n"):
            end = start + len(raw) + 1
            lines.append(self._line(raw, begun + end))
            start = end
        self._tail = 0
        return lines

    def _line(self, raw: bytes, end: int) -> LogLine:
        length = end - self.offset - (1 if end > self._scan + len(raw) else 0)
        if self._long:
            raw, self._long = self._long, b""
        if length > self._max_line:
            raw = whole_characters(raw[: self._max_line])
        cut = length - len(raw)
        self.offset = self._scan = end
        return LogLine(raw, end, cut)

    def _note_last(self, data: bytes) -> None:
        """Keep the last of the bytes that ``offset`` is about to pass."""
        before = self._last if self._scan == self.offset else b""
        self._last = (before + data[-FINGERPRINT_BYTES:])[-FINGERPRINT_BYTES:]

    def _note_head(self, size: int) -> None:
        """Take the fingerprint, or compare the file with the one taken before."""
        head = os.pread(self.fd, min(max(size - self._base, 0), FINGERPRINT_BYTES), self._base)
        if not head.startswith(self._head):
            raise Truncated
        self._head = head
