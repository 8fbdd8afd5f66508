"""``lmcache-plugins run``: stand-in engines, started, watched and stopped together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.contract.version import __version__
from lmcache_plugin_adapter.hosts import standin
from lmcache_plugin_adapter.hosts.standin import Assignment
from lmcache_plugin_adapter.linux import procfs
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.linux.syscalls import become_subreaper
from lmcache_plugin_adapter.messages.wording import exit_text

from .console import complain, fail, listed, say
from .inputs import UsageError, engine_processes, read_config, read_server, require_work

if TYPE_CHECKING:
    from lmcache_plugin_adapter.hosts.lmcache_server.config import ServerConfig

    from .lmcache_yaml import StandInConfig

HURRY_EVERY = 0.1
"""Seconds between two looks for plugins to kill, once a second Ctrl-C asked for haste."""

KILL_AFTER = 2.0
"""Seconds from there until everything is killed."""

GIVE_UP_AFTER = 5.0
"""Seconds from there until what SIGKILL did not end is named and left."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        config: Path of ``lmcache.yaml``, if given.
        world_size: Workers of the engine (TP x PP).
        role: Stand in for this process only.
        worker_id: Its rank, if given.
        worker_count: Workers it is told of, if given.
        seconds: Stop after this time, if given.
        server: Stand in for LMCache's multiprocess server.
    """

    config: str | None
    world_size: int
    role: Role | None = None
    worker_id: int | None = None
    worker_count: int | None = None
    seconds: float | None = None
    server: bool = False

    @property
    def for_server(self) -> bool:
        """Whether the stand-in is a multiprocess server.

        Raises:
            UsageError: The options contradict each other.
        """
        if not self.server and self.role is not Role.SERVER:
            return False
        if self.role not in (None, Role.SERVER) or (self.worker_id, self.worker_count) != (
            None,
            None,
        ):
            raise UsageError("a server is one process with the id 0: leave out the other options")
        return True

    def identities(self) -> list[ProcessIdentity]:
        """Return who the stand-in engines are, where they are vLLM's.

        Raises:
            UsageError: The options contradict each other.
        """
        if self.role is None:
            for option, value in (
                ("--worker-id", self.worker_id),
                ("--worker-count", self.worker_count),
            ):
                if value is not None:
                    raise UsageError(f"{option} is for one process: say which one with --role")
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
                "(--tp, --pp or --worker-count make more)"
            )
        return [ProcessIdentity(self.role, rank, count)]


def run(request: Request) -> int:
    """Run stand-in engines until a signal, the asked time or the end of all; return the status."""
    try:
        config: StandInConfig | ServerConfig
        if request.for_server:
            config = read_server(request.config)
            identities = [config.identity]
        else:
            identities = request.identities()
            config = read_config(request.config)
        require_work(config)
    except UsageError as error:
        return fail(error)
    say(f"lmcache-plugins {__version__}: stand-in engines for '{config.source}'")
    say(f"Running {listed([who.label for who in identities])}; Ctrl-C stops them.")
    for problem in config.problems:
        complain(problem.level, problem.text)
    engines = Engines({**os.environ, "LMCACHE_CONFIG_FILE": os.path.abspath(config.source)})
    for identity in identities:
        engines.start(
            Assignment(
                identity, config.runtime_plugin_locations, config.extra_config, config.to_json()
            )
        )
    return engines.run(request.seconds)


class Engines:
    """Stand-in engines, run until all are to stop, and all that they leave behind.

    This process becomes the reaper of orphans, so the supervisors become its
    children: it ends when the last of them has, and knows that nothing is left.

    Args:
        environment: What the stand-ins, and so the plugins, get.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._engines: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self._failed = False
        self._stopping = False
        self._hurrying = False
        self._loop = Loop(on_error=_raise)
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Ignored from the start is how nohup and a shell's "&" say: not for you.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.on_signal(number, self._stop_or_hurry)
        become_subreaper()

    def start(self, assignment: Assignment) -> None:
        """Start one stand-in, in a session of its own: Ctrl-C is for this process to handle."""
        label = assignment.identity.label
        process = subprocess.Popen(
            [sys.executable, standin.__file__, label],
            stdin=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,
        )
        self._engines[process.pid] = (label, process)
        if process.stdin is not None:
            # A stand-in that died already is reported when it is reaped.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(assignment.to_line())
                process.stdin.flush()

    def run(self, seconds: float | None) -> int:
        """Wait until everything has ended; return the exit status.

        Args:
            seconds: Stop then, if not None.
        """
        began = time.monotonic()
        if seconds is not None:
            self._loop.call_later(seconds, self._stop)
        self._loop.run()
        _, left = self._children()
        if left:
            names = listed([_describe(pid) for pid in sorted(left)])
            complain("error", f"cannot end {names}: see 'ps' for what they wait for")
        else:
            say(f"Stopped after {time.monotonic() - began:.1f} s; no process is left.")
        return 1 if left or self._failed else 0

    def _stop_or_hurry(self) -> None:
        if not self._stopping:
            say("Stopping; once more does not wait for the grace period.")
            self._stop()
        elif not self._hurrying:
            self._hurrying = True
            self._loop.call_later(KILL_AFTER, self._kill)
            self._hurry()

    def _stop(self) -> None:
        self._stopping = True
        for _, process in self._engines.values():
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()  # the end of its stdin tells a stand-in to stop

    def _hurry(self) -> None:
        """Kill the plugins, again and again; our children, the supervisors, see to the rest."""
        table, children = self._children()
        table.send(table.with_descendants(children) - children, signal.SIGKILL)
        self._loop.call_later(HURRY_EVERY, self._hurry)

    def _kill(self) -> None:
        """The supervisors, too, had their chance."""
        table, children = self._children()
        table.send(table.with_descendants(children), signal.SIGKILL)
        self._loop.call_later(GIVE_UP_AFTER, self._loop.stop)

    def _children(self) -> tuple[procfs.ProcessTable, set[int]]:
        """Return all processes, and those that are stand-ins, supervisors or orphans of theirs."""
        table = procfs.ProcessTable()
        own = os.getpid()
        return table, {pid for pid, process in table.by_pid.items() if process.parent == own}

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._loop.stop()  # neither stand-in nor supervisor nor orphan is left
                return
            if pid == 0:
                return
            if pid in self._engines:
                self._engine_ended(pid, os.waitstatus_to_exitcode(status))

    def _engine_ended(self, pid: int, code: int) -> None:
        label, process = self._engines.pop(pid)
        process.returncode = code
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        if self._hurrying or (self._stopping and code == 0):
            return
        self._failed = True
        complain(
            "error",
            f"stand-in engine of {label} ended by itself: {exit_text(code)}; its plugins stop too",
        )


def _describe(pid: int) -> str:
    return f"process {pid} ({procfs.command_of(pid).decode(errors='backslashreplace')})"


def _raise(error: BaseException) -> NoReturn:
    raise error
