# SPDX-License-Identifier: Apache-2.0
"""Read records from journald, through ``journalctl --follow``; the journal is the buffer."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.log_reporter.reading.assembling import Assembler
from lmcache_plugin_adapter.gallery.log_reporter.reading.container import Framed
from lmcache_plugin_adapter.gallery.log_reporter.reading.records import level_of
from lmcache_plugin_adapter.gallery.log_reporter.reading.tailed_file import FilePosition, LogLine

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence
    from typing import IO

    from lmcache_plugin_adapter.gallery.log_reporter.reading.assembling import Bounds
    from lmcache_plugin_adapter.gallery.log_reporter.reading.parsing import Parser
    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record

    from .settings import JournaldSource

KEY = "journald:"
"""The name of the journal's position among those of files, and in records."""

_CHUNK = 65536
_MOST_ERROR = 4096
_SETTLED = 5.0
"""Seconds after which journalctl runs, and what it writes to its standard error is a warning."""
_FIELDS = "MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_COMM,_PID,SYSLOG_PID,_LINE_BREAK"


class _JournalEntry(msgspec.Struct):
    """The fields of an entry in the JSON of journalctl; :func:`_bytes_of` reads their values."""

    cursor: str = msgspec.field(name="__CURSOR")
    time: str = msgspec.field(name="__REALTIME_TIMESTAMP")
    message: Any = msgspec.field(name="MESSAGE", default=None)
    priority: Any = msgspec.field(name="PRIORITY", default=None)
    identifier: Any = msgspec.field(name="SYSLOG_IDENTIFIER", default=None)
    command: Any = msgspec.field(name="_COMM", default=None)
    pid: Any = msgspec.field(name="_PID", default=None)
    given_pid: Any = msgspec.field(name="SYSLOG_PID", default=None)
    line_break: Any = msgspec.field(name="_LINE_BREAK", default=None)


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
        self._said = b""
        """The text on journalctl's standard error that is not reported yet."""
        self._begun = 0.0
        self._ready: deque[Record] = deque()
        self._backoff = kit.Backoff()
        self._next = 0.0
        self._problem = ""
        self._after = ""
        """The cursor of the entry before those that the process is to return."""
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
        self._after = self._cursors[-1][1] if self._cursors else self._cursor
        # Without --merge, --follow reads the entries of the last boot only.
        options = ["--output=json", "--follow", "--all", "--merge", f"--output-fields={_FIELDS}"]
        options += [f"--cursor={self._after}", "--no-tail"] if self._after else self._first
        own: list[str] = []
        if self._source.directory is not None:
            options.append(f"--directory={self._source.directory}")
        elif machine := _machine_id():  # --merge adds the journals of other machines
            own = [f"_MACHINE_ID={machine}"]
        groups: list[list[str]] = []
        for unit in self._source.units:
            full = unit if "." in unit else f"{unit}.service"
            # Also what systemd logs on the unit, such as its end, and its core dumps.
            groups += [[f"_SYSTEMD_UNIT={full}"], ["_PID=1", f"UNIT={full}"]]
            groups += [["_UID=0", f"COREDUMP_UNIT={full}"]]
        groups += [[f"SYSLOG_IDENTIFIER={identifier}"] for identifier in self._source.identifiers]
        if self._source.kernel:
            groups += [["_TRANSPORT=kernel"]]
        matches = [part for group in groups for part in ("+", *group, *own)]
        return [*self._command, *options, *matches[1:]]

    def _start(self, now: float) -> None:
        import subprocess  # late: only journald needs it, and each plugin is to stay small

        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                self._arguments(), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
            )
        except OSError as error:
            self._fail(f"cannot start {self._command[0]!r}: {error.strerror or error}", now)
            return
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
        self._rest = self._said = b""
        self._begun = now

    def _read(self, now: float) -> bytes:
        """Return more of journalctl's output; empty: there is nothing now."""
        process = self._process
        if process is None or process.stdout is None or process.stderr is None:
            return b""
        try:
            data = os.read(process.stdout.fileno(), _CHUNK)
        except BlockingIOError:
            self._entries.read_up_ns = time.time_ns()
            self._said += _waiting(process.stderr)
            if self._said and now - self._begun >= _SETTLED:  # else it may be about to fail
                self._report(f"journalctl reports: {_sentence(self._said)}", 0)
                self._said = b""
            return b""
        if data:
            return data
        said = _sentence(self._said + _waiting(process.stderr))
        self.close()
        self._fail(said or f"journalctl ended with code {process.returncode}", now)
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
            raw = _bytes_of(entry.message)
            name = _text_of(entry.identifier) or _text_of(entry.command)
            pid = _text_of(entry.pid) or _text_of(entry.given_pid)
            level = level_of(_text_of(entry.priority))
            split = _text_of(entry.line_break) == "line-max"  # journald splits lines over 48 KiB
            process = int(pid) if pid.isdecimal() else None
        except (msgspec.MsgspecError, UnicodeError, ValueError, TypeError, RecursionError):
            return
        if raw is None or entry.cursor == self._after:
            return
        if self._problem:
            self._problem = ""
            kit.info("Reads the journal again")
        self._backoff.reset()
        framed = Framed(b"", f"{name}[{pid}]", at, split, name, process, level)
        self._entries.last += 1
        number = self._entries.last
        self._cursors.append((number, entry.cursor))
        parts = raw.rstrip(b"\n").split(b"\n")
        for index, part in enumerate(parts):
            self.lines += 1
            # Only the last line confirms the entry.
            one = LogLine(part, number if index == len(parts) - 1 else number - 1, 0)
            found = framed._replace(text=part)
            self._ready.extend(
                self._assembler.feed(one, now, time.time_ns(), found, within=index > 0)
            )


def _machine_id() -> str:
    """Return the machine's id; empty: it has none, as in many containers."""
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError:
        return ""


def _bytes_of(value: Any) -> bytes | None:
    """Return a field of journalctl's JSON: text, or the bytes of what is no text.

    Of a field that the entry has several times, this is the first.
    """
    if isinstance(value, list) and value and not isinstance(value[0], int):
        value = value[0]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace")
    return bytes(value) if isinstance(value, list) else None


def _text_of(value: Any) -> str:
    return (_bytes_of(value) or b"").decode(errors="backslashreplace")


def _waiting(stream: IO[bytes]) -> bytes:
    """Return what a process has written since the last call."""
    try:
        return os.read(stream.fileno(), _MOST_ERROR)
    except BlockingIOError:
        return b""


def _sentence(said: bytes) -> str:
    return " ".join(said.decode(errors="replace").split())[:300]
