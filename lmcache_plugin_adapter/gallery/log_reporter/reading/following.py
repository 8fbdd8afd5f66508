# SPDX-License-Identifier: Apache-2.0
"""Follow one path: the current file, and rotated ones that are not delivered yet."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.messages.wording import lost

from .resuming import again, between, copy_of, resume
from .tailed_file import FilePosition, LogLine, TailedFile, Truncated, open_log

if TYPE_CHECKING:
    from .resuming import Report

HELD = 8
"""The most files of one path that are kept open until they are delivered."""

_SETTLE = 1.0
"""Seconds without a write to a rotated file before the new one is read."""

_PATIENCE = 5.0
"""Seconds after which the new file is read in any case: vLLM never reopens its stderr, and goes on
writing to the renamed file."""

_LOST = 30.0
"""Seconds for which an unreadable file is searched for before its rest is lost."""

_RETRY = 30.0
"""The longest pause between two such searches."""

_UNLINKED = 600.0
"""Seconds without a write after which a deleted file is closed."""


@dataclass
class _Failing:
    """A file that cannot be read at the moment."""

    since: float
    next: float
    """When to open and read it again."""
    missed: float | None = None
    """Since when it has been missing from its directory."""


class FollowedPath:
    """The files that had one path, oldest first.

    Args:
        path: The path.
        max_line_bytes: Longer lines are cut.
        positions: The stored positions, oldest first.
        report: Called with a sentence and the number of lost bytes.
    """

    def __init__(
        self, path: str, max_line_bytes: int, positions: list[FilePosition], report: Report
    ) -> None:
        self.path = path
        self.tailed_files: list[TailedFile] = []
        self._max_line = max_line_bytes
        self._report = report
        self._positions = positions
        self._superseded: dict[int, float] = {}
        self._failing: dict[TailedFile, _Failing] = {}
        self._failure = ""

    def close(self) -> None:
        """Close all files."""
        for tailed in self.tailed_files:
            tailed.close()

    def positions(self) -> list[FilePosition]:
        """Return the positions to store, oldest first."""
        return self._positions or [tailed.position() for tailed in self.tailed_files]

    @property
    def is_empty(self) -> bool:
        """Whether no file has had the path."""
        return not self._positions and not self.tailed_files

    def identities(self) -> set[tuple[int, int]]:
        """Return device and inode of all files, including the one at the path now."""
        keys = {(position.device, position.inode) for position in self._positions}
        keys |= {tailed.key for tailed in self.tailed_files}
        with contextlib.suppress(OSError):
            found = os.stat(self.path)
            keys.add((found.st_dev, found.st_ino))
        return keys

    @property
    def unread(self) -> int:
        """The number of unread bytes, as far as known."""
        return sum(tailed.unread for tailed in self.tailed_files)

    def poll(self, now: float) -> None:
        """Check which file is at the path, and whether files have grown or were truncated.

        Args:
            now: A monotonic time, in seconds.
        """
        for tailed, failing in list(self._failing.items()):
            if now >= failing.next:
                self._reopen(tailed, failing, now)
        try:
            if self._positions:
                self.tailed_files = resume(self.path, self._max_line, self._positions, self._report)
                self._positions = []
            self._find()
            self._failure = ""
        except OSError as error:
            for failing in self._failing.values():
                failing.missed = None  # the file may return with its directory
            text = f"cannot follow {self.path!r}: {error.strerror}"
            if text != self._failure:
                self._failure = text
                self._report(text, 0)
        waiting = list(self.tailed_files)
        while waiting:
            tailed = waiting.pop(0)
            try:
                if not self._rests(tailed, now):
                    tailed.look(now)
                    if not tailed.unread:
                        self._failing.pop(tailed, None)
            except Truncated:
                waiting += self._restart(tailed)
            except OSError as error:
                self._fail(tailed, error, now)
        for tailed in self.tailed_files[:-1]:
            self._superseded.setdefault(id(tailed), now)
        self._close_finished(now)

    def read(self, now: float, *, final: bool = False) -> tuple[TailedFile, list[LogLine]] | None:
        """Return the next lines and their file, or None if there are none now.

        Args:
            now: A monotonic time, in seconds.
            final: Whether to take last lines without a newline.
        """
        for tailed in list(self.tailed_files):
            try:
                lines = [] if self._rests(tailed, now) else tailed.read(final=final)
            except Truncated:
                self._restart(tailed)
                return self.read(now, final=final)
            except OSError as error:
                self._fail(tailed, error, now)
                lines = []
            if lines:
                self._failing.pop(tailed, None)
                return tailed, lines
            last = tailed is self.tailed_files[-1]
            if last or not (final or self._may_pass(tailed, now)):
                return None
        return None

    def _find(self) -> None:
        try:
            found = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        key = (found.st_dev, found.st_ino)
        last = self.tailed_files[-1] if self.tailed_files else None
        if last is not None and (last in self._failing or (last.key == key and not last.frozen)):
            return
        for tailed in self.tailed_files:
            if tailed.key == key and not tailed.frozen:  # the file was renamed back
                self.tailed_files.remove(tailed)
                self.tailed_files.append(tailed)
                self._superseded.pop(id(tailed), None)
                return
        opened = open_log(self.path)
        if opened is None:
            return
        self.tailed_files += between(self.path, self.tailed_files, self._max_line)
        self.tailed_files.append(TailedFile(opened, self._max_line))

    def _may_pass(self, tailed: TailedFile, now: float) -> bool:
        """Tell whether the files after ``tailed`` may be read."""
        if tailed.frozen or tailed.is_copy:
            return True
        failing = self._failing.get(tailed)
        if failing is not None:
            return now - failing.since >= _PATIENCE
        since = self._superseded.setdefault(id(tailed), now)
        quiet = now - max(tailed.quiet_since, since)
        return quiet >= _SETTLE or now - since >= _PATIENCE

    def _restart(self, tailed: TailedFile) -> list[TailedFile]:
        """Read a truncated file from its beginning, after the rest in its copy.

        Returns:
            The files to read after ``tailed``.
        """
        position = self.tailed_files.index(tailed)
        fresh = TailedFile(os.dup(tailed.fd), self._max_line)
        fd = copy_of(tailed, self.path)
        if fd is not None:
            tailed.rebind(fd)
            tailed.is_copy = True
        else:
            unread = tailed.unread
            tailed.freeze()
            if unread:
                self._report(
                    f"{self.path!r} was truncated before all of it was delivered: "
                    f"at least {lost(unread, 'byte')}",
                    unread,
                )
        new = [fresh]
        if fd is not None:
            new = [*between(self.path, self.tailed_files[: position + 1], self._max_line), fresh]
        self.tailed_files[position + 1 : position + 1] = new
        return new

    def _fail(self, tailed: TailedFile, error: OSError, now: float) -> None:
        """Schedule a retry for an unreadable file: its content is not lost yet."""
        failing = self._failing.get(tailed)
        if failing is None:
            self._failing[tailed] = _Failing(now, now)
            self._report(f"cannot read {self.path!r}: {error.strerror}; retrying", 0)
        elif failing.missed is None or now - failing.missed < _LOST:
            failing.next = now + min(now - failing.since, _RETRY)
        else:
            unread = tailed.unread
            self._report(
                f"{self.path!r} cannot be read and is gone: {lost(unread, 'byte')}", unread
            )
            tailed.freeze()
            del self._failing[tailed]

    def _rests(self, tailed: TailedFile, now: float) -> bool:
        """Tell whether an unreadable file is not due for a retry."""
        failing = self._failing.get(tailed)
        return failing is not None and now < failing.next

    def _reopen(self, tailed: TailedFile, failing: _Failing, now: float) -> None:
        try:
            fd = again(tailed, self.path)
            if fd is not None:
                tailed.rebind(fd)
                failing.missed = None
            elif failing.missed is None:
                failing.missed = now
        except OSError as error:
            self._fail(tailed, error, now)

    def _close_finished(self, now: float) -> None:
        """Close rotated files that are delivered, and the oldest one if there are too many."""
        for tailed in self.tailed_files[:-1]:
            done = tailed.delivered and not tailed.unread
            ended = tailed.frozen or tailed.is_copy
            if not ended and now - tailed.quiet_since >= _UNLINKED:
                ended = tailed.unlinked
            if (done and ended) or len(self.tailed_files) > HELD:
                self._drop(tailed)
        last = self.tailed_files[-1] if self.tailed_files else None
        if (
            last is not None
            and last.delivered
            and not last.unread
            and now - last.quiet_since >= _UNLINKED
            and last.unlinked
        ):
            self._drop(last)

    def _drop(self, tailed: TailedFile) -> None:
        unread = tailed.unread
        if unread:
            self._report(
                f"{self.path!r} was rotated {HELD} times before its oldest part was "
                f"delivered: {lost(unread, 'byte')}",
                unread,
            )
        tailed.freeze()
        tailed.close()
        self.tailed_files.remove(tailed)
        self._superseded.pop(id(tailed), None)
        self._failing.pop(tailed, None)
