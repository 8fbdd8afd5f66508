# SPDX-License-Identifier: Apache-2.0
"""Stop a supervisor once no process of its plugins is left, within a bounded time."""

from __future__ import annotations

import os
import signal
import time

from lmcache_plugin_adapter.contract.log_records import ERROR
from lmcache_plugin_adapter.linux.event_loop import NO_TIMER
from lmcache_plugin_adapter.linux.procfs import ProcessTable, own_children
from lmcache_plugin_adapter.supervisor.processes.ending import KILL_SECONDS
from lmcache_plugin_adapter.supervisor.processes.leftovers import chase, why_left

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .services import Services

_MOMENT = 0.05
"""Seconds by which a plugin's own grace period ends first, so that its end is logged."""

_FIRST_LOOK_SECONDS = 0.01
"""Seconds until the process table is read: plugins that obey SIGTERM have exited by then."""

_CHECK_SECONDS = 0.005
_CHECK_SECONDS_IN_GRACE = 0.05
"""Seconds between two checks; in the grace period SIGCHLD reports most exits."""


class Shutdown:
    """Check until no descendant is left, then stop the loop.

    Each plugin has been stopped, so that it ends its own processes. The
    supervisor is a subreaper: if it has no child, it has no descendant either.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._loop = services.loop
        self._reaper = services.reaper
        self._deadline = 0.0
        self._first_look = 0.0
        self._killing_since: float | None = None
        self._orphans_terminated = False
        self._timer = NO_TIMER

    def begin(self, grace: float) -> None:
        """Begin to check.

        Args:
            grace: The longest grace period of any plugin, in seconds: processes that a
                plugin was allowed to leave behind get it, too.
        """
        now = time.monotonic()
        self._deadline = now + grace + _MOMENT
        self._first_look = now + _FIRST_LOOK_SECONDS
        self._loop.call_soon(self.check)

    def check(self) -> None:
        """Stop the loop if no process is left; else terminate or kill, and check again."""
        now = time.monotonic()
        late = now - self._deadline
        in_grace = late < 0 and self._orphans_terminated
        self._check_again_in(_CHECK_SECONDS_IN_GRACE if in_grace else _CHECK_SECONDS)
        if self._reap():
            self._loop.stop()
            for ending in list(self._reaper.endings):
                self._loop.attempt(ending.finish)
            return
        if now < self._first_look:
            self._check_again_in(self._first_look - now)
            return
        if in_grace and self._reaper.first_processes:
            self._check_again_in(-late)  # the next SIGCHLD comes before
            return
        table = ProcessTable()
        self._reaper.check(table)
        me = os.getpid()
        orphans = table.with_descendants([me]) - {me}
        if late >= 0:
            self._kill(table, orphans, now)
        elif not self._orphans_terminated:
            self._orphans_terminated = True
            # Processes in a plugin's group got SIGTERM with it.
            first_processes = self._reaper.first_processes
            orphans = {p for p in orphans if table.by_pid[p].group not in first_processes}
            table.send(orphans, signal.SIGTERM)
            table.send(orphans, signal.SIGCONT)

    def _kill(self, table: ProcessTable, orphans: set[int], now: float) -> None:
        # Counted from the first kill: a supervisor that was stopped at the deadline killed nothing.
        if self._killing_since is None:
            self._killing_since = now
        table.kill(orphans)
        if not chase(lambda _pid: True, self._reap) and now - self._killing_since > KILL_SECONDS:
            # /proc may hide processes from the table, such as those of another user.
            text = f"Left behind, {why_left(orphans.union(own_children() or ()))}"
            self._services.events.log(ERROR, text)
            self._loop.stop()

    def _reap(self) -> bool:
        return self._reaper.reap(check=False)

    def _check_again_in(self, seconds: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.check)
