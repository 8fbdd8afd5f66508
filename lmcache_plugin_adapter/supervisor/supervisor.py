"""The supervisor: one small process beside an engine process that keeps its plugins.

It is no descendant of the engine, sleeps when nothing happens, and ends when
the engine ends, asks for it, or it is told to by a signal: always in order,
with the grace period the plugins were promised.
"""

from __future__ import annotations

import os
import signal
import socket
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
from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.contract.runtime_dir import (
    CONFIG_FILE,
    CONTROL_SOCKET,
    InstanceDir,
    open_root,
)
from lmcache_plugin_adapter.linux.descriptor_passing import receive_descriptors
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.linux.process_watch import watch_engine
from lmcache_plugin_adapter.linux.procfs import ProcessTable, has_memory
from lmcache_plugin_adapter.linux.syscalls import become_subreaper, pidfd_open
from lmcache_plugin_adapter.messages.wording import count_processes, raised_at
from lmcache_plugin_adapter.supervisor.control.operations import Operations
from lmcache_plugin_adapter.supervisor.control.server import ControlServer
from lmcache_plugin_adapter.supervisor.output.loss_report import Losses
from lmcache_plugin_adapter.supervisor.output.plugin_output import OWN_NAME, EventLog
from lmcache_plugin_adapter.supervisor.output.writer import StreamTarget, Writer
from lmcache_plugin_adapter.supervisor.planning.search import Planning
from lmcache_plugin_adapter.supervisor.processes.orphans import earlier_supervisor, end_run
from lmcache_plugin_adapter.supervisor.processes.spawn import (
    EXEC_FAILED_CODE,
    EXEC_REPORT,
    ChildSetup,
    raise_file_limit,
    reset_signals,
)

from .about import about
from .plugin_set import Catalog
from .services import Shared
from .shutdown import Ending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .handover import Launch
    from .plugin import Plugin


