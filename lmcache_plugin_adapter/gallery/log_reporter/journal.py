# SPDX-License-Identifier: Apache-2.0
"""Read records from journald, through ``journalctl --follow``; the journal is the buffer."""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from lmcache_plugin_adapter import kit

from .reading.assembling import Assembler
from .reading.container import Framed
from .reading.records import level_of
from .reading.tailed_file import FilePosition, LogLine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .reading.assembling import Bounds
    from .reading.files import FollowedFiles
    from .reading.parsing import Parser
    from .reading.records import Record
    from .settings import JournaldSource

KEY = "journald:"
"""The name of the journal's position among those of files, and in records."""

_CHUNK = 65536
_MOST_ERROR = 4096
_FIELDS = "MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_COMM,_PID,SYSLOG_PID"


class _JournalEntry(msgspec.Struct):
    """The fields of an entry in the JSON of journalctl."""

    cursor: str = msgspec.field(name="__CURSOR")
    time: str = msgspec.field(name="__REALTIME_TIMESTAMP")
    message: str | list[int] | None = msgspec.field(name="MESSAGE", default=None)
    priority: str | None = msgspec.field(name="PRIORITY", default=None)
    identifier: str | None = msgspec.field(name="SYSLOG_IDENTIFIER", default=None)
    command: str | None = msgspec.field(name="_COMM", default=None)
    pid: str | None = msgspec.field(name="_PID", default=None)
    given_pid: str | None = msgspec.field(name="SYSLOG_PID", default=None)


_decoder = msgspec.json.Decoder(_JournalEntry)


class _Entries:
    """Stands for the journal in records: a position is the number of an entry since the start."""

    def __init__(self) -> None:
        self.last = 0
        """The last entry."""
        self.acked = 0
        self.read_up_ns = 0
        self.modified_ns = 0  # entries have times of their own


