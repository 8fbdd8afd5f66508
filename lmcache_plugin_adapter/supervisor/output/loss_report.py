# SPDX-License-Identifier: Apache-2.0
"""Log which lines a writer could not write: at once, then at most once a period."""

from __future__ import annotations

import time

from lmcache_plugin_adapter.contract.log_records import WARNING
from lmcache_plugin_adapter.messages.wording import count_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.linux.event_loop import Timer

    from .event_log import EventLog
    from .writer import Writer

REPORT_SECONDS = 10.0
"""Seconds between two reports of lost lines."""

_PATIENCE_SECONDS = 1.0
"""Seconds that the shutdown waits for a log that takes nothing."""

_END_SECONDS = 5.0
"""Seconds that the shutdown waits for a log that takes the queued lines slowly."""


class LossReport:
    """Report the lines that the writers of one supervisor could not write."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._writers = (events.files, events.stderr.writer)
        self._pause: Timer | None = None

    def check(self) -> None:
        """Report lost lines, unless the last report is recent or the log takes nothing."""
        route = self._events.route
        refused = route.writer.is_refused_by(route.target)
        if self._pause is None and not refused and self._report():
            self._pause = self._events.loop.call_later(REPORT_SECONDS, self._check_again)

    def _check_again(self) -> None:
        self._pause = None
        self.check()

    def finish(self) -> None:
        """Wait until all is written, while the log makes progress; report what is lost."""
        self._report()
        moving = self._drain(self._writers, _END_SECONDS)
        for writer in self._writers:
            writer.give_up()
        if self._report():
            self._drain(moving, _PATIENCE_SECONDS)

    def _drain(self, writers: Sequence[Writer], seconds: float) -> list[Writer]:
        """Wait until all is written; return the writers that were not stuck."""
        for writer in writers:
            writer.wake()  # so that all write at the same time
        deadline = time.monotonic() + seconds
        return [writer for writer in writers if writer.drain(_PATIENCE_SECONDS, deadline)]

    def _report(self) -> bool:
        """Report the lines lost since the last report; return False if none were."""
        reported = False
        for writer in self._writers:
            dropped, refused = writer.collect_losses()
            if dropped:
                reported = True
                text = f"{count_lines(dropped)} dropped: the log did not take them in time"
                self._events.log(WARNING, text)
            for target, (lines, reason) in refused.items():
                reported = True
                on_lost = getattr(target, "on_lost", None)  # of a plugin's own file
                if on_lost is not None:
                    on_lost(lines, reason)
                else:
                    text = f"{count_lines(lines)} lost: cannot write the log: {reason}"
                    self._events.log(WARNING, text)
        return reported