class Supervisor:
    """See the module."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._started = time.monotonic()
        self._about: dict[str, Any] = {}
        self._adopted = 0
        self._said = b""
        self._reloads: list[tuple[int, Callable[[dict[str, Any]], None]]] = []
        self._last_words: str | None = None
        reset_signals()
        self._loop = Loop(self._on_error)
        writer = Writer(self._on_room, self._loop.call_soon)
        files = Writer(self._on_room, self._loop.call_soon)
        logger = f"lmcache_plugin_adapter.{launch.label.replace(' ', '.')}"
        self._log = EventLog(
            writer,
            StreamTarget(2),
            logger,
            wants_color(2, os.environ),
            threshold_from(os.environ),
        )
        self._losses = Losses(self._loop, self._log, files, writer)
        self._link = socket.socket(fileno=launch.link)
        self._link.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._loop.on_signal(number, partial(self._told_to_stop, number))
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        setup = ChildSetup(os.getpid(), raise_file_limit())
        role = launch.label.replace(" ", "-")
        self._shared = Shared(
            self._loop, self._log, setup, files, launch.run_id.encode(), role, self._link
        )
        self._shared.changed = self._changed
        self._plugins = Catalog(self._shared)
        self._ending = Ending(
            self._loop, self._plugins, self._shared, self._reap_children, self._say
        )
        self._operations = Operations(self._plugins, self.status, self._reload)
        self._control = ControlServer(self._loop, self._operations.handlers)
        self._instance: InstanceDir | None = None
        self._planning = Planning(
            self._loop,
            setup,
            self._log,
            self._plan,
            (launch.spec,),
            self._adopt,
            self._plan_failed,
        )

    def run(self) -> None:
        """Keep the plugins until the end; returns when nothing of them is left."""
        launch = self._launch
        watch_engine(
            self._loop,
            launch.pidfd,
            launch.engine,
            launch.engine_start,
            self._engine_ended,
            partial(self._say, WARNING),
        )
        self._loop.watch(self._link.fileno(), self._on_link)
        self._loop.watch(self._shared.report_r, self._read_exec_reports)
        self._tell_engine(wire.READY, os.getpid())
        if not become_subreaper():
            self._say(WARNING, "Cannot become a subreaper: daemons of plugins may be left behind")
        self._wait_for_earlier()
        self._loop.run()
        self._finish()

    def _wait_for_earlier(self) -> None:
        """Begin once no supervisor still ends an earlier run of this process's plugins."""
        launch = self._launch
        pid = earlier_supervisor(launch.run_id, launch.label) if launch.again else 0
        try:
            fd = pidfd_open(pid) if pid else -1
        except OSError:
            fd = -1
        if fd < 0:
            self._begin()
            return

        def gone() -> None:
            self._loop.unwatch(fd)
            os.close(fd)
            self._wait_for_earlier()

        self._loop.watch(fd, gone)

    def _begin(self) -> None:
        if self._shared.ending:
            return
        if self._launch.previous:
            self._take_over()
        self._open_instance()
        self._planning.begin()

    # --- what plugins there are ----------------------------------------------

    def _plan(self, fd: int, skip: frozenset[str]) -> None:
        from lmcache_plugin_adapter.supervisor.planning.child import run_planner

        size = os.fstat(self._launch.spec).st_size
        spec = os.pread(self._launch.spec, size, 0)
        root = config = None
        if self._instance is not None:
            root = os.path.dirname(self._instance.path)
            config = self._instance.file(CONFIG_FILE)
        run_planner(fd, spec, config, root, skip)

    def _adopt(self, search: int, plan: Mapping[str, Any]) -> None:
        if self._shared.ending or search < self._adopted:
            return  # a newer search has told more
        if search == self._adopted or not self._adopted:
            self._plugins.adopt(plan)  # the first, or what a hung location gave later
        else:
            done = self._plugins.reload(plan)
            counts = ", ".join(f"{len(names)} {what}" for what, names in done.items())
            self._say(INFO, f"Reloaded: {counts}")
            self._answer_reloads(search, done)
        self._adopted = search
        self._tell_engine(wire.GRACE, self._plugins.longest_grace)
        if not len(self._plugins):
            self._say(INFO, f"No plugin is meant for this {self._launch.label}")

    def _answer_reloads(self, search: int, answer: dict[str, Any]) -> None:
        """Answer those who asked for this search or an earlier one."""
        due = [send for asked, send in self._reloads if asked <= search]
        self._reloads = [pair for pair in self._reloads if pair[0] > search]
        for send in due:
            send(answer)

    def _plan_failed(self, search: int) -> None:
        error = "the search for plugins failed; the log says why"
        self._answer_reloads(search, {"ok": False, "error": error})

    def _reload(self, answer: Callable[[dict[str, Any]], None]) -> None:
        try:
            self._reloads.append((self._planning.start(), answer))
        except OSError as error:
            answer({"ok": False, "error": f"cannot look for plugins: {error.strerror}"})

    def _changed(self, plugin: Plugin) -> None:
        if plugin.state.settled:
            self._loop.call_soon(partial(self._plugins.settled, plugin))
        self._operations.changed(plugin)
        self._plugins.changed(plugin)
        self._loop.call_soon(self._operations.answer_waiters)

    # --- the end ---------------------------------------------------------------

    def _engine_ended(self) -> None:
        try:  # its last words may not have been read yet
            self._note(self._link.recv(64, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            pass
        self._shared.log.engine_ended()
        self._stop(f"its engine (pid {self._launch.engine}) ended", self._word_for_end())

    def _note(self, data: bytes) -> None:
        """Remember what kinds of messages the engine has sent."""
        self._said = bytes({*self._said, *data})

    def _word_for_end(self) -> str:
        """Return how the engine ends, in the word that plugins are told."""
        if wire.FAILING in self._said:
            return "failed"
        ends = wire.EXITING in self._said or wire.STOP in self._said
        return "closing" if ends else "died"

    def _told_to_stop(self, number: signal.Signals) -> None:
        # The engine's side must know before the connection ends: no respawn.
        self._tell_engine(wire.STOPPED_BY_SIGNAL)
        self._last_words = "Plugins start again when their engine is started again"
        self._stop(f"the supervisor got {number.name}", "told")

    def _stop(self, reason: str, word: str) -> None:
        if self._shared.ending:
            return
        self._shared.ending = True
        if self._instance is not None:
            self._instance.say_ending(word)
        running = [plugin for plugin in self._plugins if not plugin.state.settled]
        self._ending.begin()  # first, whatever goes wrong on the way
        if running:
            count = "1 plugin" if len(running) == 1 else f"{len(running)} plugins"
            self._say(INFO, f"Stopping {count}: {reason}")
        for end in (self._planning.cancel, *(plugin.stop for plugin in running)):
            self._loop.attempt(end)

    def _finish(self) -> None:
        for last in (self._plugins.close, self._control.close):
            self._loop.attempt(last)
        if self._last_words is not None:
            self._say(INFO, self._last_words)
        if self._instance is not None:
            self._instance.remove()
        self._loop.attempt(self._losses.finish)
        self._tell_engine(wire.FINISHED)

    # --- what happens --------------------------------------------------------

    def _reap(self) -> None:
        self._reap_children()
        if self._shared.ending:
            self._loop.call_soon(self._ending.look)

    def _reap_children(self) -> bool:
        """Reap what has ended; True when no child is left, which means no descendant either."""
        ended: list[tuple[Plugin, int]] = []
        orphans = False
        childless = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                childless = True
                break
            if not pid:
                break
            if os.waitstatus_to_exitcode(status) == EXEC_FAILED_CODE:
                self._read_exec_reports()  # written before the end; not after it is reaped
            plugin = self._shared.by_pid.pop(pid, None)
            if plugin is not None:
                ended.append((plugin, status))
            elif not self._planning.owns(pid):
                orphans = True
        looking = not self._shared.ending and (ended or (orphans and self._ending_some()))
        table = ProcessTable() if looking else None
        for plugin, status in ended:
            self._loop.attempt(partial(plugin.exited, status, table))
        if table is not None:
            for plugin in self._plugins:
                self._loop.attempt(partial(plugin.look, table))
        return childless

    def _ending_some(self) -> bool:
        return any(p.state in (State.CLEARING, State.STOPPING) for p in self._plugins)

    def _read_exec_reports(self) -> None:
        while True:
            try:
                data = os.read(self._shared.report_r, EXEC_REPORT.size * 128)
            except BlockingIOError:
                return
            for pid, number in EXEC_REPORT.iter_unpack(data):
                plugin = self._shared.by_pid.get(pid)
                if plugin is not None:
                    self._loop.attempt(partial(plugin.exec_failed, number))

    def _on_link(self) -> None:
        try:
            data, fds = receive_descriptors(self._link, 64, wire.MOST_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        self._note(data)
        for fd in fds:
            self._control.adopt(socket.socket(fileno=fd))
        if wire.STOP in data:
            self._stop("the engine closes", self._word_for_end())
        elif not data:
            # Closed on exec, and before a process that ends can be seen to have ended.
            self._loop.unwatch(self._link.fileno())
            if has_memory(self._launch.engine):
                what = f"its engine (pid {self._launch.engine}) became another program"
                self._shared.log.engine_ended()
                self._stop(what, "replaced")
            else:
                self._engine_ended()

    def _tell_engine(self, message: bytes, value: object = "") -> None:
        try:
            self._link.send(wire.line(message, value))
        except OSError:
            pass  # the engine is gone: its pidfd says so

    def _take_over(self) -> None:
        launch = self._launch
        ended = end_run(launch.run_id)
        left = f"; ended {count_processes(ended)} it left" if ended else ""
        # 1 stands for one that was gone before it could say its pid.
        name = f"Supervisor {launch.previous}" if launch.previous > 1 else "The supervisor"
        self._say(
            WARNING,
            f"{name} of {launch.label} was killed{left}; this one takes its place",
        )

    def _open_instance(self) -> None:
        root, reasons = open_root(os.environ)
        problem = "; ".join(reasons)
        if root is not None:
            try:
                self._instance = InstanceDir(root, self._launch.run_id, self._shared.label)
                self._control.listen(self._instance.path, CONTROL_SOCKET)
            except OSError as error:
                problem = f"'{root}': {error.strerror}"
            else:
                return
        self._say(
            WARNING,
            "No usable runtime directory, so no control socket and no "
            f"LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE; plugins run all the same ({problem})",
        )

    def _on_room(self) -> None:
        """On a writer's thread: it has room again, cannot write, or can again."""
        self._loop.wake(self._go_on)

    def _go_on(self) -> None:
        self._log.room()
        self._losses.look()

    def _on_error(self, error: BaseException) -> None:
        text = f"Internal error, supervision goes on: {error!r} at {raised_at(error)}"
        self._say(ERROR, text)

    def _say(self, level: int, text: str) -> None:
        self._log.say(level, OWN_NAME, text)

    def status(self) -> dict[str, Any]:
        """Return what runs, as the control socket tells it."""
        now = time.monotonic()
        if not self._about:
            self._about = about(self._launch)
        return {
            **self._about,
            "uptime": round(now - self._started, 3),
            "stopping": self._shared.ending,
            "plugins": [plugin.status(now) for plugin in self._plugins],
        }
