"""A plugin under the real supervisor of a stand-in engine, seen from a test."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.contract.runtime_dir import DIRECTORY_VARIABLE
from lmcache_plugin_adapter.hosts import standin
from lmcache_plugin_adapter.hosts.standin import Assignment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

_RECORD = re.compile(
    r"\[[^\]]*\] LMCache (?P<level>[A-Z]+): \[(?P<name>.*?)\] (?P<text>.*) "
    r"\((?P<file>[^()]*):(?P<pid>\d+):lmcache_plugin_adapter\.[\w.]+\)",
    re.DOTALL,
)
_SUPERVISOR = "supervisor.py"
_STARTED = re.compile(r"Started, pid (\d+)")
_ENDED = re.compile(r"(?:exited with code (?P<code>\d+)|killed by (?P<signal>\w+))", re.IGNORECASE)
_ENTRY = re.compile(r"[\w.]+:\w+")
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
"""Beyond the grace period; by then all is gone, on a busy machine too."""

_LOOK_SECONDS = 0.01


class Line(NamedTuple):
    """A line that a plugin has printed."""

    level: str
    """``debug``, ``info``, ``warning``, ``error`` or ``critical``."""
    text: str
    """Without the mark of its level."""


class StandIn:
    """A process in the place of the engine: it launches plugins and waits."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def kill(self) -> None:
        """Kill it, as the kernel does when memory is out: SIGKILL."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def signal(self, number: int) -> None:
        """Send it a signal (SIGSTOP makes a stuck engine of it, SIGCONT a live one again)."""
        self._process.send_signal(number)


class Trial:
    """A plugin that is tried.

    Args:
        plugin: Its file; or ``pkg:NAME``, an installed plugin; or
            ``module:function``, for which a file is written that calls it.
        directory: For what the engine needs; its working directory, too.
        role: ``scheduler``, ``worker`` or ``server``.
        worker_id: The worker's rank; 0 where a worker is not given one.
        worker_count: Workers of the replica; as many as ``worker_id`` needs at least.
        config: LMCache's configuration beyond its defaults.
        settings: The plugin's own section.
        env: Variables of the engine, and so of the plugin; None removes one.
        stop_grace: Seconds between SIGTERM and SIGKILL.
        restart: When the supervisor starts it again: ``never``, ``on-failure`` or ``always``.
        name: The plugin's name where a file is written for it; None: from role and module.
    """

    def __init__(
        self,
        plugin: str | Path,
        *,
        directory: Path,
        role: str = "scheduler",
        worker_id: int = -1,
        worker_count: int = 1,
        config: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        env: Mapping[str, str | None] | None = None,
        stop_grace: float = 5,
        restart: str = "never",
        name: str | None = None,
    ) -> None:
        who = Role.read(role)
        if who is not Role.SCHEDULER:
            worker_id = max(worker_id, 0)
        self._identity = ProcessIdentity(who, worker_id, max(worker_count, worker_id + 1))
        self._directory = directory
        self._grace = stop_grace
        self._restart = restart
        directory.mkdir(parents=True)
        self._log = directory / "engine.log"
        location, self.name = _locate(str(plugin), directory, role, name)
        self._config = _configuration(
            config or {},
            location,
            {
                "rate_limit": "off",
                "max_line_bytes": 65_536,
                "stop_grace": stop_grace,
                "restart": restart,
            },
            {self.name: {"settings": settings}} if settings is not None else {},
        )
        self._environment = _environment(env or {}, directory)

    def begin(self) -> Trial:
        """Start the engine, and wait until the plugin has been started.

        Raises:
            AssertionError: It is not; the text has the log.
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
        """The engine's log as it is."""
        return self._log.read_bytes().decode(errors="backslashreplace")

    @property
    def lines(self) -> list[Line]:
        """What the plugin has printed so far."""
        return [
            Line(found["level"].lower(), found["text"])
            for found in self._records()
            if found["file"] != _SUPERVISOR
        ]

    @property
    def reports(self) -> list[Line]:
        """What the supervisor has said of the plugin so far: starts, ends, restarts."""
        return [
            Line(found["level"].lower(), found["text"])
            for found in self._records()
            if found["file"] == _SUPERVISOR
        ]

    @property
    def pid(self) -> int | None:
        """The plugin's process, the last one that was started."""
        found = [match[1] for line in self.reports if (match := _STARTED.match(line.text))]
        return int(found[-1]) if found else None

    @property
    def returncode(self) -> int | None:
        """How the plugin ended: its exit code, or minus the signal's number; None: it runs."""
        code: int | None = None
        for line in self.reports:
            if _STARTED.match(line.text):
                code = None
            elif match := _ENDED.match(line.text.removeprefix("Stopped: ")):
                code = int(match["code"]) if match["code"] else -signal.Signals[match["signal"]]
        return code

    def wait_for(
        self, text: str | re.Pattern[str], timeout: float = 10.0, *, since: int = 0
    ) -> Line:
        """Wait for a line of the plugin and return it.

        Args:
            text: What is in it, or what is found in it.
            timeout: Seconds to wait at most.
            since: Lines that are passed over, such as ``len(plugin.lines)``.

        Raises:
            AssertionError: There was none, or the plugin has ended; the text has the log.
        """
        wanted = re.compile(re.escape(text)) if isinstance(text, str) else text

        def look() -> Line | None:
            return next((line for line in self.lines[since:] if wanted.search(line.text)), None)

        what = f"line {(text if isinstance(text, str) else text.pattern)!r}"
        return self._await(look, timeout, what, while_running=True)

    def wait_exit(self, timeout: float = 10.0) -> int:
        """Wait until the plugin has ended, by itself or after ``engine.kill()``.

        Returns:
            As :attr:`returncode`.

        Raises:
            AssertionError: It goes on; the text has the log.
        """

        def look() -> tuple[int] | None:
            code = self.returncode
            return None if code is None else (code,)  # 0 is an end, too

        return self._await(look, timeout, "its end")[0]

    def stop(self) -> int | None:
        """Let the engine end in order: SIGTERM to the plugin, its grace period, SIGKILL.

        Returns:
            As :attr:`returncode`.

        Raises:
            AssertionError: Something is left of it after the grace period.
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

    # --- inside -------------------------------------------------------------

    def _records(self) -> list[re.Match[str]]:
        complete, _, _ = self.log.rpartition("\n")
        found = (_RECORD.fullmatch(line) for line in complete.split("\n"))
        return [match for match in found if match is not None and match["name"] == self.name]

    def _supervisors(self) -> set[int]:
        """Return the supervisors that still run, by what they said."""
        pids = {int(pid) for pid in re.findall(r"\(supervisor\.py:(\d+):", self.log)}
        directory = self._environment.get(DIRECTORY_VARIABLE, "")
        return {pid for pid in pids if _runs(pid, directory)}

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
                raise AssertionError(f"it has ended ({self.returncode}) without {what}\n{self.log}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}\n{self.log}")
            time.sleep(_LOOK_SECONDS)


def _locate(plugin: str, directory: Path, role: str, name: str | None) -> tuple[str, str]:
    """Return location and name of a plugin; write its file if it is a function."""
    if plugin.startswith("pkg:"):
        return plugin, plugin.removeprefix("pkg:")
    path = Path(plugin)
    if _ENTRY.fullmatch(plugin) and not path.exists():
        module, _, function = plugin.partition(":")
        name = name or f"{role.lower()}_{module.rpartition('.')[2]}"
        path = directory / "plugins" / f"{name}.py"
        path.parent.mkdir()
        path.write_text(
            f"import sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
        )
        path.chmod(0o755)
    if not path.is_file():
        raise FileNotFoundError(f"no such plugin: {plugin!r}")
    return str(path.absolute()), path.stem


def _configuration(
    config: Mapping[str, Any], location: str, general: Mapping[str, Any], plugins: Mapping[str, Any]
) -> dict[str, Any]:
    """Return LMCache's configuration with the plugin in it; what the test says wins."""
    extra = dict(config.get("extra_config") or {})
    section = {**general, **(extra.get("runtime_plugins") or {})}
    own = dict(section.get("plugins") or {})
    for name, values in plugins.items():
        own[name] = {**(own.get(name) or {}), **values}
    section["plugins"] = own
    extra["runtime_plugins"] = section
    return {**config, "runtime_plugin_locations": [location], "extra_config": extra}


def _environment(env: Mapping[str, str | None], directory: Path) -> dict[str, str]:
    """Return this process's environment, as far as an engine has it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        # A level would keep lines out of the log.
        if not name.startswith("LMCACHE_") and name != "NO_COLOR"
    }
    kept[DIRECTORY_VARIABLE] = str(directory / "run")
    for name, value in env.items():
        kept.pop(name, None)
        if value is not None:
            kept[name] = value
    return kept


def _runs(pid: int, directory: str) -> bool:
    """Tell whether a process runs that has this runtime directory, and not another of its pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    state = stat[stat.rfind(b")") + 2 :][:1]
    return state not in (b"Z", b"X") and f"{DIRECTORY_VARIABLE}={directory}".encode() in variables
