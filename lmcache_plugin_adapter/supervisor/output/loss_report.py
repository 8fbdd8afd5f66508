"""Say which lines a writer could not write: at once, then as long as it goes on once a period."""

from __future__ import annotations

import time

from lmcache_plugin_adapter.contract.log_records import WARNING
from lmcache_plugin_adapter.messages.wording import count_lines

from .log_file import RotatedFile
from .plugin_output import OWN_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.linux.event_loop import Loop, Timer

    from .plugin_output import EventLog
    from .writer import Writer

REPORT_SECONDS = 10.0
"""How often losses are said at most."""

_PATIENCE_SECONDS = 1.0
"""How long the end waits for a log that takes nothing."""

_END_SECONDS = 5.0
"""How long the end waits for a log that takes what is queued, but slowly."""


class Losses:
    """What the writers of one supervisor could not write."""

    def __init__(self, loop: Loop, log: EventLog, *writers: Writer) -> None:
        self._loop = loop
        self._log = log
        self._writers = writers
        self._pause: Timer | None = None

    def look(self) -> None:
        """Say what was lost, as soon as that is due and the log takes it."""
        way = self._log.way
        if self._pause is None and not way.writer.is_refused_by(way.target) and self._report():
            self._pause = self._loop.call_later(REPORT_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._pause = None
        self.look()

    def finish(self) -> None:
        """Wait until all is written, as long as the log goes on; say what it did not take."""
        self._report()
        moving = self._drain(self._writers, _END_SECONDS)
        for writer in self._writers:
            writer.give_up()
        if self._report():
            self._drain(moving, _PATIENCE_SECONDS)

    def _drain(self, writers: Sequence[Writer], seconds: float) -> list[Writer]:
        """Wait until all is written; return the writers that have not been stuck."""
        for writer in writers:
            writer.wake()  # all go on meanwhile
        deadline = time.monotonic() + seconds
        return [writer for writer in writers if writer.drain(_PATIENCE_SECONDS, deadline)]

    def _report(self) -> bool:
        """Say what was lost since the last time; False if nothing was."""
        said = False
        for writer in self._writers:
            dropped, refused = writer.collect_losses()
            if dropped:
                said = True
                self._say(f"{count_lines(dropped)} dropped: the log did not take them in time")
            for target, (lines, reason) in refused.items():
                said = True
                if isinstance(target, RotatedFile) and target.on_lost is not None:
                    target.on_lost(lines, reason)
                else:
                    self._say(f"{count_lines(lines)} lost: cannot write the log: {reason}")
        return said

    def _say(self, text: str) -> None:
        self._log.say(WARNING, OWN_NAME, text)
