"""Routes of log records: to the engine's stderr, or to Python logging in the engine."""

from __future__ import annotations

from lmcache_plugin_adapter.contract.log_records import RecordFormat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .writer import StreamTarget, Target, Writer

    class LineFormat(Protocol):
        """The frame around the lines of one source."""

        @property
        def overhead(self) -> int:
            """The most bytes that the frame adds to a line."""

        def frame(self, level: int, text: bytes, stamp: str) -> bytes:
            """Return ``text``, clean lines joined by newlines, as one record a line."""

    class Route(Protocol):
        """How records reach the log."""

        @property
        def writer(self) -> Writer:
            """The queue that the records go to."""

        @property
        def target(self) -> Target:
            """Where the writer sends them."""

        def make_format(self, name: str, file: str, pid: int) -> LineFormat:
            """Return the format of the records of one source."""


class StderrRoute:
    """The route to the engine's stderr."""

    def __init__(self, writer: Writer, target: StreamTarget, logger: str, color: bool) -> None:
        self.writer = writer
        self.target = target
        self.logger = logger
        self._color = color

    def make_format(self, name: str, file: str, pid: int) -> RecordFormat:
        """Return the format of the records of one source."""
        return RecordFormat(name, file, pid, self.logger, self._color)
