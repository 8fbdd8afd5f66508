# SPDX-License-Identifier: Apache-2.0
"""One plugin under supervision: its state, its restarts and its log messages."""

from __future__ import annotations

import errno
import os
import signal
import time
from functools import partial

from lmcache_plugin_adapter.contract.log_records import ERROR, INFO, WARNING
from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.contract.variables import NAME
from lmcache_plugin_adapter.linux.event_loop import NO_TIMER
from lmcache_plugin_adapter.messages.wording import count_processes, exit_text, span, uncapitalized
from lmcache_plugin_adapter.supervisor.output.pipe_reader import PipeReaders
from lmcache_plugin_adapter.supervisor.output.plugin_output import PluginOutput
from lmcache_plugin_adapter.supervisor.processes.ending import RunEnding
from lmcache_plugin_adapter.supervisor.processes.spawn import (
    exec_error_text,
    file_limit_problem,
    spawn,
)
from lmcache_plugin_adapter.supervisor.run_watchers import last_success
from lmcache_plugin_adapter.supervisor.run_watchers.choice import notifications_of, timeout_of

from .lifecycle import Event, after_exit, is_failure, transition
from .restart_delays import Restarts, Schedule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.contract.planned_plugin import PlannedPlugin
    from lmcache_plugin_adapter.linux.procfs import ProcessTable

    from .services import Services

_NAME = NAME.encode()

_LATE_LOOK_SECONDS = 0.1
"""Seconds after an exit without a restart until a last check for leftover processes."""

_LATE_LOOK_STATES = (State.EXITED, State.FAILED, State.WAITING)

_LEFTOVERS_HINT = "(use 'exec' or 'wait' instead of a background process, or leftovers: keep)"


