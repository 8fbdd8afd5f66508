# SPDX-License-Identifier: Apache-2.0
"""Assemble lines to records, such as tracebacks and messages of several lines; bounded."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from .container import unframe
from .line_text import clean, split_process, split_tail
from .records import Level, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .parsing import Head, Parser
    from .tailed_file import LogLine, TailedFile

_TRACEBACK = "Traceback (most recent call last)"
_LIVE_NS = 3_000_000_000
"""A line without a time that is read this soon after the last read was written just now."""

_RANK = re.compile(r"\[rank\d{1,6}\]: ?")
"""PyTorch's prefix of each line of a crash."""

_FATAL = re.compile(
    r"Traceback \(most recent call last\)|Process [\w.:-]{1,200}:$|Exception in thread |"
    r"Exception ignored in|Fatal Python error|terminate called|Segmentation fault|"
    r"\*\*\* (?:SIG|Aborted)|!+ Segfault|free\(\): |malloc\(\): |double free|"
    r"(?:[A-Za-z_][\w.]*(?:Error|Exception)?: )?(?:CUDA|NCCL|HIP|cuBLAS|cuDNN) [Ee]rror|"
    r"CUDA out of memory"
)
"""The beginning of a line without a level that explains a crash."""

_MOST_BROKEN = 256
"""The most processes whose interrupted tracebacks are known."""

_THREADS = ("Thread 0x", "Current thread 0x", "Extension modules:")
"""Lines of a record that begins with ``Fatal Python error``."""

_BETWEEN = ("During handling of the above exception", "The above exception was the direct cause")


class Bounds(NamedTuple):
    """The limits of a record."""

    record_bytes: int
    """Characters after which a new record begins with the same head."""
    wait: float
    """Seconds for which a record waits for more lines."""
    level: Level
    """The least urgent level to deliver."""


class _OpenRecord:
    """A record that may still grow."""

    def __init__(self, record: Record, head: Head | None, prefix: str) -> None:
        self.record = record
        self.head = head
        self.prefix = prefix
        """The process prefix of the first line."""
        self.parts = [record.text]
        self.size = len(record.text)
        self.open = head.open if head else False
        self.partial = ""
        """The stream that continues the last line, if a container runtime has split that."""
        self.wrapped = False
        """Whether vLLM repeats the record's head before the next line."""
        bare = _without_rank(record.text)
        self.traceback = bare.startswith(_TRACEBACK)
        self.fatal = head is None and _FATAL.match(bare) is not None
        self.since = 0.0


