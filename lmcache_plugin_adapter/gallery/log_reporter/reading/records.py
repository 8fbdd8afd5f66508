# SPDX-License-Identifier: Apache-2.0
"""A log record with the fields of its line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Protocol

    class LogSource(Protocol):
        """The source of records."""

        acked: int
        """The position up to which everything is delivered."""
        read_up_ns: int
        """When it was last read to its end (nanoseconds since 1970)."""

        @property
        def modified_ns(self) -> int:
            """The time of the last write, as far as known."""


class Level(IntEnum):
    """Severity in syslog's numbers (RFC 5424): a lower number is more urgent."""

    CRITICAL = 2
    ERROR = 3
    WARNING = 4
    INFO = 6
    DEBUG = 7

    @property
    def word(self) -> str:
        """The level in lower case: ``warning``."""
        return self.name.lower()


LEVELS = {
    "TRACE": Level.DEBUG,
    "DEBUG": Level.DEBUG,
    "INFO": Level.INFO,
    "INFORMATION": Level.INFO,
    "SUCCESS": Level.INFO,
    "NOTICE": Level.INFO,
    "WARN": Level.WARNING,
    "WARNING": Level.WARNING,
    "ERR": Level.ERROR,
    "ERROR": Level.ERROR,
    "EXCEPTION": Level.ERROR,
    "CRIT": Level.CRITICAL,
    "CRITICAL": Level.CRITICAL,
    "FATAL": Level.CRITICAL,
    "PANIC": Level.CRITICAL,
    "ALERT": Level.CRITICAL,
    "EMERG": Level.CRITICAL,
}
"""The levels by the names that loggers write."""

_LETTERS = dict(zip("DIWEC", sorted(Level, reverse=True), strict=True))
_SYSLOG = (*[Level.CRITICAL] * 3, Level.ERROR, Level.WARNING, *[Level.INFO] * 2, Level.DEBUG)


def level_of(value: object) -> Level | None:
    """Return the level of a name, of a number of syslog (0-7) or of Python's logging; or None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        word = value.strip().upper()
        if not (word.isascii() and word.isdigit()):
            return LEVELS.get(word) or _LETTERS.get(word)
        value = int(word[:9])
    if not isinstance(value, (int, float)) or value < 0:
        return None
    if value < len(_SYSLOG):
        return _SYSLOG[int(value)]
    for least, level in ((50, Level.CRITICAL), (40, Level.ERROR), (30, Level.WARNING)):
        if value >= least:
            return level
    return Level.INFO if value >= 20 else Level.DEBUG


@dataclass(slots=True)
class Record:
    """One record of a log file."""

    path: str
    """The file's path, as in the settings or matched by a pattern."""
    tailed: LogSource | None
    """The file or another source, for the acknowledgement."""
    end: int
    """The position of the first byte after the record."""
    observed_ns: int
    """When it was read, in nanoseconds since 1970."""
    text: str
    """The message without its frame; lines are joined by newlines."""
    level: Level = Level.INFO
    time_ns: int = 0
    """When it was logged, in nanoseconds since 1970; ``observed_ns`` if unknown."""
    format: str = ""
    """The log format, such as ``vllm`` or ``json``; empty: unknown."""
    logger: str = ""
    """Name of the logger."""
    file: str = ""
    """The source file that logged it."""
    line: int = 0
    """The line in ``file``; 0 if unknown."""
    process: str = ""
    """vLLM's name of the process, such as ``EngineCore_DP0``."""
    pid: int | None = None
    """The process that logged it."""
    extra: dict[str, str] | None = None
    """Other fields of a JSON record."""
    wanted: bool = True
    """Whether it is to be delivered."""
    confirmed: int = 0
    """The position up to which everything is delivered with this record and those before it."""

    @property
    def source(self) -> str:
        """``file:line`` of the code that logged it, or empty."""
        return f"{self.file}:{self.line}" if self.file and self.line else self.file


class Head(NamedTuple):
    """The first line of a record, parsed."""

    level: Level
    time_ns: int | None
    format: str
    text: str
    prefix: str = ""
    """Everything before the text."""
    logger: str = ""
    file: str = ""
    line: int = 0
    process: str = ""
    pid: int | None = None
    open: bool = False
    """Whether a later line ends the record."""
    extra: dict[str, str] | None = None
    """Other fields of a JSON record."""
