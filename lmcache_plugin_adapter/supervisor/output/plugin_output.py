"""What plugins write: through limits to the log, keeping the last of it."""

from __future__ import annotations

import os
import time
from collections import deque
from functools import partial

from lmcache_plugin_adapter.contract.log_records import ERROR, WARNING, Clock, RecordFormat
from lmcache_plugin_adapter.messages.wording import count_lines

from .line_framing import CUT_MARK_BYTES, LineFramer, sanitize
from .rate_limit import LineLimiter
from .writer import PIPE_BUF, StreamTarget, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lmcache_plugin_adapter.linux.event_loop import Loop, Timer

    from .line_framing import Block
    from .log_file import RotatedFile
    from .logging_relay import Relay, RelayFormat
    from .pipe_reader import Capture

HELD_REPORT_SECONDS = 10.0
"""How often a line says what the rate limit held back."""


_BLOCK_BYTES = 150
"""What a block of lines takes in memory beside its text."""

_LAST_LINES = 3
_LAST_CHARACTERS = 200

_NAME_CHARACTERS = 200
"""A longer name is cut where it frames each line: a line must have room beside it."""


class Ring:
    """The last lines of a plugin, within a bound of bytes."""

    __slots__ = ("_blocks", "_size", "limit")

    def __init__(self, limit: int) -> None:
        self._blocks: deque[tuple[float, int, bytes]] = deque()
        self.limit = limit
        self._size = 0

    def add(self, now: float, level: int, text: bytes) -> None:
        """Keep ``text``, lines joined by newlines, and let the oldest go."""
        if len(text) > self.limit:
            text = text[-self.limit :]
            text = text[text.find(b"\n") + 1 :]
        self._blocks.append((now, level, text))
        self._size += len(text) + _BLOCK_BYTES
        while self._size > self.limit and len(self._blocks) > 1:
            self._size -= len(self._blocks.popleft()[2]) + _BLOCK_BYTES

    def clear(self) -> None:
        """Forget all."""
        self._blocks.clear()
        self._size = 0

    def take_over(self, before: Ring) -> None:
        """Begin with what another ring has kept."""
        for block in before._blocks:
            self.add(*block)

    def lines(self) -> list[tuple[float, int, str]]:
        """Return time, level and text of each line kept, oldest first."""
        return [
            (when, level, line.decode("utf-8", "replace"))
            for when, level, text in self._blocks
            for line in text.split(b"\n")
        ]


class Way:
    """The way of records to the engine's stderr; :class:`.Relay` is another one."""

    def __init__(self, writer: Writer, target: StreamTarget, logger: str, color: bool) -> None:
        self.writer = writer
        self.target = target
        self.logger = logger
        self.color = color

    def make_format(self, name: str, file: str, pid: int) -> RecordFormat:
        """Return the frame of the records of one source."""
        return RecordFormat(name, file, pid, self.logger, self.color)


OWN_NAME = "lmcache-plugins"
"""What stands in brackets before the supervisor's own records."""


class EventLog:
    """The supervisor's own records, and the ways that records can take."""

    def __init__(
        self, writer: Writer, target: StreamTarget, logger: str, color: bool, threshold: int
    ) -> None:
        self.stderr = Way(writer, target, logger, color)
        self.relay: Relay | None = None
        self.way: Way | Relay = self.stderr
        """Of the supervisor's own records."""
        self.threshold = threshold
        self.clock = Clock()
        self._formats: dict[tuple[str, object], RecordFormat | RelayFormat] = {}
        self.waiting: dict[Capture, None] = {}
        """Captures that pause until the writer has room."""

    def room(self) -> None:
        """Let the captures that wait for the writer go on."""
        waiting, self.waiting = self.waiting, {}
        for capture in waiting:
            capture.resume()

    def engine_ended(self) -> None:
        """Let all that comes go to stderr."""
        if self.relay is not None:
            self.relay.engine_ended()

    def say(self, level: int, name: str, text: str) -> None:
        """Log one event, of plugin ``name`` or of the supervisor itself."""
        if level > self.threshold:
            return
        way = self.way
        record_format = self._formats.get((name, way))
        if record_format is None:
            record_format = way.make_format(printable(name), "supervisor.py", os.getpid())
            self._formats[name, way] = record_format
        clean = sanitize(text.encode("utf-8", "surrogateescape"))
        room = PIPE_BUF - record_format.overhead - CUT_MARK_BYTES
        if len(clean) > room:
            clean = LineFramer(room).feed(clean + b"\n")[0].text
        record = record_format.frame(level, clean, self.clock.stamp())
        way.writer.put(way.target, record, 1)


def printable(name: str) -> str:
    """Return a file name as it may stand in a log: control characters and odd bytes escaped."""
    return sanitize(name.encode("utf-8", "surrogateescape")).decode()[:_NAME_CHARACTERS]


