# SPDX-License-Identifier: Apache-2.0
"""Start, watch and stop stand-in engines together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from lmcache_plugin_adapter.cli.console import ExitStatus, listed, print_problem, print_progress
from lmcache_plugin_adapter.hosts import standin
from lmcache_plugin_adapter.linux import procfs
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.linux.syscalls import become_subreaper
from lmcache_plugin_adapter.messages.wording import exit_text

from .stand_in_log import StandInLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.hosts.standin import Assignment

KILL_INTERVAL = 0.1
"""Seconds between two searches for plugins to kill, after a second Ctrl-C."""

KILL_ALL_AFTER = 2.0
"""Seconds from the second Ctrl-C until the supervisors are killed, too."""

GIVE_UP_AFTER = 5.0
"""Seconds from there until the command reports the processes that survived SIGKILL and exits."""


class Engines:
    """Stand-in engines and all processes that they start.

    This process becomes the reaper of orphans, so the supervisors become its
    children: when the last child has exited, no process is left.

    Args:
        environment: Environment of the stand-ins and so of the plugins.
        shown: Show their log lines in the short form, aligned for these
            processes; None: the stand-ins write to stderr themselves.
    """

    def __init__(self, environment: dict[str, str], shown: Sequence[str] | None = None) -> None:
        self._environment = environment
        self._engines: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self._failed = False
        self._stopping = False
        self._forced = False
        self._loop = Loop(on_error=_raise)
        self._log = None if shown is None else StandInLog(self._loop, shown)
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
            stderr=None if self._log is None else self._log.writer,
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
        if self._log is not None:
            self._log.close()
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