class Journal:
    """The records of the journal, with the methods of ``reading.files.FollowedFiles``.

    Args:
        source: What to read.
        parser: Parses the first lines of records.
        bounds: The limits of a record.
        position: The stored position; None: this is the first start.
        from_end: Whether to skip what the journal holds at the first start.
        report: Called with a sentence and a number of lost bytes.
        command: The program.
    """

    def __init__(
        self,
        source: JournaldSource,
        parser: Parser,
        bounds: Bounds,
        position: FilePosition | None,
        *,
        from_end: bool,
        report: Callable[[str, int], None],
        command: Sequence[str] = ("journalctl",),
    ) -> None:
        self._source = source
        self._command = command
        self._report = report
        self._cursor = "" if position is None else position.digest
        self._first = ["--lines=0"] if from_end else ["--no-tail"]
        self._entries = _Entries()
        self._assembler = Assembler(self._entries, KEY, parser, bounds)
        self._cursors: deque[tuple[int, str]] = deque()
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._ready: deque[Record] = deque()
        self._backoff = kit.Backoff()
        self._next = 0.0
        self._problem = ""
        self.lines = 0
        self.unread = 0

    def poll(self, now: float) -> None:
        """Start journalctl, and start it again after it has exited."""
        if self._process is None and now >= self._next:
            self._start(now)

    def take(self, records: int, size: int, now: float, *, final: bool = False) -> list[Record]:
        """Return the next records; see ``reading.files.FollowedFiles.take``."""
        read = 0
        while len(self._ready) < records and read < size:
            data = self._read(now)
            if not data:
                break
            read += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._feed(line, now)
        self._ready.extend(self._assembler.flush() if final else self._assembler.due(now))
        return [self._ready.popleft() for _ in range(min(records, len(self._ready)))]

    def positions(self) -> dict[str, list[FilePosition]]:
        """Return the position to store."""
        while self._cursors and self._cursors[0][0] <= self._entries.acked:
            self._cursor = self._cursors.popleft()[1]
        if not self._cursor:
            return {}
        return {KEY: [FilePosition(device=0, inode=0, offset=0, size=0, digest=self._cursor)]}

    def close(self) -> None:
        """End journalctl."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def _arguments(self) -> list[str]:
        last = self._cursors[-1][1] if self._cursors else self._cursor
        options = ["--output=json", "--follow", "--all", f"--output-fields={_FIELDS}"]
        options += [f"--after-cursor={last}", "--no-tail"] if last else self._first
        if self._source.directory is not None:
            options.append(f"--directory={self._source.directory}")
        matches: list[str] = []
        for unit in self._source.units:
            full = unit if "." in unit else f"{unit}.service"
            # Also what systemd itself logs on the unit, such as its end.
            matches += ["+", f"_SYSTEMD_UNIT={full}", "+", "_PID=1", f"UNIT={full}"]
        for identifier in self._source.identifiers:
            matches += ["+", f"SYSLOG_IDENTIFIER={identifier}"]
        if self._source.kernel:
            matches += ["+", "_TRANSPORT=kernel"]
        return [*self._command, *options, *matches[1:]]

    def _start(self, now: float) -> None:
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                self._arguments(), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
            )
        except OSError as error:
            self._fail(error.strerror or str(error), now)
            return
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
        self._rest = b""

    def _read(self, now: float) -> bytes:
        """Return more of journalctl's output; empty: there is nothing now."""
        process = self._process
        if process is None or process.stdout is None or process.stderr is None:
            return b""
        try:
            data = os.read(process.stdout.fileno(), _CHUNK)
        except BlockingIOError:
            self._entries.read_up_ns = time.time_ns()
            return b""
        if data:
            if self._problem:
                self._problem = ""
                kit.info("Reads the journal again")
            self._backoff.reset()
            return data
        try:
            said = os.read(process.stderr.fileno(), _MOST_ERROR).decode(errors="replace")
        except BlockingIOError:
            said = ""
        self.close()
        code = process.returncode
        self._fail(" ".join(said.split())[:300] or f"journalctl ended with code {code}", now)
        return b""

    def _fail(self, reason: str, now: float) -> None:
        self._next = now + self._backoff.next()
        if reason != self._problem:
            self._problem = reason
            self._report(f"cannot read the journal: {reason}; retrying", 0)

    def _feed(self, line: bytes, now: float) -> None:
        try:
            entry = _decoder.decode(line)
            at = int(entry.time) * 1000
        except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError):
            return
        text = entry.message
        if text is None:
            return
        raw = text.encode("utf-8", "backslashreplace") if isinstance(text, str) else bytes(text)
        name = entry.identifier or entry.command or ""
        pid = entry.pid or entry.given_pid or ""
        level = level_of(entry.priority)
        framed = Framed(
            b"", f"{name}[{pid}]", at, False, name, int(pid) if pid.isdigit() else None, level
        )
        self._entries.last += 1
        number = self._entries.last
        self._cursors.append((number, entry.cursor))
        *earlier, last = raw.rstrip(b"\n").split(b"\n")
        for part in (*earlier, last):
            self.lines += 1
            # Only the last line confirms the entry.
            one = LogLine(part, number if part is last else number - 1, 0)
            found = framed._replace(text=part)
            self._ready.extend(self._assembler.feed(one, now, time.time_ns(), found))


class Sources:
    """Several sources in the place of one.

    Args:
        sources: ``reading.files.FollowedFiles``, :class:`Journal`.
    """

    def __init__(self, sources: Sequence[FollowedFiles | Journal]) -> None:
        self._sources = sources

    @property
    def lines(self) -> int:
        """The number of lines read so far."""
        return sum(source.lines for source in self._sources)

    @property
    def unread(self) -> int:
        """The number of unread bytes, as far as known."""
        return sum(source.unread for source in self._sources)

    def poll(self, now: float) -> None:
        """Check all sources."""
        for source in self._sources:
            source.poll(now)

    def take(self, records: int, size: int, now: float, *, final: bool = False) -> list[Record]:
        """Return the next records of all sources."""
        found: list[Record] = []
        for source in self._sources:
            found += source.take(max(records - len(found), 0), size, now, final=final)
        return found

    def positions(self) -> dict[str, list[FilePosition]]:
        """Return the positions to store."""
        return {path: one for source in self._sources for path, one in source.positions().items()}

    def close(self) -> None:
        """Close all sources."""
        for source in self._sources:
            source.close()
