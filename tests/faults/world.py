# SPDX-License-Identifier: Apache-2.0
"""Where a fault happens: real engines, real plugins, and what /proc and the plugins say."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import MARK, Engine, alive, gone, wait_until

GRACE = 0.5
"""``stop_grace`` of these plugins, in seconds."""

ALLOWANCE = 1.5
"""What a shared machine may add to a bound, in seconds."""

PATIENCE = 20.0
"""How long something is waited for that is promised, but not by when, in seconds."""

SETTINGS = {
    "stop_grace": GRACE,
    "backoff": {"initial": 0.05, "max": 0.2, "reset_after": 30},
    "nice": 0,  # as important as the tests: beside busy processes, nice 19 runs seldom
}

PRELUDE = """\
import os, signal, sys, time
def note(word):
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{word} {os.getpid()}\\n")
def stay():
    while True:
        signal.pause()
def goodbye(*_):
    note("term")
    os._exit(0)
def polite():
    signal.signal(signal.SIGTERM, goodbye)
def deaf():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
"""

POLITE = "polite(); note('up'); stay()"
STUBBORN = "deaf(); note('up'); stay()"


@dataclass(frozen=True)
class UnderTest:
    """A launcher that the faults are tried on.

    Attributes:
        name: As the command line names it.
        module: Where its ``RuntimePluginLauncher`` is.
        python: The engine's interpreter.
    """

    name: str
    module: str
    python: str

    @property
    def ours(self) -> bool:
        """Whether it is this project's."""
        return self.name == "ours"


MODULES = {
    "ours": "lmcache_plugin_adapter",
    "lmcache": "lmcache.v1.plugin.runtime_plugin_launcher",
}


