# SPDX-License-Identifier: Apache-2.0
"""``lmcache-plugins run``: start, watch and stop stand-in engines together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from lmcache_plugin_adapter.cli.console import (
    ExitStatus,
    fail,
    listed,
    print_line,
    print_problem,
    print_progress,
)
from lmcache_plugin_adapter.cli.inputs import (
    UsageError,
    engine_processes,
    read_config,
    read_server,
    require_work,
)
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.contract.version import __version__
from lmcache_plugin_adapter.hosts import standin
from lmcache_plugin_adapter.hosts.standin import Assignment
from lmcache_plugin_adapter.linux import procfs
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.linux.syscalls import become_subreaper
from lmcache_plugin_adapter.messages.wording import exit_text

if TYPE_CHECKING:
    from lmcache_plugin_adapter.cli.lmcache_yaml import StandInConfig
    from lmcache_plugin_adapter.hosts.lmcache_server.config import ServerConfig

KILL_INTERVAL = 0.1
"""Seconds between two searches for plugins to kill, after a second Ctrl-C."""

KILL_ALL_AFTER = 2.0
"""Seconds from the second Ctrl-C until the supervisors are killed, too."""

GIVE_UP_AFTER = 5.0
"""Seconds from there until the command reports the processes that survived SIGKILL and exits."""


@dataclass(frozen=True)
class StandIns:
    """The stand-in engines that the command line selects.

    Attributes:
        world_size: Workers of the engine (TP x PP).
        role: Run a stand-in for this process only.
        worker_id: Its rank, if given.
        worker_count: Number of workers that it reports, if given.
        server: Run a stand-in for LMCache's multiprocess server.
    """

    world_size: int
    role: Role | None = None
    worker_id: int | None = None
    worker_count: int | None = None
    server: bool = False

    @property
    def for_server(self) -> bool:
        """Whether the stand-in is a multiprocess server.

        Raises:
            UsageError: The options contradict each other.
        """
        if not self.server and self.role is not Role.SERVER:
            return False
        ids = (self.worker_id, self.worker_count)
        if self.role not in (None, Role.SERVER) or ids != (None, None):
            raise UsageError("a server is one process with the id 0: leave out the other options")
        return True

    def identities(self) -> list[ProcessIdentity]:
        """Return the identities of vLLM's stand-in engines.

        Raises:
            UsageError: The options contradict each other.
        """
        if self.role is None:
            for option, value in (
                ("--worker-id", self.worker_id),
                ("--worker-count", self.worker_count),
            ):
                if value is not None:
                    raise UsageError(f"{option} is for one process: name it with --role")
            return engine_processes(self.world_size)
        count = self.worker_count or self.world_size
        if self.role is not Role.WORKER:
            if self.worker_id is not None:
                raise UsageError(f"--worker-id is for --role worker: a {self.role.value} has none")
            return [ProcessIdentity(self.role, -1, count)]
        rank = self.worker_id or 0
        if rank >= count:
            raise UsageError(
                f"no worker {rank} among {count}: ranks are 0 to {count - 1} "
                "(increase --tp, --pp or --worker-count)"
            )
        return [ProcessIdentity(self.role, rank, count)]


def run(path: str | None, stand_ins: StandIns, seconds: float | None) -> int:
    """Run stand-in engines until a signal, the time limit or their end; return the exit status.

    Args:
        path: The configuration file, if given.
        stand_ins: The engines.
        seconds: Time limit, if given.
    """
    try:
        config: StandInConfig | ServerConfig
        if stand_ins.for_server:
            config = read_server(path)
            identities = [config.identity]
        else:
            identities = stand_ins.identities()
            config = read_config(path)
        require_work(config)
    except UsageError as error:
        return fail(error)
    print_line(f"lmcache-plugins {__version__}: stand-in engines for '{config.source}'")
    them = "it" if len(identities) == 1 else "them"
    print_line(f"Running {listed([who.label for who in identities])}; Ctrl-C stops {them}.")
    for problem in config.problems:
        print_problem(problem.level, problem.text)
    engines = Engines({**os.environ, "LMCACHE_CONFIG_FILE": os.path.abspath(config.source)})
    for identity in identities:
        engines.start(
            Assignment(
                identity, config.runtime_plugin_locations, config.extra_config, config.to_json()
            )
        )
    return engines.wait(seconds)


class Engines:
    """Stand-in engines and all processes that they start.

    This process becomes the reaper of orphans, so the supervisors become its
    children: when the last child has exited, no process is left.

    Args:
        environment: Environment of the stand-ins and so of the plugins.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._engines: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self._failed = False
        self._stopping = False
        self._forced = False
        self._loop = Loop(on_error=_raise)
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup and a shell's "&" set a signal to ignored before they start a command.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.on_signal(number, self._on_stop_signal)
        become_subreaper()

    def start(self, assignment: Assignment) -> None:
        """Start one stand-in in its own session, so that only this process receives Ctrl-C."""
        label = assignment.identity.label
        process = subprocess.Popen(
            [sys.executable, standin.__file__, label],
            stdin=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,
        )
        self._engines[process.pid] = (label, process)
        if process.stdin is not None:
            # A stand-in that has exited already is reported when it is reaped.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(assignment.to_line())
                process.stdin.flush()

    def wait(self, seconds: float | None) -> int:
        """Wait until all processes have exited; return the exit status.

        Args:
            seconds: Stop the engines after this time, if not None.
        """
        began = time.monotonic()
        if seconds is not None:
            self._loop.call_later(seconds, self._stop)
        self._loop.run()
        _, left = self._children()
        if left:
            names = listed([_describe(pid) for pid in sorted(left)])
            print_problem("error", f"cannot kill {names}: 'ps' shows what they wait for")
        else:
            print_progress(f"Stopped after {time.monotonic() - began:.1f} s; no process is left.")
        return ExitStatus.FAILED if left or self._failed else ExitStatus.OK

    def _on_stop_signal(self) -> None:
        if not self._stopping:
            print_progress("Stopping; a second Ctrl-C skips the grace period.")
            self._stop()
        elif not self._forced:
            self._forced = True
            self._loop.call_later(KILL_ALL_AFTER, self._kill_all)
            self._kill_plugins()

    def _stop(self) -> None:
        self._stopping = True
        for _, process in self._engines.values():
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()  # a stand-in stops at the end of its stdin

    def _kill_plugins(self) -> None:
        """Kill the plugins repeatedly; the supervisors, children of this process, then exit."""
        table, children = self._children()
        table.send(table.with_descendants(children) - children, signal.SIGKILL)
        self._loop.call_later(KILL_INTERVAL, self._kill_plugins)

    def _kill_all(self) -> None:
        """Kill all processes: the supervisors did not exit in time."""
        table, children = self._children()
        table.send(table.with_descendants(children), signal.SIGKILL)
        self._loop.call_later(GIVE_UP_AFTER, self._loop.stop)

    def _children(self) -> tuple[procfs.ProcessTable, set[int]]:
        """Return the process table, and the pids of stand-ins, supervisors and their orphans."""
        table = procfs.ProcessTable()
        own = os.getpid()
        return table, {pid for pid, process in table.by_pid.items() if process.parent == own}

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._loop.stop()  # no stand-in, supervisor or orphan is left
                return
            if pid == 0:
                return
            if pid in self._engines:
                self._on_engine_exit(pid, os.waitstatus_to_exitcode(status))

    def _on_engine_exit(self, pid: int, code: int) -> None:
        label, process = self._engines.pop(pid)
        process.returncode = code
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        if self._forced or (self._stopping and code == 0):
            return
        self._failed = True
        reason = f"{exit_text(code)}; its plugins stop too"
        print_problem("error", f"stand-in engine of {label} exited on its own: {reason}")


def _describe(pid: int) -> str:
    return f"process {pid} ({procfs.command_of(pid).decode(errors='backslashreplace')})"


def _raise(error: BaseException) -> NoReturn:
    raise error
