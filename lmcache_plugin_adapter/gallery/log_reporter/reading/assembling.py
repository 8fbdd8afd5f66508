# SPDX-License-Identifier: Apache-2.0
"""Assemble lines to records, such as tracebacks and messages of several lines; bounded.

Lines of several processes may alternate in one file. A record that has no end yet, such as a
traceback, stays open while other processes log.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from .container import unframe
from .crash_texts import begins_traceback, belongs_to_crash, is_crash, without_prefix
from .line_text import clean, split_process, split_tail
from .records import Level, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .container import Framed
    from .parsing import Parser
    from .records import Head, LogSource
    from .tailed_file import LogLine

_LIVE_NS = 3_000_000_000
"""A line without a time that is read this soon after the last read was written just now."""

_MOST_OPEN = 32
"""The most records of one file that are open at a time."""

_Key = tuple[str, str]
"""Stream of a container runtime, and prefix of the process."""


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

    def __init__(self, record: Record, head: Head | None, key: _Key, start: int) -> None:
        self.record = record
        self.head = head
        self.key = key
        self.start = start
        """The position of its first byte."""
        self.parts = [record.text]
        self.size = len(record.text)
        self.open = head.open if head else False
        self.partial = False
        """Whether a container runtime has split its last line."""
        self.wrapped = False
        """Whether vLLM repeats the record's head before the next line."""
        bare = without_prefix(record.text)
        self.traceback = begins_traceback(bare)
        self.crash = self.traceback or _is_crash(bare, record, head)
        self.json = head is None and record.text.rstrip() == "{"
        self.since = 0.0

    @property
    def unfinished(self) -> bool:
        """Whether it waits for more lines also while other processes log."""
        return self.open or self.partial or self.wrapped or self.crash or self.json


