# SPDX-License-Identifier: Apache-2.0
"""End what one run of a plugin has started: SIGTERM, the grace period, SIGKILL."""

from __future__ import annotations

import signal
import time

from lmcache_plugin_adapter.contract.log_records import ERROR, WARNING
from lmcache_plugin_adapter.linux.event_loop import NO_TIMER
from lmcache_plugin_adapter.linux.procfs import signal_group
from lmcache_plugin_adapter.messages.wording import count_processes

from .leftovers import carries, chase, why_left

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.linux.procfs import ProcessTable

    from .reaper import Reaper

KILL_SECONDS = 1.0
"""Seconds that SIGKILL may take before the processes are reported and left."""

_CHASE_AFTER = 0.05
"""Seconds of SIGKILL after which a surviving process is assumed to escape by forking."""

_CHECK_SECONDS = 0.01
"""Seconds between two checks while processes are being killed."""


class RunEnding:
    """The end of one run of a plugin, whose first process may have exited already.

    Args:
        reaper: Waits for the processes.
        name: The plugin's name.
        pid: The first process of the run.
        grace: Seconds between SIGTERM and SIGKILL.
        log: Logs a message of the plugin, at a level.
        on_end: Called once, when no process of the run is left.
    """

    def __init__(
        self,
        reaper: Reaper,
        name: str,
        pid: int,
        grace: float,
        log: Callable[[int, str], None],
        on_end: Callable[[], None],
    ) -> None:
        self._reaper = reaper
        self._name = name
        self.pid = pid
        self._grace = grace
        self._log = log
        self._on_end = on_end
        self._timer = NO_TIMER
        self._terminated: set[int] = set()
        self._stopping = False
        self._first_signal = signal.SIGTERM
        self._killing_since = 0.0
        self._reaper.endings[self] = None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the first process's group now, SIGTERM to all else once it has exited.

        Args:
            number: The signal.
        """
        self._stopping = True
        self._first_signal = number
        if self.pid in self._reaper.first_processes:
            # SIGCONT, so that a stopped process can act on the signal.
            signal_group(self.pid, number, signal.SIGCONT)
        else:  # only leftovers remain, which have got SIGTERM
            self._reaper.loop.call_soon(self._check_now)
        self._start_grace()

    def clear(self, table: ProcessTable, leftovers: set[int]) -> None:
        """Send SIGTERM to the leftovers of a run whose first process has exited."""
        self._terminate(table, leftovers)
        self._start_grace()
        if not leftovers:
            self._reaper.loop.call_later(_CHECK_SECONDS, self._check_now)

    def check(self, table: ProcessTable) -> None:
        """Finish if no process is left; else send SIGTERM or SIGKILL to those that need it."""
        if self.pid in self._reaper.first_processes and not self._killing_since:
            return
        leftovers = self._leftovers(table)
        if self._killing_since:
            self._kill(table, leftovers)
        elif not leftovers and table.complete:
            self.finish()
        elif not leftovers:
            self._reaper.loop.call_later(_CHECK_SECONDS, self._check_now)
        else:
            if self._stopping:
                # The group got SIGTERM when the stop began; processes that left it did not.
                leftovers = {p for p in leftovers if table.by_pid[p].group != self.pid}
            self._terminate(table, leftovers)

    def cut_short(self, why: str) -> None:
        """End the grace period now.

        Args:
            why: The reason, as the start of a log line.
        """
        if not self._killing_since:
            self._kill_all(f"{why} within the grace period")

    def finish(self) -> None:
        """Report that no process of the run is left."""
        self._timer.cancel()
        if self in self._reaper.endings:
            del self._reaper.endings[self]
            self._on_end()

    def _leftovers(self, table: ProcessTable) -> set[int]:
        return self._reaper.leftovers_of(table, self.pid, self._name)

    def _terminate(self, table: ProcessTable, pids: set[int]) -> None:
        """Send SIGTERM to processes that have not got it yet."""
        pids = pids - self._terminated
        self._terminated |= pids
        table.send(pids, signal.SIGTERM)
        table.send(pids, signal.SIGCONT)

    def _start_grace(self) -> None:
        self._killing_since = 0.0
        why = f"Did not end within {self._grace:g} s of {self._first_signal.name} (stop_grace)"
        self._call_later(self._grace, lambda: self._kill_all(why))

    def _kill_all(self, why: str) -> None:
        table = self._reaper.table()
        leftovers = self._leftovers(table)
        if leftovers:  # else all have exited and only wait to be reaped
            self._log(WARNING, f"{why}: killing {count_processes(len(leftovers))}")
        self._killing_since = time.monotonic()
        if self.pid in self._reaper.first_processes:
            signal_group(self.pid, signal.SIGKILL)
        self._kill(table, leftovers)

    def _kill(self, table: ProcessTable, leftovers: set[int]) -> None:
        """Kill all, and check again until none is left: a process may have forked meanwhile."""
        first_processes = self._reaper.first_processes
        if not leftovers and table.complete and self.pid not in first_processes:
            self.finish()
            return
        table.kill(leftovers)
        taken = time.monotonic() - self._killing_since
        if taken > _CHASE_AFTER:
            run_id, name = self._reaper.run_id, self._name
            chase(lambda pid: pid not in first_processes and carries(pid, run_id, name))
        if taken > KILL_SECONDS:
            self._log(ERROR, f"Still there after SIGKILL, {why_left(leftovers)}")
            first_processes.pop(self.pid, None)
            self.finish()
        else:
            self._call_later(_CHECK_SECONDS, self._check_now)

    def _check_now(self) -> None:
        if self in self._reaper.endings:
            self.check(self._reaper.table())

    def _call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timer.cancel()
        self._timer = self._reaper.loop.call_later(seconds, callback)
