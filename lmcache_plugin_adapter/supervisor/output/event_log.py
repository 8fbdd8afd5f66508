# SPDX-License-Identifier: Apache-2.0
"""Log the supervisor's own events, and hold the routes that records can take."""

from __future__ import annotations

import os

from lmcache_plugin_adapter.contract.log_records import Clock

from .line_framing import CUT_MARK_BYTES, LineFramer, sanitize
from .stderr_route import PIPE_BUF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.contract.log_records import RecordFormat
    from lmcache_plugin_adapter.linux.event_loop import Loop

    from .logging_relay import LoggingRelay, RelayFormat
    from .stderr_route import StderrRoute
    from .writer import Writer

OWN_NAME = "lmcache-plugins"
"""The name in brackets before the supervisor's own records."""

_NAME_CHARACTERS = 200
"""A longer name is cut in the frame of a line, so that the line itself has room."""


class EventLog:
    """The supervisor's own records, and what each writer of records needs.

    That is the routes, the level, the clock, the loop, and the readers that wait for room.

    Args:
        loop: The supervisor's loop.
        files: The writer of the plugins' own log files.
        stderr: The route to the engine's stderr.
        threshold: Records of a level above it are not logged.
    """

    def __init__(self, loop: Loop, files: Writer, stderr: StderrRoute, threshold: int) -> None:
        self.loop = loop
        self.files = files
        self.stderr = stderr
        self.relay: LoggingRelay | None = None
        self.route: StderrRoute | LoggingRelay = stderr
        """The route of the supervisor's own records."""
        self.threshold = threshold
        self.clock = Clock()
        self._formats: dict[tuple[str, object], RecordFormat | RelayFormat] = {}
        self.waiting: dict[Callable[[], None], None] = {}
        """Called once when a full queue of a writer has room again."""

    def resume_readers(self) -> None:
        """Let the readers that wait for a writer continue."""
        waiting, self.waiting = self.waiting, {}
        for resume in waiting:
            resume()

    def engine_ended(self) -> None:
        """Send all further records to stderr."""
        if self.relay is not None:
            self.relay.engine_ended()

    def log(self, level: int, text: str, name: str = OWN_NAME) -> None:
        """Log one event, of the plugin ``name`` or of the supervisor itself."""
        if level > self.threshold:
            return
        route = self.route
        line_format = self._formats.get((name, route))
        if line_format is None:
            line_format = route.make_format(printable_name(name), "supervisor.py", os.getpid())
            self._formats[name, route] = line_format
        clean = sanitize(text.encode("utf-8", "surrogateescape"))
        room = PIPE_BUF - line_format.overhead - CUT_MARK_BYTES
        if len(clean) > room:
            clean = LineFramer(room).feed(clean + b"\n")[0].text
        record = line_format.frame(level, clean, self.clock.stamp())
        route.writer.put(route.target, record, 1)


def printable_name(name: str) -> str:
    """Return a file name for the log: control characters and undecodable bytes are escaped."""
    return sanitize(name.encode("utf-8", "surrogateescape")).decode()[:_NAME_CHARACTERS]