class PluginOutput:
    """One plugin's lines: counted, limited, remembered and logged.

    Outlives the plugin's processes, so that limits and memory go on over
    restarts.
    """

    def __init__(
        self,
        log: EventLog,
        loop: Loop,
        name: str,
        file: str,
        max_line_bytes: int,
        ring_bytes: int,
        rate_limit: Sequence[float] | None,
        files: RotatedFile | None,
        relay: bool,
    ) -> None:
        self._log = log
        self.way = (log.relay if relay else None) or log.stderr
        self._loop = loop
        self.name = name
        self._file = printable(file)
        self.ring = Ring(ring_bytes)
        self._files = files
        if files is not None:
            files.on_lost = partial(self._note_lost, os.fsdecode(files.path))
        self._limiter = (
            LineLimiter(rate_limit[0], rate_limit[1], rate_limit[2], time.monotonic())
            if rate_limit is not None and files is None
            else None
        )
        self._report: Timer | None = None
        self._report_since = 0.0
        self.max_line_bytes = max_line_bytes
        self.followers: list[Callable[[float, Block], None]] = []
        """Told of each block of lines that was looked at, and its time."""
        self.lines = 0
        self.dropped = 0
        self.bytes = 0
        self._format = self._make_format(0)
        if log.stderr.target.bounded and files is None:
            room = PIPE_BUF - self._format.overhead - CUT_MARK_BYTES
            self.max_line_bytes = min(max_line_bytes, room)

    def _make_format(self, pid: int) -> RecordFormat | RelayFormat:
        if self._files is not None:
            logger = self._log.stderr.logger
            return RecordFormat(printable(self.name), self._file, pid, logger, False)
        return self.way.make_format(printable(self.name), self._file, pid)

    def started(self, pid: int) -> None:
        """Name ``pid`` in the records from now on."""
        self._format = self._make_format(pid)

    def add(self, blocks: Sequence[Block]) -> None:
        """Log lines; what the limit or a blocked log does not take is counted."""
        now = time.monotonic()
        wall = time.time()
        stamp = self._log.clock.stamp()
        for block in blocks:
            self.lines += block.lines
            self.ring.add(wall, block.level, block.text)
            for follower in self.followers:
                follower(wall, block)
            admitted = self._admit(block, now) if block.level <= self._log.threshold else None
            if admitted is None:
                continue
            record = self._format.frame(block.level, admitted.text, stamp)
            if self._files is not None:
                taken = self._files.put(record, admitted.lines)
            else:
                taken = self.way.writer.put(self.way.target, record, admitted.lines)
            if not taken:
                self.dropped += admitted.lines

    def _admit(self, block: Block, now: float) -> Block | None:
        """Return as much of ``block`` as the rate limit passes."""
        if self._limiter is None:
            return block
        passed = self._limiter.admit(block.lines, block.level <= ERROR, now)
        if passed == block.lines:
            return block
        self._note_held(now)
        if not passed:
            return None
        text = b"\n".join(block.text.split(b"\n", passed)[:passed])
        return block._replace(text=text, lines=passed)

    @property
    def writer(self) -> Writer:
        """The queue that the lines go to."""
        return self.way.writer if self._files is None else self._files.writer

    def inherit(self, before: PluginOutput) -> None:
        """Keep the last lines of this plugin's earlier version, and who follows them."""
        self.followers = before.followers
        self.ring.take_over(before.ring)

    def last_words(self, before: int) -> str:
        """Return the end of a line on a failure: what was printed since line ``before``."""
        count = min(self.lines - before, _LAST_LINES)
        if not count:
            return "; it printed nothing"
        lines = [text[:_LAST_CHARACTERS] for _, _, text in self.ring.lines()[-count:]]
        return "; last output: " + " | ".join(lines)

    def close(self) -> None:
        """Let go of the plugin's log file, once what is queued has been written."""
        if self._files is not None:
            self._files.retire()

    def _note_lost(self, path: str, lines: int, reason: str) -> None:
        self.dropped += lines
        self._log.say(
            WARNING,
            self.name,
            f"{count_lines(lines)} lost: cannot write '{path}': {reason}; each new line is another "
            "try: correct that, or choose another directory (log)",
        )

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self._limiter is not None

    def spent(self) -> bool:
        """Whether the limit holds back an ordinary line that comes now."""
        return self._limiter is not None and self._limiter.spent(time.monotonic())

    def hold_back(self, lines: int) -> None:
        """Count lines of a flood that were not looked at: the limit would not pass them."""
        self.lines += lines
        self.ring.clear()  # what follows fills it: it has no gap
        if self._limiter is not None:
            self._limiter.held += lines
            self._note_held(time.monotonic())

    def _note_held(self, now: float) -> None:
        if self._report is None:
            self._report_since = now
            self._report = self._loop.call_later(HELD_REPORT_SECONDS, self.report_held)

    def report_held(self) -> None:
        """Say how many lines were held back since the last report, if any were."""
        if self._report is None or self._limiter is None:
            return
        self._report.cancel()
        self._report = None
        held = self._limiter.collect()
        if not held:
            return
        self.dropped += held
        seconds = time.monotonic() - self._report_since
        self._log.say(
            WARNING,
            self.name,
            f"{held:,} lines held back in {max(seconds, 0.1):.1f} s (rate_limit)",
        )
