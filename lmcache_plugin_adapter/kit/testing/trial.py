# SPDX-License-Identifier: Apache-2.0
"""A plugin under the real supervisor of a stand-in engine, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

from lmcache_plugin_adapter.contract.runtime_dir import DIRECTORY_VARIABLE
from lmcache_plugin_adapter.hosts import standin
from lmcache_plugin_adapter.hosts.standin import Assignment
from lmcache_plugin_adapter.linux.procfs import environment_of, read_process, variable

from .engine_log import Line, last_exit, last_pid, read_lines, supervisors
from .setup import configuration, engine_process, environment, locate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Line", "StandIn", "Trial"]

T = TypeVar("T")

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
"""Seconds beyond the grace period after which everything has exited, on a busy machine too."""

_LOOK_SECONDS = 0.01


class StandIn:
    """A process that stands in for the engine: it launches plugins and waits."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def kill(self) -> None:
        """Kill it with SIGKILL, as the kernel does when memory runs out."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def signal(self, number: int) -> None:
        """Send it a signal (SIGSTOP imitates a stuck engine, SIGCONT wakes it)."""
        self._process.send_signal(number)


class Trial:
    """A plugin under test.

    Args:
        plugin: The plugin's file; or ``pkg:NAME`` for an installed plugin; or
            ``module:function``, for which a file is written that calls it.
        directory: The engine's directory for its files; its working directory, too.
        role: ``scheduler``, ``worker`` or ``server``; None: the role of the plugin's name,
            and of ``all`` the scheduler.
        worker_id: The worker's rank; default: the one in the plugin's name, else 0.
        worker_count: Workers of the replica, at least as many as ``worker_id`` needs.
        config: LMCache's configuration beyond its defaults.
        settings: The plugin's own section.
        env: Variables of the engine, and so of the plugin; None removes one.
        stop_grace: Seconds between SIGTERM and SIGKILL.
        restart: When the supervisor restarts it: ``never``, ``on-failure`` or ``always``.
        name: The plugin's name if a file is written for it; None: from role and module.
    """

    def __init__(
        self,
        plugin: str | Path,
        *,
        directory: Path,
        role: str | None = None,
        worker_id: int = -1,
        worker_count: int = 1,
        config: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        env: Mapping[str, str | None] | None = None,
        stop_grace: float = 5,
        restart: str = "never",
        name: str | None = None,
    ) -> None:
        self._directory = directory
        self._grace = stop_grace
        self._restart = restart
        directory.mkdir(parents=True)
        location, self.name = locate(str(plugin), directory, role, name)
        self._identity = engine_process(location, role, worker_id, worker_count)
        self._log = directory / "engine.log"
        # On a busy machine, nice 19 would let the plugin wait longer than its test does.
        general = {"rate_limit": "off", "max_line_bytes": 65_536, "nice": 0}
        general.update(stop_grace=stop_grace, restart=restart)
        own = {self.name: {"settings": settings}} if settings is not None else {}
        self._config = configuration(config or {}, location, general, own)
        self._environment = environment(env or {}, directory)

    def begin(self) -> Trial:
        """Start the engine, and wait until the plugin has started.

        Raises:
            AssertionError: The plugin has not started; the text has the log.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, standin.__file__, self._identity.label],
                stdin=subprocess.PIPE,
                stderr=log,
                stdout=log,
                env=self._environment,
                cwd=self._directory,
                start_new_session=True,
            )
        self.engine = StandIn(self._process)
        assignment = Assignment(
            self._identity,
            self._config["runtime_plugin_locations"],
            self._config["extra_config"],
            json.dumps(self._config),
        )
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(assignment.to_line())
                self._process.stdin.flush()
        self._await(lambda: self.pid, _START_SECONDS, f"plugin {self.name!r} started")
        return self

    @property
    def log(self) -> str:
        """The engine's log so far."""
        return self._log.read_bytes().decode(errors="backslashreplace")

    @property
    def lines(self) -> list[Line]:
        """The lines that the plugin has printed so far."""
        return read_lines(self.log, self.name, supervisor=False)

    @property
    def reports(self) -> list[Line]:
        """The supervisor's lines about the plugin so far: starts, exits, restarts."""
        return read_lines(self.log, self.name, supervisor=True)

    @property
    def pid(self) -> int | None:
        """The plugin's process, after the last start."""
        return last_pid(self.reports)

    @property
    def returncode(self) -> int | None:
        """The plugin's exit code, or minus the number of a signal; None: it runs."""
        return last_exit(self.reports)

    def wait_for(
        self, text: str | re.Pattern[str], timeout: float = 30.0, *, since: int = 0
    ) -> Line:
        """Wait for a line of the plugin and return it.

        Args:
            text: A part of the line, or a pattern to search in it.
            timeout: The longest wait, in seconds.
            since: The number of lines to skip, such as ``len(plugin.lines)``.

        Raises:
            AssertionError: There is no such line, or the plugin has exited; the text has the log.
        """
        wanted = re.compile(re.escape(text)) if isinstance(text, str) else text

        def look() -> Line | None:
            return next((line for line in self.lines[since:] if wanted.search(line.text)), None)

        what = f"line {(text if isinstance(text, str) else text.pattern)!r}"
        return self._await(look, timeout, what, while_running=True)

    def wait_exit(self, timeout: float = 30.0) -> int:
        """Wait until the plugin has exited, on its own or after ``engine.kill()``.

        Returns:
            As :attr:`returncode`.

        Raises:
            AssertionError: The plugin still runs; the text has the log.
        """

        def look() -> tuple[int] | None:
            code = self.returncode
            return None if code is None else (code,)  # 0 is an exit code, too

        return self._await(look, timeout, "its end")[0]

    def stop(self) -> int | None:
        """Close the engine in order: SIGTERM to the plugin, its grace period, SIGKILL.

        Returns:
            As :attr:`returncode`.

        Raises:
            AssertionError: A process still runs after the grace period.
        """
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        seconds = self._grace + _STOP_SECONDS
        try:
            self.engine.signal(signal.SIGCONT)
            self._process.wait(seconds)
            self._await(lambda: not self._supervisors(), seconds, "the supervisor's end")
        except (subprocess.TimeoutExpired, AssertionError) as late:
            self._process.kill()
            self._process.wait()
            for pid in self._supervisors():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)  # its plugins go with it
            raise AssertionError(f"still running {seconds:g} s after SIGTERM: {late}") from None
        return self.returncode

    def _supervisors(self) -> set[int]:
        """Return the supervisors that still run."""
        directory = self._environment.get(DIRECTORY_VARIABLE, "").encode()
        return {pid for pid in supervisors(self.log) if _runs(pid, directory)}

    def _await(
        self, look: Callable[[], T | None], seconds: float, what: str, while_running: bool = False
    ) -> T:
        deadline = time.monotonic() + seconds
        while True:
            over = while_running and self._restart == "never" and self.returncode is not None
            found = look()
            if found:
                return found
            if over:
                raise AssertionError(
                    f"the plugin has exited ({self.returncode}) without {what}\n{self.log}"
                )
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}\n{self.log}")
            time.sleep(_LOOK_SECONDS)


def _runs(pid: int, directory: bytes) -> bool:
    """Return whether a process with this runtime directory runs, not another one with its pid."""
    process = read_process(pid)
    alive = process is not None and process.state not in "ZX"
    return alive and variable(environment_of(pid), DIRECTORY_VARIABLE.encode()) == directory