class Plugin:
    """A plugin from its plan to its end, over all its runs.

    Args:
        services: What the plugins of one supervisor share.
        name: Its name, unique among the plugins of this supervisor.
        planned: The plugin as planned.
        on_change: Called when its state has changed.
    """

    def __init__(
        self,
        services: Services,
        name: str,
        planned: PlannedPlugin,
        on_change: Callable[[Plugin], None],
    ) -> None:
        self._services = services
        self._first_processes = services.reaper.first_processes
        self._on_change = on_change
        self.planned = planned
        self.name = name
        self.trouble = planned.refused
        """Why it is refused, cannot run or has failed."""
        self.state = State.STARTING if planned.refused is None else State.REFUSED
        self.pid = 0
        self.started_at = 0.0
        self.last_exit: int | None = None
        self.restarts = Restarts(planned.backoff)
        self._schedule: Schedule | None = None
        self.last_success: float | None = None
        """When a scheduled run last ended without failure, in seconds since the epoch."""
        if planned.every is not None:
            self._schedule = Schedule(planned.every, planned.jitter)
            self.last_success = last_success.recorded_success(services.instance, name)
        changed = partial(on_change, self)
        self.notifications = notifications_of(planned, services, name, self.fail, changed)
        watchers = (self.notifications, timeout_of(planned, services.loop, self.fail))
        self._watchers = [watcher for watcher in watchers if watcher is not None]
        self.starts_again = False
        """Whether it starts again as soon as nothing is left of its run."""
        self.replaced = False
        """Whether it stops for good, because another version or none replaces it."""
        self._after = Event.CLEARED
        self._ended_as_failure = False
        """Whether the supervisor ends the run as a failure, whatever its exit code."""
        self._ending: RunEnding | None = None
        self._timer = NO_TIMER
        self.output = PluginOutput(services.events, name, planned, services.file_label)
        self._readers = PipeReaders(services.events, self.output)
        self._new_pipe = -1
        self._lines_before = 0
        self._is_checked = True  # the planner has just checked what it runs

    # --- requests ---------------------------------------------------------

    def start(self) -> None:
        """Start the plugin, or restart it once nothing is left of its run.

        Does nothing while the supervisor stops.
        """
        if self._services.stopping or self.replaced:
            return
        if self.state in (State.STOPPING, State.CLEARING):
            self.starts_again = True
            return
        if self.state is not State.RUNNING and self._finds_leftovers():
            self.starts_again = True
            return
        was = self.state
        self._move(Event.START)
        # A plugin that was never started is in this state, too.
        begins = was is not State.STARTING or not self.pid
        if self.state is State.STARTING and begins:
            self._timer.cancel()
            self.restarts.attempt = 0
            if self._schedule is not None:
                self._schedule.begin()
            self._spawn()

    def stop(self) -> None:
        """Stop the plugin: SIGTERM now, SIGKILL to all its processes after the grace period."""
        self.starts_again = self._ended_as_failure = False
        self._announce()
        was = self.state
        self._move(Event.STOP)
        if self.state in (State.STOPPING, State.STOPPED):
            self.trouble = None
        if self.state is not State.STOPPING:
            self._timer.cancel()
        elif was is not State.STOPPING:
            self._begin_ending().stop()

    def fail(self, cause: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End a run as a failure: the signal, the grace period, SIGKILL, then the restart policy.

        Args:
            cause: What is wrong, as the start of a log line.
            number: The signal.
        """
        if self.state is not State.RUNNING:
            return
        self._announce()
        self._log(WARNING, f"{cause}: ending it with {number.name}")
        self.trouble = uncapitalized(cause)
        self._ended_as_failure = True
        self._move(Event.RUN_FAILED)
        self._begin_ending().stop(number)

    def cut_grace_short(self, why: str) -> None:
        """Kill a plugin that is being stopped now, without the rest of its grace period."""
        if self._ending is not None:
            self._ending.cut_short(why)

    # --- events -----------------------------------------------------------

    def exec_failed(self, number: int) -> None:
        """Handle that the child could not exec; ``number`` is the error's."""
        self._announce()
        self._readers.drain()
        self._move(Event.CANNOT_RUN)
        credentials = self.planned.credentials
        user = "" if credentials is None else f" as user {credentials[0]}"
        cause = f"Cannot run {self.planned.command}{user}: {exec_error_text(number)}"
        self.trouble = uncapitalized(cause)
        self._log(ERROR, f"{cause}; not tried again until reload")

    def exited(self, status: int, table: ProcessTable | None) -> None:
        """Handle the exit of the first process.

        Args:
            status: As ``waitpid`` returned it.
            table: The processes after the exit; None if leftover processes are
                checked later.
        """
        code = os.waitstatus_to_exitcode(status)
        uptime = time.monotonic() - self.started_at
        self.last_exit = code
        self._announce()
        self._readers.drain()
        self._end_watchers()
        was = self.state
        self._move(Event.EXITED)
        if self._ended_as_failure:
            self._log_exit(code, uptime, 0, self._decide(code, uptime))
        elif was is State.STOPPING:
            text = uncapitalized(exit_text(code, asked=True))
            self._log(INFO, f"Stopped: {text} after {span(uptime)}")
        elif self.state is State.FAILED:
            self._finish_pipes()
        else:
            self._exited_on_its_own(code, uptime, table)

    def _exited_on_its_own(self, code: int, uptime: float, table: ProcessTable | None) -> None:
        what_follows = self._decide(code, uptime)
        leftovers: set[int] = set()
        if self.planned.leftovers == "keep":
            table = None
        if table is not None:
            leftovers = self._services.reaper.leftovers_of(table, self.pid, self.name)
        self._log_exit(code, uptime, len(leftovers), what_follows)
        if table is not None and (leftovers or not table.complete):
            self._begin_ending().clear(table, leftovers)
        else:
            self._cleared()

    def _decide(self, code: int, uptime: float) -> str:
        """Decide what follows the exit of the first process, and return that in words."""
        scheduled = self._schedule is not None
        self._after = after_exit(code, self.planned.restart, self._ended_as_failure, scheduled)
        if scheduled and not self._ended_as_failure and not is_failure(code):
            self.last_success = last_success.record_success(self._services.instance, self.name)
        if self._after is Event.GIVE_UP:
            return "not restarted: it asked for that by its exit code"
        if self._after is Event.DONE:
            return f"not restarted (restart: {self.planned.restart})"
        if self._schedule is not None:
            return self._schedule.plan_next()
        return self.restarts.plan_next(uptime)

    def _log_exit(self, code: int, uptime: float, leftovers: int, what_follows: str) -> None:
        gives_up = self._after is Event.GIVE_UP
        out_of_memory = is_failure(code) and not gives_up and self._services.oom_kills.new()
        text = f"{exit_text(code, self._ended_as_failure, out_of_memory)} after {span(uptime)}"
        if leftovers:
            text += f"; it left {count_processes(leftovers)} behind, stopped now {_LEFTOVERS_HINT}"
        text += f"; {what_follows}"
        failed = self._ended_as_failure or is_failure(code)
        last = self.output.last_lines(self._lines_before) if failed else []
        if failed and not self._ended_as_failure:
            cause = uncapitalized(exit_text(code, out_of_memory=out_of_memory))
            self.trouble = ": ".join([cause, *last[-1:]])
        if failed and not last:
            text += "; it printed nothing"
        elif failed and (not gives_up or self.output.has_own_file):
            # The last lines before code 125 are its reason, and the log has just shown them.
            text += "; last output: " + " | ".join(last)
        self._log(WARNING if failed else INFO, text)

    def _cleared(self) -> None:
        """Handle that no process of the run is left."""
        self._ending = None
        self._finish_pipes()
        is_stop = self.state is State.STOPPING and not self._ended_as_failure
        self._ended_as_failure = False
        self._move(Event.CLEARED if is_stop else self._after)
        if self.starts_again:
            self.starts_again = False
            self.start()
        elif self.state in (State.BACKING_OFF, State.WAITING):
            self._wait_to_start()
        if self.state in _LATE_LOOK_STATES:
            self._services.loop.call_later(_LATE_LOOK_SECONDS, self._late_look)

    def _late_look(self) -> None:
        if not (self._services.stopping or self.replaced) and self.state in _LATE_LOOK_STATES:
            self._finds_leftovers()

    def _finds_leftovers(self) -> bool:
        """Check once more for leftover processes; stop those that the check at the exit missed."""
        reaper = self._services.reaper
        if (
            self.planned.leftovers == "keep"
            or not self.pid
            or self.running  # its pid, at least, is in use again
            or not reaper.has_orphans()
        ):
            return False
        table = reaper.table()
        leftovers = reaper.leftovers_of(table, self.pid, self.name)
        if not leftovers:
            return False
        count = count_processes(len(leftovers))
        self._log(WARNING, f"It left {count} behind, stopped now {_LEFTOVERS_HINT}")
        if self.state is State.STOPPED:
            self._after = Event.DONE
        self._timer.cancel()
        self._move(Event.LEFTOVERS)
        self._begin_ending().clear(table, leftovers)
        return True

    def flush(self) -> None:
        """Log the rest of its output and the number of suppressed lines, for good."""
        self._readers.close()
        self.output.report_suppressed()

    # --- inside -----------------------------------------------------------

    @property
    def next_start(self) -> float | None:
        """The monotonic time of the next start, while it waits for that."""
        if self.state is State.WAITING and self._schedule is not None:
            return self._schedule.due
        return self.restarts.due if self.state is State.BACKING_OFF else None

    @property
    def ready(self) -> bool | None:
        """Whether it has reported that it is ready; None if it need not."""
        return None if self.notifications is None else self.notifications.ready

    @property
    def running(self) -> bool:
        """Whether its first process runs."""
        return self.pid in self._first_processes

    def _move(self, event: Event) -> None:
        was, self.state = self.state, transition(self.state, event)
        if self.state is not was:
            self._on_change(self)

    def _spawn(self) -> None:
        services, planned = self._services, self.planned
        name = os.fsencode(self.name)
        environment = {**services.environment, _NAME: name, **planned.environment}
        for name in planned.hidden:
            environment.pop(name, None)
        if self.notifications is not None:
            environment |= self.notifications.environment()
        is_checked, self._is_checked = self._is_checked, False
        try:
            pid, pipe = spawn(services.setup, planned, environment, is_checked)
        except OSError as error:
            self._end_watchers()
            self._move(Event.SPAWN_FAILED)
            cause = f"Cannot start: {uncapitalized(error.strerror or str(error))}"
            if error.errno == errno.EMFILE:
                cause += f" ({file_limit_problem(services.plugin_count)})"
            self.trouble = uncapitalized(cause)
            self._log(WARNING, f"{cause}; {self.restarts.plan_next()}")
            self._wait_to_start()
            return
        self._first_processes[pid] = self
        self.pid = pid
        self.started_at = time.monotonic()
        self.trouble = None
        self._new_pipe = pipe
        services.record(pid)
        services.loop.call_soon(self._announce)
        self._move(Event.SPAWNED)
        for watcher in self._watchers:
            watcher.run_started(pid)

    def _end_watchers(self) -> None:
        for watcher in self._watchers:
            watcher.run_ended()

    def _announce(self) -> None:
        """Log the start and read the new pipe, after all plugins have been started."""
        if self._new_pipe < 0:
            return
        self._lines_before = self.output.lines
        self.output.started(self.pid)
        self._readers.add(self._new_pipe)
        self._new_pipe = -1
        self._log(INFO, f"Started, pid {self.pid}: {self.planned.command}")

    def _wait_to_start(self) -> None:
        self._timer.cancel()
        delay = max((self.next_start or 0.0) - time.monotonic(), 0.0)
        self._timer = self._services.loop.call_later(delay, self._start_due)

    def _start_due(self) -> None:
        was = self.state
        if self.next_start is not None and self._finds_leftovers():
            return
        self._move(Event.RUN_DUE if was is State.WAITING else Event.BACKOFF_ELAPSED)
        if self.state is State.STARTING:
            self.restarts.count += was is State.BACKING_OFF
            self._spawn()

    def _begin_ending(self) -> RunEnding:
        if self._ending is None:
            self._ending = RunEnding(
                self._services.reaper,
                self.name,
                self.pid,
                self.planned.stop_grace,
                self._log,
                self._cleared,
            )
        return self._ending

    def _finish_pipes(self) -> None:
        if self.planned.leftovers != "keep" or self.state is State.STOPPING:
            self._readers.finish()

    def _log(self, level: int, text: str) -> None:
        self._services.events.log(level, text, self.name)
