# SPDX-License-Identifier: Apache-2.0
"""The forms in which commands print lines of plugins, and how to read LMCache's form."""

from __future__ import annotations

import enum
import json
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import printable
from lmcache_plugin_adapter.contract.log_records import (
    CRITICAL,
    DEBUG,
    ERROR,
    INFO,
    WARNING,
    RecordFormat,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

LEVELS = {
    "critical": CRITICAL,
    "error": ERROR,
    "warning": WARNING,
    "info": INFO,
    "debug": DEBUG,
}
"""The levels by name, the most urgent first."""

_COLORS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""Foreground colours of plugins, in the order of their first line."""

_EVENTS = "supervisor.py"
"""The file of records about plugins, rather than by them."""

_RECORD = re.compile(
    r"\[(?P<time>[^\]]*)\] LMCache (?P<level>[A-Z]+): \[(?P<plugin>.*?)\] (?P<text>.*) "
    r"\((?P<file>.*?):(?P<pid>\d+):lmcache_plugin_adapter\.(?P<process>[\w.]+)\)"
)


Level = enum.Enum("Level", {name.upper(): name for name in LEVELS}, type=str)  # type: ignore[misc]
"""The names of the levels, as an option accepts them."""


class LogFormat(str, enum.Enum):
    """The form of a line."""

    SHORT = "short"
    TIMED = "timed"
    LMCACHE = "lmcache"


class RunFormat(str, enum.Enum):
    """The forms of a line in which the stand-ins of ``run`` log."""

    SHORT = "short"
    LMCACHE = "lmcache"


@dataclass(frozen=True)
class LogLine:
    """A line of a plugin's output.

    Attributes:
        when: Seconds since 1970.
        process: The engine process, for people.
        plugin: The plugin's name.
        level: Its level, as syslog counts.
        text: The line itself.
        file: The plugin's file name.
        pid: The plugin's pid; 0 if not known.
        engine: The pid of the engine process.
        is_ambiguous: Whether other engine processes are shown, too.
    """

    when: float
    process: str
    plugin: str
    level: int
    text: str
    file: str = ""
    pid: int = 0
    engine: int = 0
    is_ambiguous: bool = False

    @property
    def level_name(self) -> str:
        """The level's name; more urgent than critical is critical, a notice is information."""
        return next((name for name, level in LEVELS.items() if self.level <= level), "debug")


def parse_record(record: str) -> LogLine | None:
    """Return the line of a record in LMCache's form; None if it is something else."""
    found = _RECORD.fullmatch(record)
    if found is None:
        return None
    return LogLine(
        when=0.0,
        process=found["process"].replace(".", " "),
        plugin=found["plugin"],
        level=LEVELS.get(found["level"].lower(), INFO),
        text=found["text"],
        file=found["file"],
        pid=int(found["pid"]),
    )


def formatter(
    form: LogFormat,
    color: bool,
    expected: Iterable[tuple[str, str]] = (),
    ambiguous: Collection[str] = (),
) -> Callable[[LogLine], str]:
    """Return the function that formats lines.

    Args:
        form: The form.
        color: Whether to use colours.
        expected: Process and plugin of expected lines, for their alignment.
        ambiguous: Processes that several engines have.
    """
    if form is LogFormat.LMCACHE:
        return lambda line: _as_record(line, color)
    if form is LogFormat.SHORT:
        return _Short(color, expected, ambiguous).format
    return _Timed(color).format


def to_json(line: LogLine) -> str:
    """Return a line as one JSON document; ``docs`` describes it."""
    document = {
        "time": datetime.fromtimestamp(line.when).astimezone().isoformat(timespec="milliseconds"),
        "plugin": line.plugin,
        "process": line.process,
        "engine_pid": line.engine,
        "level": line.level_name,
        "text": line.text,
    }
    return json.dumps(document)


class _Short:
    """``worker 0 | worker_uptime | load 1.77``, each plugin in its colour."""

    def __init__(
        self, color: bool, expected: Iterable[tuple[str, str]], ambiguous: Collection[str]
    ) -> None:
        self._color = color
        self._ambiguous = ambiguous
        self._widths = [0, 0]
        self._colors: dict[str, int] = {}
        for names in expected:
            self._widen(names)

    def format(self, line: LogLine) -> str:
        process = line.process
        if process in self._ambiguous:
            process += f" of engine {line.engine}"
        names = process, line.plugin
        self._widen(names)
        process, plugin = (
            name.ljust(width) for name, width in zip(names, self._widths, strict=True)
        )
        head, text = f"{process} | {plugin} |", _clean(line.text)
        if self._color:
            number = self._colors.setdefault(line.plugin, len(self._colors))
            head = f"\x1b[{_COLORS[number % len(_COLORS)]}m{head}\x1b[0m"
            is_event = line.file == _EVENTS and line.level > WARNING
            text = f"\x1b[2m{text}\x1b[0m" if is_event else _by_level(line.level, text)
        return f"{head} {text}"

    def _widen(self, names: tuple[str, str]) -> None:
        self._widths = [
            max(width, len(name)) for width, name in zip(self._widths, names, strict=True)
        ]


class _Timed:
    """``2026-11-22 07:06:56.699 [worker_uptime] load 1.77``."""

    def __init__(self, color: bool) -> None:
        self._color = color

    def format(self, line: LogLine) -> str:
        name = line.plugin
        if line.is_ambiguous:
            name += f" on {line.process} of engine {line.engine}"
        text = f"{_stamp(line.when, '.')} [{name}] {_clean(line.text)}"
        return _by_level(line.level, text) if self._color else text


def _as_record(line: LogLine, color: bool) -> str:
    logger = f"lmcache_plugin_adapter.{line.process.replace(' ', '.')}"
    frame = RecordFormat(line.plugin, line.file, line.pid, logger, color)
    record = frame.frame(line.level, _clean(line.text).encode(), _stamp(line.when, ","))
    return record.decode().rstrip("\n")


def _stamp(when: float, point: str) -> str:
    second = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    return f"{second}{point}{int(when % 1 * 1000):03d}"


def _clean(text: str) -> str:
    return printable(text.replace("\t", "    "))


def _by_level(level: int, text: str) -> str:
    if level > WARNING:
        return text
    return f"\x1b[{31 if level <= ERROR else 33}m{text}\x1b[0m"
