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

from .about import about
from .catalog import Catalog
from .control import ControlServer
from .deathwatch import watch_engine
from .lifecycle import State
from .loop import Loop
from .operations import Operations
from .output import EventLog
from .planning import Planning
from .procfs import ProcessTable, has_memory, own_children
from .records import ERROR, INFO, WARNING, threshold_from, wants_color
from .remains import CHASE_SECONDS
from .runtime_dir import CONFIG_FILE, CONTROL_SOCKET, InstanceDir, open_root
from .shared import Shared
from .sink import StreamTarget, Writer
from .spawn import EXEC_REPORT, ChildSetup, raise_file_limit, reset_signals
from .sweep import end_run
from .syscalls import become_subreaper
from .wording import count_processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .launch import Launch
    from .loop import Timer
    from .plugin import Plugin

NAME = "lmcache-plugins"
"""What stands in brackets before the supervisor's own records."""

_FLUSH_SECONDS = 1.0
"""How long the end waits for the log to take what is queued."""

_KILL_SECONDS = 1.0
_LOOK_AGAIN = 0.005


class Supervisor:
    """See the module."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._started = time.monotonic()
        self._about: dict[str, Any] = {}
        self._reloads: list[Callable[[dict[str, Any]], None]] = []
        self._stopping = False
        self._stop_deadline = 0.0
        self._strays_asked = False
        self._end_timer: Timer | None = None
        self._last_words: str | None = None
        reset_signals()
        self._loop = Loop(self._on_error)
        self._writer = Writer(self._on_room)
        files = Writer(self._on_room)
        logger = f"lmcache_plugin_adapter.{launch.label.replace(' ', '.')}"
        self._log = EventLog(
            self._writer,
            StreamTarget(2),
            logger,
            wants_color(2, os.environ),
            threshold_from(os.environ),
        )
        self._link = socket.socket(fileno=launch.link)
        self._link.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._loop.on_signal(number, partial(self._told_to_stop, number))
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        setup = ChildSetup(os.getpid(), self._loop.signals, raise_file_limit())
        role = launch.label.replace(" ", "-")
        self._shared = Shared(
            self._loop, self._log, setup, files, launch.run_id.encode(), role, self._link
        )
        self._shared.changed = self._changed
        self._plugins = Catalog(self._shared)
        self._operations = Operations(self._plugins, self.status, self._reload)
        self._control = ControlServer(self._loop, self._operations.handlers)
        self._instance: InstanceDir | None = None
        self._planning = Planning(
            self._loop, setup, self._log, self._plan, self._adopt, self._plan_failed
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
            self._say,
        )
        self._loop.watch(self._link.fileno(), self._on_link)
        self._loop.watch(self._shared.report_r, self._read_exec_reports)
        self._tell_engine(f"H{os.getpid()}\n")
        if not become_subreaper():
            self._say(WARNING, "Cannot become a subreaper: daemons of plugins may be left behind")
        if launch.previous:
            self._take_over()
        self._open_instance()
        self._planning.begin()
        self._loop.run()
        self._finish()

    # --- what plugins there are ----------------------------------------------

    def _plan(self, fd: int, skip: frozenset[str]) -> None:
        from .planner import run_planner

        size = os.fstat(self._launch.spec).st_size
        spec = os.pread(self._launch.spec, size, 0)
        root = config = None
        if self._instance is not None:
            root = os.path.dirname(self._instance.path)
            config = self._instance.file(CONFIG_FILE)
        run_planner(fd, spec, config, root, skip)

    def _adopt(self, plan: Mapping[str, Any]) -> None:
        if self._stopping:
            return
        reloads, self._reloads = self._reloads, []
        if reloads:
            done = self._plugins.reload(plan)
            counts = ", ".join(f"{len(names)} {what}" for what, names in done.items())
            self._say(INFO, f"Reloaded: {counts}")
            for answer in reloads:
                answer(done)
        else:
            self._plugins.adopt(plan)
        self._tell_engine(f"G{self._plugins.longest_grace}\n")
        if not len(self._plugins):
            self._say(INFO, f"No plugin is meant for this {self._launch.label}")

    def _plan_failed(self) -> None:
        reloads, self._reloads = self._reloads, []
        for answer in reloads:
            answer({"ok": False, "error": "the search for plugins failed; the log says why"})

    def _reload(self, answer: Callable[[dict[str, Any]], None]) -> None:
        if self._stopping:
            answer({"ok": False, "error": "the supervisor is stopping"})
            return
        try:
            self._planning.start()
        except OSError as error:
            answer({"ok": False, "error": f"cannot look for plugins: {error.strerror}"})
        else:
            self._reloads.append(answer)

    def _changed(self, plugin: Plugin) -> None:
        if plugin.state.settled:
            self._loop.call_soon(partial(self._plugins.settled, plugin))
        self._operations.changed(plugin)
        self._plugins.changed(plugin)
        self._loop.call_soon(self._operations.answer_waiters)

    # --- the end ---------------------------------------------------------------

    def _engine_ended(self) -> None:
        self._stop(f"its engine (pid {self._launch.engine}) ended")

    def _told_to_stop(self, number: signal.Signals) -> None:
        # The engine's side must know before the connection ends: no respawn.
        self._tell_engine("Q\n")
        self._last_words = "Plugins start again when their engine is started again"
        self._stop(f"the supervisor got {number.name}")

    def _stop(self, reason: str) -> None:
        if self._stopping:
            return
        self._stopping = True
        # First what leads to the end, whatever goes wrong on the way. The grace period
        # is that of all, as what a plugin was allowed to leave has one, too.
        self._stop_deadline = time.monotonic() + self._plugins.longest_grace
        self._loop.call_soon(self._look_for_end)
        running = [p for p in self._plugins if not p.state.settled]
        if running:
            count = "1 plugin" if len(running) == 1 else f"{len(running)} plugins"
            self._say(INFO, f"Stopping {count}: {reason}")
        for end in (self._planning.cancel, *(plugin.stop for plugin in running)):
            self._loop.attempt(end)

    def _look_for_end(self) -> None:
        """While stopping: end the loop once no descendant is left, and chase those that are."""
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._end_timer = self._loop.call_later(_LOOK_AGAIN, self._look_for_end)
        if self._reap_children():
            self._loop.stop()
            for plugin in self._plugins:
                if plugin.state in (State.STOPPING, State.CLEARING):
                    self._loop.attempt(plugin.cleared)
            return
        late = time.monotonic() - self._stop_deadline
        if self._strays_asked and self._shared.by_pid and late < 0:
            # The next SIGCHLD brings us back, or the end of the grace period.
            self._end_timer.cancel()
            self._end_timer = self._loop.call_later(-late, self._look_for_end)
            return
        table = ProcessTable()
        for plugin in self._plugins:
            self._loop.attempt(partial(plugin.look, table))
        me, first = os.getpid(), self._shared.by_pid
        strays = table.with_descendants([me]) - {me}
        if strays and late > _KILL_SECONDS:
            self._say(ERROR, f"Left behind, stuck in the kernel: pid {sorted(strays)}")
            self._loop.stop()
            return
        if late >= 0:
            table.kill(strays)
            self._chase_children()
        elif not self._strays_asked:
            self._strays_asked = True
            # A plugin's group has been asked with it.
            asked = {pid for pid in strays if table.by_pid[pid].group in first}
            table.send(strays - asked, signal.SIGTERM)
            table.send(strays - asked, signal.SIGCONT)

    def _chase_children(self) -> None:
        """Kill for a moment all that becomes a child of ours, as what forks and exits does."""
        until = time.monotonic() + CHASE_SECONDS
        while not self._reap_children() and time.monotonic() < until:
            for pid in own_children():
                os.kill(pid, signal.SIGKILL)

    def _finish(self) -> None:
        for last in (self._plugins.close, self._report_losses, self._control.close):
            self._loop.attempt(last)
        if self._last_words is not None:
            self._say(INFO, self._last_words)
        if self._instance is not None:
            self._instance.remove()
        self._writer.drain(_FLUSH_SECONDS)
        self._shared.files.drain(_FLUSH_SECONDS)
        self._tell_engine("B\n")

    # --- what happens --------------------------------------------------------

    def _reap(self) -> None:
        self._reap_children()
        if self._stopping:
            self._loop.call_soon(self._look_for_end)

    def _reap_children(self) -> bool:
        """Reap what has ended; True when no child is left, which means no descendant either."""
        self._read_exec_reports()
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
            plugin = self._shared.by_pid.pop(pid, None)
            if plugin is not None:
                ended.append((plugin, status))
            elif not self._planning.owns(pid):
                orphans = True
        looking = not self._stopping and (ended or (orphans and self._ending_some()))
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
            data, fds, _, _ = socket.recv_fds(self._link, 64, 4, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        for fd in fds:
            self._control.adopt(socket.socket(fileno=fd))
        if b"S" in data:
            self._stop("the engine closes")
        elif not data:
            # Closed on exec, and before a process that ends can be seen to have ended.
            self._loop.unwatch(self._link.fileno())
            if has_memory(self._launch.engine):
                self._stop(f"its engine (pid {self._launch.engine}) became another program")
            else:
                self._engine_ended()

    def _tell_engine(self, message: str) -> None:
        try:
            self._link.send(message.encode())
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
        """On a writer's thread: it has room again, or can write again."""
        self._loop.wake(self._go_on)

    def _go_on(self) -> None:
        self._log.room()
        self._report_losses()

    def _on_error(self, error: BaseException) -> None:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = "?"
        if trace is not None:
            code = trace.tb_frame.f_code
            where = f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} ({code.co_name})"
        self._say(ERROR, f"Internal error, supervision goes on: {error!r} at {where}")

    def _say(self, level: int, text: str) -> None:
        self._log.say(level, NAME, text)

    def _report_losses(self) -> None:
        for writer in (self._writer, self._shared.files):
            dropped, failed, reason = writer.collect_losses()
            if dropped:
                self._say(WARNING, f"{dropped:,} lines dropped: the log did not take them in time")
            if failed:
                self._say(WARNING, f"{failed:,} lines lost: cannot write the log: {reason}")

    def status(self) -> dict[str, Any]:
        """Return what runs, as the control socket tells it."""
        now = time.monotonic()
        if not self._about:
            self._about = about(self._launch)
        return {
            **self._about,
            "uptime": round(now - self._started, 3),
            "stopping": self._stopping,
            "plugins": [plugin.status(now) for plugin in self._plugins],
        }