class FaultEngine(Engine):
    """An engine that can also be told what it will not answer."""

    def tell(self, python: str) -> None:
        """Have the engine run Python, and do not wait: it may end by that."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(python).encode() + b"\n")
        self.process.stdin.flush()


class World:
    """One directory with plugins, engines and what was noted.

    Args:
        directory: Of this case alone.
        launcher: What is tried.
    """

    def __init__(self, directory: Path, launcher: UnderTest) -> None:
        self.directory = directory
        self.launcher = launcher
        self.plugins = directory / "plugins"
        self.plugins.mkdir()
        self.notes = directory / "notes"
        self.engines: list[FaultEngine] = []
        self.detail = ""
        """What was measured, for the line of the case."""

    # --- before -------------------------------------------------------------

    def file(self, name: str, text: str | bytes, mode: int = 0o755) -> Path:
        """Write a plugin, or what stands beside one."""
        path = self.plugins / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        return path

    def python(self, name: str, body: str = POLITE) -> Path:
        """Write a plugin in Python that can note what happens to it."""
        return self.file(name, PRELUDE + body + "\n")

    def engine(
        self,
        settings: dict[str, Any] | None = None,
        locations: object = None,
        extra: dict[str, Any] | None = None,
        **options: Any,
    ) -> FaultEngine:
        """Start an engine; it launches unless ``launch=False`` is given."""
        python = options.setdefault("python", self.launcher.python)
        path = f"{os.path.dirname(python)}:{os.environ['PATH']}"
        options["env"] = {
            "NOTES": str(self.notes),
            "LAUNCHER_UNDER_TEST": self.launcher.module,
            "PATH": path,
            **options.get("env", {}),
        }
        config = {
            "runtime_plugin_locations": [str(self.plugins)] if locations is None else locations,
            "extra_config": {"runtime_plugins": {**SETTINGS, **(settings or {})}},
            **(extra or {}),
        }
        options.setdefault("worker_id", len(self.engines))
        options.setdefault("start_new_session", True)
        one = FaultEngine(self.directory, config, **options)
        self.engines.append(one)
        return one

    # --- what is to be seen -------------------------------------------------

    def noted(self, word: str) -> list[int]:
        """Return the pids that noted ``word``."""
        if not self.notes.exists():
            return []
        return [
            int(pid) for pid in re.findall(rf"^{word} (\d+)$", self.notes.read_text(), re.MULTILINE)
        ]

    def wait_noted(self, word: str, count: int = 1, seconds: float = PATIENCE) -> list[int]:
        """Wait until ``count`` notes of ``word`` are there and return their pids."""
        self.wait(lambda: len(self.noted(word)) >= count, f"{count} x '{word}' noted", seconds)
        return self.noted(word)

    def up(self, count: int = 1, **options: Any) -> tuple[FaultEngine, list[int]]:
        """Start an engine and wait until ``count`` processes of plugins are up."""
        before = len(self.noted("up"))
        one = self.engine(**options)
        return one, self.wait_noted("up", before + count)[before:]

    def processes(self) -> list[int]:
        """Return all processes of plugins: they carry the contract's variables."""
        return self._with(b"LMCACHE_RUNTIME_PLUGIN_WORKER_ID=")

    def everything(self) -> list[int]:
        """Return all processes of this case: engines, supervisors, plugins."""
        return self._with(b"")

    def _with(self, variable: bytes) -> list[int]:
        mark = f"{MARK}={self.directory}".encode()
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                environment = b"\0" + Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:
                continue
            if b"\0" + mark + b"\0" in environment and b"\0" + variable in environment:
                pid = int(entry)
                if alive(pid):
                    found.append(pid)
        return found

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Wait for ``condition``; the failure names ``what``."""
        return wait_until(condition, seconds, what)

    def wait_logged(self, engine: FaultEngine, *texts: str, seconds: float = PATIENCE) -> None:
        """Wait until all ``texts`` are in the log: it is written a moment later than things are."""
        for text in texts:
            self.wait(lambda text=text: text in engine.log(), f"'{text}' in the log", seconds)

    def supervisor_of(self, engine: FaultEngine) -> int:
        """Return the process that is neither engine nor plugin, nor a search of the supervisor."""

        def found() -> list[int]:
            everything = self.everything()  # first: what becomes a plugin meanwhile is one then
            known = {engine.pid, *self.processes()}
            return [pid for pid in everything if pid not in known]

        def one() -> int:
            now = found()
            return now[0] if len(now) == 1 and found() == now else 0

        return int(self.wait(one, "one supervisor"))

    def expect_gone(
        self, pids: Iterable[int], bound: float, since: float, what: str = "plugins"
    ) -> float:
        """Check that all of ``pids`` have ended ``bound`` seconds after ``since``."""
        left = set(pids)
        deadline = since + bound + ALLOWANCE
        while True:
            left = {pid for pid in left if not gone(pid)}
            now = time.monotonic()
            if not left:
                break
            if now > deadline:
                raise AssertionError(f"{len(left)} of the {what} alive {now - since:.1f} s later")
            time.sleep(0.002)
        self.measured(f"gone after {now - since:.2f} s")
        return now - since

    def expect_nothing(self, seconds: float) -> None:
        """Check that within ``seconds`` no process of a plugin, and no supervisor, is left.

        As in :meth:`expect_gone`, a shared machine may add something to them.
        """
        engines = {one.pid for one in self.engines if one.process.poll() is None}

        def none() -> bool:
            return not set(self.everything()) - engines

        begun = time.monotonic()
        deadline = begun + seconds + ALLOWANCE
        while not (none() and none()):
            if time.monotonic() > deadline:
                count = len(set(self.everything()) - engines)
                raise AssertionError(
                    f"{count} processes left {time.monotonic() - begun:.1f} s later"
                )
            time.sleep(0.01)

    def measured(self, text: str) -> None:
        """Show ``text`` in the line of this case."""
        self.detail = f"{self.detail}; {text}" if self.detail else text

    # --- afterwards -----------------------------------------------------------

    def leave(self) -> list[str]:
        """End what still runs; return what was left behind, which should be nothing."""
        for one in self.engines:
            if one.process.poll() is None:
                try:
                    os.kill(one.pid, signal.SIGCONT)
                    one.close()
                except Exception:
                    one.process.kill()
                    one.process.wait(5)
            for pipe in (one.process.stdin, one.process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:
                        continue
        left = []
        try:
            self.expect_nothing(GRACE + 5)
        except AssertionError as problem:
            left.append(str(problem))
            for _ in range(20):
                for pid in self.everything():
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                time.sleep(0.02)
                if not self.everything():
                    break
        run = self.directory / "run"
        files = sorted(os.listdir(run)) if run.exists() else []
        if files:
            left.append(f"files left: {files}, engines {[one.pid for one in self.engines]}")
        return left

    def log(self) -> str:
        """Return what all engines logged."""
        return "\n".join(one.log() for one in self.engines)


def default_python(name: str) -> str:
    """Return the interpreter in which a launcher is tried if none is named."""
    if name == "ours":
        return sys.executable
    here = Path(__file__).parents[2] / ".venv-lmcache" / "bin" / "python"
    return str(here)
