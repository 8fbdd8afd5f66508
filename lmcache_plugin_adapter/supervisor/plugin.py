"""One plugin under supervision: its state, its processes, its output, its timers."""

from __future__ import annotations

import os
import signal
import time

from lmcache_plugin_adapter.contract.backoff import backoff_delay
from lmcache_plugin_adapter.contract.log_records import ERROR, INFO, WARNING
from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.contract.variables import NAME
from lmcache_plugin_adapter.linux.procfs import ProcessTable, signal_group
from lmcache_plugin_adapter.messages.wording import count_processes, exit_text, span, uncapitalized
from lmcache_plugin_adapter.supervisor.output.log_file import RotatedFile
from lmcache_plugin_adapter.supervisor.output.pipe_reader import Capture
from lmcache_plugin_adapter.supervisor.output.plugin_output import PluginOutput
from lmcache_plugin_adapter.supervisor.processes.leftovers import (
    chase,
    remains_of,
    why_left,
)
from lmcache_plugin_adapter.supervisor.processes.spawn import exec_error_text, spawn

from .lifecycle import Event, after_exit, transition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lmcache_plugin_adapter.linux.event_loop import Timer

    from .services import Shared

_NAME = NAME.encode()

_KILL_SECONDS = 1.0
"""How long SIGKILL may take before what is left is named and left."""

_CHASE_AFTER = 0.05
"""From when on what still lives is taken for something that gets away by forking."""

_LOOK_AGAIN = 0.01
"""Seconds between two looks while processes are being killed."""