class Assembler:
    """Assemble the records of one file, in order.

    Args:
        tailed: The file, for acknowledgements.
        path: The file's name in the records.
        parser: Parses first lines.
        bounds: The limits of a record.
    """

    def __init__(self, tailed: TailedFile, path: str, parser: Parser, bounds: Bounds) -> None:
        self._tailed = tailed
        self._path = clean(os.fsencode(path))
        self._parser = parser
        self._bounds = bounds
        self._pending: _OpenRecord | None = None
        self._last_ns = 0
        self._broken: dict[str, Level] = {}
        """The levels of tracebacks that other processes' lines have interrupted, by prefix."""

    def expect(self, lines: Sequence[LogLine], now_ns: int) -> None:
        """Look ahead for a time, so that first lines without one are not dated as new.

        A backlog may begin with them, and a target may refuse older records after new ones.

        Args:
            lines: The lines to be fed.
            now_ns: Nanoseconds since 1970.
        """
        if self._last_ns:
            return
        # Whole milliseconds: targets add a record's position to them, which makes times unique.
        self._last_ns = min(self._tailed.modified_ns, now_ns) // 1_000_000 * 1_000_000
        for line in lines:
            framed = unframe(line.raw)
            if framed is not None:
                self._last_ns = framed.time_ns // 1_000_000 * 1_000_000
                return
            head = self._parser.parse(clean(line.raw), now_ns / 1e9)
            if head is not None and head.time_ns:
                self._last_ns = head.time_ns
                return

    def feed(self, line: LogLine, now: float, now_ns: int) -> Record | None:
        """Take a line; return the previous record if the line begins a new one.

        Args:
            line: The line as read.
            now: A monotonic time, in seconds.
            now_ns: Nanoseconds since 1970.
        """
        framed = unframe(line.raw)
        raw = line.raw if framed is None else framed.text
        wrapped = raw.endswith(b"\r")
        text = clean(raw[:-1] if wrapped else raw)
        if line.cut:
            text += f" … [{line.cut:,} bytes cut]"
        pending = self._pending
        glued = pending is not None and framed is not None and pending.partial == framed.stream
        head = None if glued else self._parser.parse(text, now_ns / 1e9)
        done = None
        more: str | None = text
        if not glued:
            more = None if pending is None else self._continuation(pending, head, text)
        if pending is not None and more is not None:
            if pending.size + len(more) + 1 > self._bounds.record_bytes:
                done = self.flush()
                pending = self._begin_again(pending, line, more, now_ns)
            else:
                if glued:
                    begun = pending.parts.pop()
                    pending.size -= len(begun) + 1
                    more = begun + more
                self._append(pending, more)
                pending.record.end = line.end
        else:
            done = self.flush()
            pending = self._begin(line, text, head, now_ns)
            if framed is not None:
                pending.record.time_ns = framed.time_ns  # more precise than the line's own
        pending.partial = framed.stream if framed is not None and framed.partial else ""
        pending.wrapped = wrapped
        pending.since = now
        return done

    def due(self, now: float) -> Record | None:
        """Return the pending record if its time to wait for more lines is over."""
        if self._pending is None or now - self._pending.since < self._bounds.wait:
            return None
        return self.flush()

    def flush(self) -> Record | None:
        """Return the pending record, complete or not."""
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        if pending.traceback and pending.prefix and len(self._broken) < _MOST_BROKEN:
            self._broken[pending.prefix] = pending.record.level
        pending.record.text = "\n".join(pending.parts)
        pending.record.wanted = pending.record.level <= self._bounds.level
        return pending.record

    def _continuation(self, pending: _OpenRecord, head: Head | None, text: str) -> str | None:
        """Return what ``text`` adds to the pending record; None: it belongs to another record."""
        if head is not None:
            first = pending.head
            if pending.wrapped and first is not None and head.prefix == first.prefix:
                return head.text  # vLLM repeats the head on each line of a record
            return None
        prefix, _, _ = split_process(text)
        if prefix and prefix != pending.prefix:
            return None  # another process
        text = text[len(prefix) :]
        bare = _without_rank(text)
        if pending.open or pending.traceback or not bare or bare[0] in " \t":
            return text
        if bare.startswith(_THREADS):
            return text if pending.fatal else None
        if bare.startswith(_TRACEBACK):
            return text if prefix == pending.prefix else None
        return text if bare.startswith(_BETWEEN) else None

    def _append(self, pending: _OpenRecord, text: str) -> None:
        if pending.open:
            tail = split_tail(text)
            if tail is not None:
                text = tail.text
                pending.record.file, pending.record.line = tail.file, tail.line
                pending.record.logger = tail.logger
                pending.open = False
        bare = _without_rank(text)
        if bare.startswith(_TRACEBACK):
            pending.traceback = True
            if pending.record.level > Level.WARNING:
                pending.record.level = Level.ERROR  # it explains a crash
        elif bare and bare[0] not in " \t":
            pending.traceback = False  # the line with the exception ends the traceback
        pending.parts.append(text)
        pending.size += len(text) + 1

    def _begin(self, line: LogLine, text: str, head: Head | None, now_ns: int) -> _OpenRecord:
        record = Record(self._path, self._tailed, line.end, now_ns, text)
        if head is None:
            prefix, record.process, record.pid = split_process(text)
            record.text = text[len(prefix) :]
            if _FATAL.match(_without_rank(record.text)):
                record.level = Level.ERROR
            goes_on = self._broken.pop(prefix, None)
            if goes_on is not None:
                record.level = goes_on
        else:
            prefix, _, _ = split_process(head.prefix)
            record.text = head.text
            record.level = head.level
            record.time_ns = head.time_ns or 0
            self._last_ns = record.time_ns or self._last_ns
            record.format = head.format
            record.logger, record.file, record.line = head.logger, head.file, head.line
            record.process, record.pid = head.process, head.pid
            self._broken.pop(prefix, None)
            goes_on = None
        record.time_ns = record.time_ns or self._guess(now_ns)
        self._pending = _OpenRecord(record, head, prefix)
        bare = _without_rank(record.text)
        if goes_on is not None and bare[:1] in ("", " ", "\t"):
            self._pending.traceback = True  # its last line is still to come
        return self._pending

    def _guess(self, now_ns: int) -> int:
        """Return the time of a line without a time.

        That is now if the last read reached the end of the file a moment ago. Otherwise it is the
        time of the previous record, or of that read.
        """
        before = self._tailed.read_up_ns
        if now_ns - before < _LIVE_NS:
            return now_ns
        return min(max(before, self._last_ns), now_ns) or now_ns

    def _begin_again(
        self, before: _OpenRecord, line: LogLine, text: str, now_ns: int
    ) -> _OpenRecord:
        """Begin a new record with the head of the one that has become too long."""
        record = replace(before.record, end=line.end, observed_ns=now_ns, text=text)
        self._pending = _OpenRecord(record, before.head, before.prefix)
        self._pending.open = before.open
        self._pending.traceback = before.traceback
        return self._pending


def _without_rank(text: str) -> str:
    found = _RANK.match(text)
    return text if found is None else text[found.end() :]
