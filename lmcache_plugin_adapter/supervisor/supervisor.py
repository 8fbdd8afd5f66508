# SPDX-License-Identifier: Apache-2.0
"""The supervisor: one small process beside an engine process that runs its plugins.

The supervisor is not a descendant of the engine and sleeps while nothing
happens. It stops when the engine exits, when the engine requests it, or on a
signal: always in order, with the plugins' grace period.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial

from lmcache_plugin_adapter.contract import wire
from lmcache_plugin_adapter.contract.log_records import (
    ERROR,
    INFO,
    WARNING,
    threshold_from,
    wants_color,
)
from lmcache_plugin_adapter.contract.runtime_dir import other_instances
from lmcache_plugin_adapter.contract.variables import TOLD
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.linux.procfs import command_of
from lmcache_plugin_adapter.linux.syscalls import become_subreaper, pidfd_open
from lmcache_plugin_adapter.messages.wording import count_processes, counted, raised_at
from lmcache_plugin_adapter.supervisor.control.operations import Operations
from lmcache_plugin_adapter.supervisor.control.server import ControlServer
from lmcache_plugin_adapter.supervisor.control.status import plugin_status
from lmcache_plugin_adapter.supervisor.output.event_log import EventLog
from lmcache_plugin_adapter.supervisor.output.loss_report import LossReport
from lmcache_plugin_adapter.supervisor.output.stderr_route import StderrRoute, StreamTarget
from lmcache_plugin_adapter.supervisor.output.writer import Writer
from lmcache_plugin_adapter.supervisor.planning.loader import PluginLoader
from lmcache_plugin_adapter.supervisor.processes.reaper import Reaper
from lmcache_plugin_adapter.supervisor.processes.spawn import (
    ChildSetup,
    raise_file_limit,
    reset_signals,
)

from .engine_connection import EngineConnection
from .plugin_set import PluginSet
from .runtime_files import RuntimeFiles
from .services import Services
from .shutdown import Shutdown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .handover import Handover


class Supervisor:
    """Connect the parts of a supervisor, begin, and stop.

    Args:
        handover: What the engine handed over.
    """

    def __init__(self, handover: Handover) -> None:
        self._handover = handover
        self._started = time.monotonic()
        self._about: dict[str, Any] = {}
        self._last_message: str | None = None
        reset_signals()
        self._loop = loop = Loop(self._on_error)
        writer = Writer(self._on_room, loop.call_soon)
        file_writer = Writer(self._on_room, loop.call_soon)
        logger = f"lmcache_plugin_adapter.{handover.label.replace(' ', '.')}"
        stderr = StderrRoute(writer, StreamTarget(2), logger, wants_color(2, os.environ))
        self._events = EventLog(loop, file_writer, stderr, threshold_from(os.environ))
        self._loss_report = LossReport(self._events)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.on_signal(number, partial(self._signalled, number))
        loop.on_signal(signal.SIGCHLD, self._child_exited)
        setup = ChildSetup(os.getpid(), raise_file_limit())
        self._services = Services(
            loop,
            self._events,
            setup,
            Reaper(loop, setup.reports, handover.run_id.encode()),
            handover.label.replace(" ", "-"),
        )
        self._services.reaper.on_unmarked = self._found_unmarked
        self._services.reaper.on_refusal = partial(self._events.log, WARNING)
        self._shutdown = Shutdown(self._services)
        self._control = ControlServer(loop)
        self._engine = EngineConnection(self._events, handover, self._stop, self._control.adopt)
        self._plugins = PluginSet(self._services, self._engine.socket)
        self._files = RuntimeFiles(
            self._services, self._control, self._plugins.stops, handover.run_id
        )
        self._loader = PluginLoader(
            self._services, self._plugins, handover, self._engine, self._files
        )
        operations = Operations(
            loop, self._plugins, self.status, self._loader.reload, self._engine.stop
        )
        self._control.handlers = operations.handlers

    def run(self) -> None:
        """Run the plugins; return when no process of them is left."""
        self._engine.watch()
        self._engine.send(wire.READY, os.getpid())
        if not become_subreaper():
            text = "Cannot become a subreaper: daemons of plugins may be left behind"
            self._events.log(WARNING, text)
        # A supervisor that takes another one's place finishes its work, and waits for none.
        handover = self._handover
        again = handover.again or (
            not handover.previous
            and other_instances(os.environ, handover.run_id, self._services.file_label)
        )
        if again:
            self._wait_for_previous()
        else:
            self._begin()
        self._loop.run()
        self._finish()

    def status(self) -> dict[str, Any]:
        """Return the status of the supervisor and its plugins for the control socket."""
        now = time.monotonic()
        self._about = self._about or self._handover.describe()
        return {
            **self._about,
            "uptime": round(now - self._started, 3),
            "stopping": self._services.stopping,
            "plugins": [plugin_status(plugin, now).to_json() for plugin in self._plugins],
        }

    # --- the beginning ---------------------------------------------------------

    def _wait_for_previous(self) -> None:
        """Begin once no supervisor of a previous launch still stops its plugins."""
        # Imported only when it is needed, as it takes memory.
        from lmcache_plugin_adapter.supervisor.processes.orphans import (
            clear_launches,
            previous_supervisor,
        )

        handover = self._handover
        pid = previous_supervisor(handover.run_id, handover.label)
        if not pid:  # one that was killed, before an engine that executes itself anew replaced it
            clear_launches(other_instances(os.environ, handover.run_id, self._services.file_label))
        try:
            fd = pidfd_open(pid) if pid else -1
        except OSError:
            fd = -1
        if fd < 0:
            self._begin()
            return
        text = f"Waiting for supervisor {pid} of an earlier launch, which still stops its plugins"
        notice = self._loop.call_later(1.0, lambda: self._events.log(INFO, text))

        def gone() -> None:
            notice.cancel()
            self._loop.unwatch(fd)
            os.close(fd)
            self._wait_for_previous()

        self._loop.watch(fd, gone)

    def _begin(self) -> None:
        if self._services.stopping:
            return
        self._files.open()
        if self._handover.previous:
            self._replace_previous()
        self._loader.begin()

    def _replace_previous(self) -> None:
        from lmcache_plugin_adapter.supervisor.processes.orphans import kill_left

        handover = self._handover
        instance = self._files.instance
        recorded = instance.recorded() if instance is not None else []
        killed = kill_left(handover.run_id, recorded)
        left = f"; ended {count_processes(killed)} it left" if killed else ""
        name = f"Supervisor {handover.previous}" if handover.previous > 1 else "The supervisor"
        text = f"{name} of {handover.label} was killed{left}; this one takes its place"
        self._events.log(WARNING, text)

    # --- the end ---------------------------------------------------------------

    def _signalled(self, number: signal.Signals) -> None:
        # The engine must get this before the connection ends: it must not start another.
        self._engine.send(wire.STOPPED_BY_SIGNAL)
        self._last_message = "Plugins start again when their engine is started again"
        self._stop(f"the supervisor got {number.name}", TOLD)

    def _stop(self, reason: str, exit_reason: str) -> None:
        if self._services.stopping:
            return
        self._services.stopping = True
        self._files.write_exit_reason(exit_reason)
        running = [plugin for plugin in self._plugins if not plugin.state.settled]
        self._shutdown.begin(self._plugins.longest_grace)  # first, as what follows may fail
        if running:
            self._events.log(INFO, f"Stopping {counted(len(running), 'plugin')}: {reason}")
        for end in (self._loader.cancel, *(plugin.stop for plugin in running)):
            self._loop.attempt(end)

    def _finish(self) -> None:
        for close in (self._plugins.close, self._control.close):
            self._loop.attempt(close)
        if self._last_message is not None:
            self._events.log(INFO, self._last_message)
        self._files.remove()
        self._loop.attempt(self._loss_report.finish)
        self._engine.finish()

    # --- callbacks -------------------------------------------------------------

    def _child_exited(self) -> None:
        stopping = self._services.stopping
        self._services.reaper.reap(check=not stopping)
        if stopping:
            self._loop.call_soon(self._shutdown.check)

    def _found_unmarked(self, pid: int) -> None:
        self._services.record(pid)
        name = os.fsdecode(command_of(pid))
        text = "carries no run token: it ends with the engine, not with its plugin"
        text = f"Process {pid} ({name!r}) of some plugin {text}"
        self._loop.call_soon(partial(self._events.log, WARNING, text))  # once it is recorded

    def _on_room(self) -> None:
        """On a writer's thread: it has room again, cannot write, or can write again."""
        self._loop.wake(self._continue)

    def _continue(self) -> None:
        self._events.resume_readers()
        self._loss_report.check()

    def _on_error(self, error: BaseException) -> None:
        text = f"Internal error, supervision continues: {error!r} at {raised_at(error)}"
        self._events.log(ERROR, text)
