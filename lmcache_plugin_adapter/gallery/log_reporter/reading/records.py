# SPDX-License-Identifier: Apache-2.0
"""A log record with the fields of its line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tailed_file import TailedFile


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


@dataclass(slots=True)
class Record:
    """One record of a log file."""

    path: str
    """The file's path, as in the settings or matched by a pattern."""
    tailed: TailedFile | None
    """The file, for the acknowledgement."""
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
    """The log format: ``vllm``, ``lmcache``, ``uvicorn``, ``json``, ``torch``, ``warning``, or
    empty."""
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
    wanted: bool = True
    """Whether it is urgent enough for delivery."""

    @property
    def source(self) -> str:
        """``file:line`` of the code that logged it, or empty."""
        return f"{self.file}:{self.line}" if self.file and self.line else self.file
