"""What is delivered: one record of a log, with what its line said of itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tailed_file import TailedFile


class Level(IntEnum):
    """Severity in syslog's numbers (RFC 5424): the lower, the worse."""

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
    """The file, as the settings or their patterns name it."""
    tailed: TailedFile | None
    """Where it was read, to acknowledge it there."""
    end: int
    """Position of the first byte after it."""
    observed_ns: int
    """When it was read, in nanoseconds since 1970."""
    text: str
    """The message, without the frame around it; lines are joined by newlines."""
    level: Level = Level.INFO
    time_ns: int = 0
    """When it was logged, in nanoseconds since 1970; ``observed_ns`` where it does not say."""
    format: str = ""
    """Whose way of writing it is: ``vllm``, ``lmcache``, ``uvicorn``, ``json``, ``torch``,
    ``warning``, or nothing."""
    logger: str = ""
    """Name of the logger."""
    file: str = ""
    """Source file that logged it."""
    line: int = 0
    """Line in ``file``; 0 if it is not known."""
    process: str = ""
    """vLLM's name of the process, such as ``EngineCore_DP0``."""
    pid: int | None = None
    """The process that logged it."""
    wanted: bool = True
    """Whether it is urgent enough to be delivered."""

    @property
    def source(self) -> str:
        """``file:line`` of the code that logged it, or nothing."""
        return f"{self.file}:{self.line}" if self.file and self.line else self.file
