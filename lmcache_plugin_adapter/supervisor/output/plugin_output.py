# SPDX-License-Identifier: Apache-2.0
"""A plugin's output: counted, rate-limited, remembered and logged."""

from __future__ import annotations

import os
import time
from functools import partial

from lmcache_plugin_adapter.contract.log_records import ERROR, WARNING, RecordFormat
from lmcache_plugin_adapter.messages.wording import count_lines

from .event_log import printable_name
from .line_framing import CUT_MARK_BYTES
from .rate_limit import LineLimiter
from .ring import Ring
from .stderr_route import PIPE_BUF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lmcache_plugin_adapter.contract.planned_plugin import PlannedPlugin
    from lmcache_plugin_adapter.linux.event_loop import Timer

    from .event_log import EventLog
    from .line_framing import Block
    from .log_file import RotatedFile
    from .logging_relay import LoggingRelay, RelayFormat
    from .stderr_route import StderrRoute
    from .writer import Writer

HELD_REPORT_SECONDS = 10.0
"""Seconds between two reports of lines that the rate limit suppressed."""

_LAST_LINES = 3
_LAST_CHARACTERS = 200


class PluginOutput:
    """The lines of one plugin.

    Outlives the plugin's processes, so that limits and the last lines last
    over restarts.

    Args:
        events: The log, and the routes to it.
        name: The plugin's name.
        plugin: The plugin as planned.
        label: The supervisor's role and rank, for the name of a log file.
    """

    def __init__(self, events: EventLog, name: str, plugin: PlannedPlugin, label: str) -> None:
        self._events = events
        self.name = name
        self._source = printable_name(name), printable_name(plugin.file)
        self.route: StderrRoute | LoggingRelay = (
            events.relay if plugin.relay else None
        ) or events.stderr
        self._file = self._open_file(plugin, label)
        self.ring = Ring(plugin.log_buffer_bytes)
        self._limiter: LineLimiter | None = None
        if plugin.rate_limit is not None and self._file is None:
            self._limiter = LineLimiter(*plugin.rate_limit, time.monotonic())
        self._report: Timer | None = None
        self._report_since = 0.0
        self.followers: list[Callable[[float, Block], None]] = []
        """Called with each block of lines and its time."""
        self.lines = 0
        self._dropped = 0
        self.bytes = 0
        self._format = self._make_format(0)
        self.max_line_bytes = plugin.max_line_bytes
        if events.stderr.target.bounded and self._file is None:
            room = PIPE_BUF - self._format.overhead - CUT_MARK_BYTES
            self.max_line_bytes = min(self.max_line_bytes, room)

    def _open_file(self, plugin: PlannedPlugin, label: str) -> RotatedFile | None:
        if plugin.log is None:
            return None
        from .log_file import RotatedFile  # only with the setting, as it takes memory

        directory, max_bytes, count = plugin.log
        file = f"{self.name}.{label}.log".replace("/", "_")
        path = os.fsencode(os.path.join(directory, file))
        on_lost = partial(self._report_lost, os.fsdecode(path))
        return RotatedFile(self._events.files, path, max_bytes, count, on_lost)

    def _make_format(self, pid: int) -> RecordFormat | RelayFormat:
        if self._file is not None:
            return RecordFormat(*self._source, pid, self._events.stderr.logger, False)
        return self.route.make_format(*self._source, pid)

    def started(self, pid: int) -> None:
        """Show ``pid`` in the records from now on."""
        self._format = self._make_format(pid)

    def add(self, blocks: Sequence[Block]) -> None:
        """Log lines; lines that the rate limit or a blocked log does not take are counted."""
        now = time.monotonic()
        wall = time.time()
        stamp = self._events.clock.stamp()
        for block in blocks:
            self.lines += block.lines
            self.ring.add(wall, block.level, block.text)
            for follower in self.followers:
                follower(wall, block)
            admitted = self._admit(block, now) if block.level <= self._events.threshold else None
            if admitted is None:
                continue
            record = self._format.frame(block.level, admitted.text, stamp)
            if self._file is not None:
                taken = self._file.put(record, admitted.lines)
            else:
                taken = self.route.writer.put(self.route.target, record, admitted.lines)
            if not taken:
                self._dropped += admitted.lines

    def _admit(self, block: Block, now: float) -> Block | None:
        """Return the part of ``block`` that the rate limit admits."""
        if self._limiter is None:
            return block
        passed = self._limiter.admit(block.lines, block.level <= ERROR, now)
        if passed == block.lines:
            return block
        self._schedule_report(now)
        if not passed:
            return None
        text = b"\n".join(block.text.split(b"\n", passed)[:passed])
        return block._replace(text=text, lines=passed)

    @property
    def dropped(self) -> int:
        """The number of lines that did not reach the log, those not reported yet included."""
        return self._dropped + (0 if self._limiter is None else self._limiter.suppressed)

    @property
    def writer(self) -> Writer:
        """The queue that the lines go to."""
        return self.route.writer if self._file is None else self._file.writer

    def inherit(self, previous: PluginOutput) -> None:
        """Take over the last lines and the followers of the plugin's previous version."""
        self.followers = previous.followers
        self.ring.copy_from(previous.ring)

    def last_lines(self, before: int) -> list[str]:
        """Return the last lines since line ``before``, cut to a readable length."""
        count = min(self.lines - before, _LAST_LINES)
        return [text[:_LAST_CHARACTERS] for text in self.ring.last_lines(count)]

    @property
    def has_own_file(self) -> bool:
        """Whether its lines go to its own log file, and not to the engine's log."""
        return self._file is not None

    def close(self) -> None:
        """Close the plugin's log file once the queued records have been written."""
        if self._file is not None:
            self._file.retire()

    def _report_lost(self, path: str, lines: int, reason: str) -> None:
        self._dropped += lines
        self._events.log(
            WARNING,
            f"{count_lines(lines)} lost: cannot write '{path}': {reason}; each new line is another "
            "try: correct that, or choose another directory (log)",
            self.name,
        )

    @property
    def limited(self) -> bool:
        """Whether there is a rate limit."""
        return self._limiter is not None

    def exhausted(self) -> bool:
        """Whether the rate limit would suppress an ordinary line now."""
        return self._limiter is not None and self._limiter.exhausted(time.monotonic())

    def suppress(self, lines: int) -> None:
        """Count lines of a flood that were not framed: the rate limit would not admit them."""
        self.lines += lines
        self.ring.clear()  # the lines that follow fill it, so that it has no gap
        if self._limiter is not None:
            self._limiter.suppressed += lines
            self._schedule_report(time.monotonic())

    def _schedule_report(self, now: float) -> None:
        if self._report is None:
            self._report_since = now
            self._report = self._events.loop.call_later(HELD_REPORT_SECONDS, self.report_suppressed)

    def report_suppressed(self) -> None:
        """Log how many lines were suppressed since the last report, if any were."""
        if self._report is None or self._limiter is None:
            return
        self._report.cancel()
        self._report = None
        suppressed = self._limiter.collect()
        if not suppressed:
            return
        self._dropped += suppressed
        seconds = max(time.monotonic() - self._report_since, 0.1)
        text = f"{count_lines(suppressed)} suppressed in {seconds:.1f} s (rate_limit)"
        self._events.log(WARNING, text, self.name)
