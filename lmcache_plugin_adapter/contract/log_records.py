# SPDX-License-Identifier: Apache-2.0
"""Format log records as LMCache does: ``[time] LMCache LEVEL: message (file:line:logger)``."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EMERGENCY, ALERT, CRITICAL, ERROR, WARNING, NOTICE, INFO, DEBUG = range(8)
"""Levels as syslog numbers, which plugins write too: ``<3>`` is an error."""

_NAMES = ("CRITICAL", "CRITICAL", "CRITICAL", "ERROR", "WARNING", "INFO", "INFO", "DEBUG")
_COLORS = (
    *("\x1b[31;1m",) * 3,
    "\x1b[31;20m",
    "\x1b[33;20m",
    *("\x1b[32;20m",) * 2,
    "\x1b[1m",
)
_PLAIN = "\x1b[0m"
_SLANTED = "\x1b[3m"

LEVELS = {"error": ERROR, "warning": WARNING, "note": INFO, "info": INFO, "debug": DEBUG}

_THRESHOLDS = {
    "": DEBUG,
    "DEBUG": DEBUG,
    "INFO": INFO,
    "WARN": WARNING,
    "WARNING": WARNING,
    "ERROR": ERROR,
    "FATAL": CRITICAL,
    "CRITICAL": CRITICAL,
}


def threshold_from(environ: Mapping[str, str]) -> int:
    """Return the least urgent level to log.

    It is ``LMCACHE_LOG_LEVEL`` if set, or INFO if that is not a level, as in
    LMCache. Without the variable, all levels are logged.
    """
    return _THRESHOLDS.get(environ.get("LMCACHE_LOG_LEVEL", "").upper(), INFO)


def is_debug_requested(environ: Mapping[str, str]) -> bool:
    """Return whether ``LMCACHE_LOG_LEVEL`` names the level DEBUG."""
    return environ.get("LMCACHE_LOG_LEVEL", "").upper() == "DEBUG"


def wants_color(fd: int, environ: Mapping[str, str]) -> bool:
    """Return whether ``fd`` is a terminal with colours; respects ``NO_COLOR`` and ``TERM``."""
    if environ.get("NO_COLOR") or environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        return os.isatty(fd)
    except OSError:
        return False


class Clock:
    """The time stamp of records; the part down to the second is formatted once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def stamp(self) -> str:
        """Return the local time as ``2026-11-22 07:06:56,699``."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._text},{int((now - second) * 1000):03d}"


class RecordFormat:
    """The frame around the lines of one source.

    Args:
        name: The name in brackets before each line.
        file: The file name at the end of a record.
        pid: The process id there, in the place of a line number.
        logger: The logger name there.
        color: Whether to use LMCache's colours.
    """

    __slots__ = ("_color", "_name", "_tails")

    def __init__(self, name: str, file: str, pid: int, logger: str, color: bool) -> None:
        self._color = color
        self._name = f"[{name}] "
        source = f"({file}:{pid}:{logger})"
        tail = f" {_SLANTED}{source}{_PLAIN}\n" if color else f" {source}\n"
        self._tails = tail.encode("utf-8", "backslashreplace")

    def head(self, level: int, stamp: str) -> bytes:
        """Return the text before each line."""
        if self._color:
            head = f"{_COLORS[level]}[{stamp}] LMCache {_NAMES[level]}:{_PLAIN} {self._name}"
        else:
            head = f"[{stamp}] LMCache {_NAMES[level]}: {self._name}"
        return head.encode("utf-8", "backslashreplace")

    def frame(self, level: int, text: bytes, stamp: str) -> bytes:
        """Return one record for each line of ``text``, whose lines are clean."""
        head = self.head(level, stamp)
        if b"\n" in text:
            text = text.replace(b"\n", self._tails + head)
        return head + text + self._tails

    @property
    def overhead(self) -> int:
        """The most bytes that the frame adds to a line."""
        return len(self.head(CRITICAL, "0000-00-00 00:00:00,000")) + len(self._tails)