class Plugin:
    """A plugin's life from plan to end, over all its restarts.

    Args:
        shared: See :class:`Shared`.
        name: Its name, unique among the plugins of this supervisor.
        entry: What the planner decided (see ``planner.encode_plugin``).
    """

    def __init__(self, shared: Shared, name: str, entry: Mapping[str, Any]) -> None:
        self._shared = shared
        self.entry = entry
        self.name = name
        self.refused: str | None = entry["refused"]
        self.trouble = self.refused
        """Why it does not run, where that is not how it ended."""
        self.state = State.REFUSED if self.refused else State.STARTING
        self.pid = 0
        self.started_at = 0.0
        self.restarts = 0
        self.last_exit: int | None = None
        self.next_start = 0.0
        self._attempt = 0
        self._after: Event = Event.CLEARED
        self.starts_again = False
        """Whether it is to start as soon as nothing is left of it."""
        self.replaced = False
        """Whether it ends for good, as another takes its place or none does."""
        self._timer: Timer | None = None
        self._killing_since = 0.0
        self._asked: set[int] = set()
        self._lines_before = 0
        self._unheard = -1
        self._captures: list[Capture] = []
        files = None
        if entry["log"] is not None:
            directory, max_bytes, count = entry["log"]
            file = f"{name}.{shared.label}.log".replace("/", "_")
            path = os.fsencode(os.path.join(directory, file))
            files = RotatedFile(shared.files, path, max_bytes, count)
        self.output = PluginOutput(
            shared.log,
            shared.loop,
            self.name,
            entry["file"],
            entry["max_line_bytes"],
            entry["ring_bytes"],
            entry["rate_limit"],
            files,
            entry["relay"],
        )

    # --- requests ---------------------------------------------------------

    def start(self) -> None:
        """Start the plugin, or start it again once nothing is left of it; not while all ends."""
        if self._shared.ending or self.replaced:
            return
        if self.state in (State.STOPPING, State.CLEARING):
            self.starts_again = True
            return
        was = self.state
        self._move(Event.START)
        if self.state is State.STARTING and (was is not self.state or not self.pid):
            self._cancel_timer()
            self._attempt = 0
            self._spawn()

    def stop(self) -> None:
        """Ask the plugin to end: SIGTERM now, SIGKILL to all of it after its grace period."""
        self.starts_again = False
        self._listen()
        was = self.state
        self._move(Event.STOP)
        if was is State.STOPPING:
            return
        if self.state is not State.STOPPING:
            self._cancel_timer()
            return
        if was is State.RUNNING:
            # SIGCONT, so that one that is stopped can act on it.
            signal_group(self.pid, signal.SIGTERM, signal.SIGCONT)
        else:  # its first process is gone; what it left was asked, and goes on ending
            self._shared.loop.call_soon(self._look)
        self._start_grace()

    # --- events -----------------------------------------------------------

    def exec_failed(self, number: int) -> None:
        """Take note that the child could not exec; ``number`` is the error's."""
        self._listen()
        self._move(Event.CANNOT_RUN)
        cause = f"Cannot run {self._command()}: {exec_error_text(number)}"
        self.trouble = uncapitalized(cause)
        self._say(ERROR, f"{cause}; not tried again until reload")

    def exited(self, status: int, table: ProcessTable | None) -> None:
        """Take note that the first process has ended and look at what it left.

        Args:
            status: As ``waitpid`` returned it.
            table: The processes after its end; None leaves the look for later.
        """
        code = os.waitstatus_to_exitcode(status)
        uptime = time.monotonic() - self.started_at
        self.last_exit = code
        self._listen()
        for capture in list(self._captures):
            capture.drain()
        was = self.state
        self._move(Event.EXITED)
        if was is State.STOPPING:
            self._say(
                INFO, f"Stopped: {uncapitalized(exit_text(code, asked=True))} after {span(uptime)}"
            )
            if table is not None:
                self.look(table)
            return
        if self.state is State.FAILED:
            self._end_run()
            return
        self._after = after_exit(code, self.entry["restart"])
        remains: set[int] = set()
        if table is not None and self.entry["leftovers"] != "keep":
            remains = self.remains(table)
        self._say_exit(code, uptime, len(remains))
        if table is not None and remains:
            self._ask(table, remains)
            self._start_grace()
        else:
            self.cleared()

    def look(self, table: ProcessTable) -> None:
        """See whether anything of a plugin that is being ended is left."""
        if self.state not in (State.CLEARING, State.STOPPING):
            return
        if self.pid in self._shared.by_pid and not self._killing_since:
            return
        remains = self.remains(table)
        if self._killing_since:
            self._kill(table, remains)
        elif not remains:
            self.cleared()
        elif self.state is State.STOPPING:
            # Its group was asked when the stop began; what left the group was not.
            self._ask(table, {p for p in remains if table.by_pid[p].group != self.pid})

    def remains(self, table: ProcessTable) -> set[int]:
        """Return the processes that this run has, or left (:func:`.remains_of`)."""
        if not self.pid:
            return set()
        shared = self._shared
        return remains_of(table, self.pid, self.name, shared.run_id, shared.by_pid)

    # --- inside -----------------------------------------------------------

    def _move(self, event: Event) -> None:
        was, self.state = self.state, transition(self.state, event)
        if self.state is not was:
            self._shared.changed(self)

    def _spawn(self) -> None:
        shared = self._shared
        self._timer = None
        environment = {
            **shared.environment,
            _NAME: os.fsencode(self.name),
            **self.entry["environment"],
        }
        try:
            pid, read_end = spawn(
                shared.setup, self.entry["argv"], environment, shared.null, shared.report_w
            )
        except OSError as error:
            self._move(Event.SPAWN_FAILED)
            cause = f"Cannot start: {uncapitalized(error.strerror or str(error))}"
            self.trouble = uncapitalized(cause)
            self._back_off(cause)
            return
        shared.by_pid[pid] = self
        self.pid = pid
        self.started_at = time.monotonic()
        self.trouble = None
        self._unheard = read_end
        shared.loop.call_soon(self._listen)
        self._move(Event.SPAWNED)

    def _listen(self) -> None:
        """Read what the new process writes, and say that it runs: once all are started."""
        if self._unheard < 0:
            return
        shared = self._shared
        self._lines_before = self.output.lines
        self.output.started(self.pid)
        self._captures.append(
            Capture(self._unheard, self.output, shared.loop, shared.log, self._captures.remove)
        )
        self._unheard = -1
        self._say(INFO, f"Started, pid {self.pid}: {self._command()}")

    def _say_exit(self, code: int, uptime: float, remains: int) -> None:
        text = f"{exit_text(code)} after {span(uptime)}"
        if remains:
            text += (
                f"; it left {count_processes(remains)} behind, which end now "
                "(use 'exec' or 'wait' instead of a background process, or leftovers: keep)"
            )
        if self._after is Event.GIVE_UP:
            text += "; not restarted: it asked for that by its exit code"
        elif self._after is Event.DONE:
            text += f"; not restarted (restart: {self.entry['restart']})"
        else:
            if uptime >= self.entry["backoff"][2]:
                self._attempt = 0
            text += f"; starting again in {span(self._next_delay())} (restart {self.restarts + 1})"
        failed = after_exit(code, "on-failure") is not Event.DONE
        if failed:
            text += self.output.last_words(self._lines_before)
        self._say(WARNING if failed else INFO, text)

    def _next_delay(self) -> float:
        """Choose the delay before the next start."""
        initial, maximum, _ = self.entry["backoff"]
        self._attempt += 1
        delay = backoff_delay(self._attempt, initial, maximum, os.urandom(1)[0] / 256)
        self.next_start = time.monotonic() + delay
        return delay

    def _back_off(self, cause: str) -> None:
        delay = self._next_delay()
        self._say(WARNING, f"{cause}; trying again in {span(delay)} (attempt {self._attempt + 1})")
        self._wait_to_start()

    def _wait_to_start(self) -> None:
        self._cancel_timer()
        delay = max(self.next_start - time.monotonic(), 0.0)
        self._timer = self._shared.loop.call_later(delay, self._backoff_elapsed)

    def _backoff_elapsed(self) -> None:
        self._move(Event.BACKOFF_ELAPSED)
        if self.state is State.STARTING:
            self.restarts += 1
            self._spawn()

    def _start_grace(self) -> None:
        self._cancel_timer()
        self._killing_since = 0.0
        self._timer = self._shared.loop.call_later(self.entry["stop_grace"], self._grace_elapsed)

    def _grace_elapsed(self) -> None:
        self._timer = None
        self._move(Event.GRACE_ELAPSED)
        if self.state not in (State.CLEARING, State.STOPPING):
            return
        table = ProcessTable.recent()
        remains = self.remains(table)
        if remains:  # else all has ended, and only waits to be reaped
            self._say(
                WARNING,
                f"Did not end within {self.entry['stop_grace']:g} s of SIGTERM (stop_grace): "
                f"killing {count_processes(len(remains))}",
            )
        self._killing_since = time.monotonic()
        if self.pid in self._shared.by_pid:
            signal_group(self.pid, signal.SIGKILL)
        self._kill(table, remains)

    def _kill(self, table: ProcessTable, remains: set[int]) -> None:
        """Kill all, and look again until nothing is left: what forks meanwhile is found too."""
        if not remains and self.pid not in self._shared.by_pid:
            self.cleared()
            return
        table.kill(remains)
        taken = time.monotonic() - self._killing_since
        if taken > _CHASE_AFTER:
            chase(self.name, self._shared.run_id, self._shared.by_pid)
        if taken > _KILL_SECONDS:
            self._say(ERROR, f"Still there after SIGKILL, {why_left(remains)}")
            self._shared.by_pid.pop(self.pid, None)
            self.cleared()
            return
        self._cancel_timer()
        self._timer = self._shared.loop.call_later(_LOOK_AGAIN, self._look)

    def _look(self) -> None:
        self.look(ProcessTable.recent())

    def _ask(self, table: ProcessTable, pids: set[int]) -> None:
        """Send SIGTERM to processes that have not had it yet."""
        pids = pids - self._asked
        self._asked |= pids
        table.send(pids, signal.SIGTERM)
        table.send(pids, signal.SIGCONT)

    def cleared(self) -> None:
        """Take note that nothing is left of this run."""
        self._end_run()
        self._move(Event.CLEARED if self.state is State.STOPPING else self._after)
        if self.starts_again:
            self.starts_again = False
            self.start()
        elif self.state is State.BACKING_OFF:
            self._wait_to_start()

    def _end_run(self) -> None:
        self._cancel_timer()
        self._killing_since = 0.0
        self._asked.clear()
        if self.entry["leftovers"] != "keep" or self.state is State.STOPPING:
            for capture in list(self._captures):
                capture.finish()

    def status(self, now: float) -> dict[str, Any]:
        """Return what the control socket tells of this plugin at monotonic time ``now``."""
        running = self.pid in self._shared.by_pid
        return {
            "name": self.name,
            "path": os.fsencode(self.entry["path"]).decode("utf-8", "backslashreplace"),
            "package": self.entry["package"],
            "command": self._command().encode("utf-8", "backslashreplace").decode(),
            "state": self.state.value,
            "reason": self.trouble and self.trouble.encode("utf-8", "backslashreplace").decode(),
            "pid": self.pid if running else None,
            "uptime": round(now - self.started_at, 3) if running else None,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
            "next_start_in": round(max(self.next_start - now, 0.0), 3)
            if self.state is State.BACKING_OFF
            else None,
            "lines": self.output.lines,
            "lines_dropped": self.output.dropped,
            "bytes": self.output.bytes,
        }

    def flush(self) -> None:
        """At the end of the supervisor: log what is still in the pipes and what was held back."""
        for capture in list(self._captures):
            capture.drain(patient=False)
            capture.close()
        self.output.report_held()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _command(self) -> str:
        """Return interpreter and file; not the arguments of the settings, which may be secret."""
        shown = len(self.entry["argv"]) - self.entry["own_args"]
        return " ".join(os.fsdecode(word) for word in self.entry["argv"][:shown])

    def _say(self, level: int, text: str) -> None:
        self._shared.log.say(level, self.name, text)