class Assembler:
    """Assemble the records of one file.

    Args:
        tailed: The file or another source, for acknowledgements.
        path: The file's name in the records.
        parser: Parses first lines.
        bounds: The limits of a record.
    """

    def __init__(self, tailed: LogSource, path: str, parser: Parser, bounds: Bounds) -> None:
        self._tailed = tailed
        self._path = clean(os.fsencode(path))
        self._parser = parser
        self._bounds = bounds
        self._open: dict[_Key, _OpenRecord] = {}
        """By key, oldest first."""
        self._last: _OpenRecord | None = None
        """The record of the previous line."""
        self._read = 0
        """The end of the previous line."""
        self._last_ns = 0

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

    def feed(
        self,
        line: LogLine,
        now: float,
        now_ns: int,
        framed: Framed | None = None,
        *,
        within: bool = False,
    ) -> list[Record]:
        """Take a line; return the records that it completes.

        Args:
            line: The line as read.
            now: A monotonic time, in seconds.
            now_ns: Nanoseconds since 1970.
            framed: What is known of the line; None: what stands in it.
            within: Whether the line belongs to the record of the line before, whatever it is.
        """
        if not self._read:
            self._read = line.end - len(line.raw) - line.cut - 1
        framed = framed or unframe(line.raw)
        raw = line.raw if framed is None else framed.text
        wrapped = raw.endswith(b"\r")
        text = clean(raw[:-1] if wrapped else raw)
        if line.cut:
            text += f" … [{line.cut:,} bytes cut]"
        stream = "" if framed is None else framed.stream
        done: list[Record] = []
        current = self._split_line(stream) if framed is not None else None
        head, more, glued = None, text, current is not None
        if within:
            current, glued = self._last, False
        if current is None:
            head = self._parser.parse(text, now_ns / 1e9)
            current, found = self._continued(stream, head, text)
            more = found or ""
        if current is not None:
            if current.size + len(more) + 1 > self._bounds.record_bytes:
                done = self._complete([current])
                current = self._begin_again(current, line, more, now_ns)
            else:
                if glued:
                    begun = current.parts.pop()
                    current.size -= len(begun) + 1
                    more = begun + more
                self._append(current, more)
                current.record.end = line.end
        else:
            key = (stream, split_process(text)[0])
            done = self._complete(
                [one for one in self._open.values() if one.key == key or not one.unfinished]
            )
            if len(self._open) >= _MOST_OPEN:
                done += self._complete([next(iter(self._open.values()))])
            current = self._begin(line, text, head, key, framed, now_ns)
        current.partial = framed is not None and framed.partial
        current.wrapped = wrapped
        current.since = now
        self._last, self._read = current, line.end
        return done

    def due(self, now: float) -> list[Record]:
        """Return the records whose time to wait for more lines is over."""
        wait = self._bounds.wait
        return self._complete([one for one in self._open.values() if now - one.since >= wait])

    def flush(self) -> list[Record]:
        """Return all open records, complete or not."""
        return self._complete(list(self._open.values()))

    def _complete(self, ended: list[_OpenRecord]) -> list[Record]:
        """Close records; note how far everything is read with each of them."""
        done = []
        for one in ended:
            del self._open[one.key]
            if one is self._last:
                self._last = None
            record = one.record
            record.text = "\n".join(one.parts)
            if one.json:
                self._read_object(record)
            record.wanted = record.level <= self._bounds.level
            record.confirmed = min([self._read, *(other.start for other in self._open.values())])
            done.append(record)
        return done

    def _split_line(self, stream: str) -> _OpenRecord | None:
        """Return the record whose last line a container runtime has split."""
        for one in self._open.values():
            if one.partial and one.key[0] == stream:
                return one
        return None

    def _continued(
        self, stream: str, head: Head | None, text: str
    ) -> tuple[_OpenRecord | None, str | None]:
        """Return the record that a line continues, and what it adds to that."""
        prefix = split_process(text)[0]
        current = self._open.get((stream, prefix))
        if current is not None:
            more = _continuation(current, head, text[len(prefix) :])
            return (None, None) if more is None else (current, more)
        last = self._last
        if head is None and not prefix and last is not None and last.key[0] == stream:
            bare = without_prefix(text)
            if last.open or not bare or (bare[0] in " \t" and not begins_traceback(bare)):
                return last, text  # written past the process's own streams
        return None, None

    def _append(self, current: _OpenRecord, text: str) -> None:
        record = current.record
        if current.open:
            tail = split_tail(text)
            if tail is not None:
                text = tail.text
                record.file, record.line, record.logger = tail.file, tail.line, tail.logger
                current.open = False
        bare = without_prefix(text)
        if begins_traceback(bare):
            current.traceback = current.crash = True
            if record.level > Level.WARNING:
                record.level = Level.ERROR  # it explains a crash
        elif bare and bare[0] not in " \t":
            current.traceback = False  # the line with the exception ends the traceback
        current.parts.append(text)
        current.size += len(text) + 1

    def _begin(
        self,
        line: LogLine,
        text: str,
        head: Head | None,
        key: _Key,
        framed: Framed | None,
        now_ns: int,
    ) -> _OpenRecord:
        record = Record(self._path, self._tailed, line.end, now_ns, text)
        if head is None:
            prefix, record.process, record.pid = split_process(text)
            record.text = text[len(prefix) :]
        else:
            _apply(record, head)
            self._last_ns = record.time_ns or self._last_ns
        if framed is not None:
            record.process = record.process or framed.process
            record.pid = framed.pid if record.pid is None else record.pid
            if framed.level is not None and _has_no_level(head):
                record.level = framed.level
            if not record.time_ns or framed.time_ns % 1_000_000_000:
                record.time_ns = framed.time_ns  # more precise than the line's own
        record.time_ns = record.time_ns or self._guess(now_ns)
        opened = self._open[key] = _OpenRecord(record, head, key, self._read)
        if opened.crash and record.level > Level.WARNING:
            record.level = Level.ERROR
        return opened

    def _read_object(self, record: Record) -> None:
        """Read a record in JSON of several lines, once it is complete."""
        head = self._parser.parse_object(record.text, record.observed_ns / 1e9)
        if head is not None:
            at = record.time_ns
            _apply(record, head)
            record.time_ns = record.time_ns or at

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
        opened = self._open[before.key] = _OpenRecord(record, before.head, before.key, self._read)
        opened.open, opened.traceback = before.open, before.traceback
        opened.crash = before.crash
        return opened


def _continuation(current: _OpenRecord, head: Head | None, rest: str) -> str | None:
    """Return what a line adds to an open record of its process; None: it begins another one."""
    if head is not None:
        first = current.head
        if current.wrapped and first is not None and head.prefix == first.prefix:
            return head.text  # vLLM repeats the head on each line of a record
        return None
    if current.json:
        return None if current.parts[-1] == "}" else rest
    bare = without_prefix(rest)
    if current.open or current.traceback or not bare or bare[0] in " \t":
        return rest
    if begins_traceback(bare):
        return rest
    if current.crash and belongs_to_crash(bare, current.parts[-1]):
        return rest
    return None


def _is_crash(bare: str, record: Record, head: Head | None) -> bool:
    if head is not None and head.format == "torch":
        return record.level <= Level.ERROR  # the C++ frames follow
    return _has_no_level(head) and is_crash(bare)


def _has_no_level(head: Head | None) -> bool:
    return head is None or head.format == "text"


def _apply(record: Record, head: Head) -> None:
    record.text, record.level, record.time_ns = head.text, head.level, head.time_ns or 0
    record.format, record.extra = head.format, head.extra
    record.logger, record.file, record.line = head.logger, head.file, head.line
    record.process, record.pid = head.process or record.process, head.pid
