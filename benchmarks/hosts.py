# SPDX-License-Identifier: Apache-2.0
"""Whoever runs plugins, behind one face: an engine with a launcher, or a process supervisor."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from .installation import ROOT
from .plugins import Plugins
from .processes import MARK, LateError, marked

OURS, LMCACHE = "ours", "lmcache"
LAUNCHERS = (OURS, LMCACHE)
PEERS = ("supervisord", "circus", "honcho")
ANSWER_SECONDS = 120.0
EVERYBODY = (*LAUNCHERS, *PEERS)


class Host(ABC):
    """Runs one set of plugins.

    Args:
        name: One of ``EVERYBODY``.
        directory: For its files; its own.
        mark: Value of the mark in the environment of all it starts.
    """

    def __init__(self, name: str, directory: Path, mark: str) -> None:
        self.name = name
        self.directory = directory
        self.mark = f"{mark}-{directory.name}"
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "log"
        """Where the plugins' output ends up."""
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def launch(self, plugins: Plugins, settings: dict[str, Any] | None = None) -> float:
        """Start the plugins; return when that began, monotonic.

        Args:
            plugins: What to run.
            settings: Of this launcher, where it is ours.
        """

    @abstractmethod
    def stop(self) -> tuple[float, float]:
        """Ask for a stop; return when that was, monotonic, and when whoever asked could go on."""

    def kill(self) -> float:
        """SIGKILL who runs the plugins (with a launcher: the engine); return when, monotonic."""
        if self.process is None:
            raise LateError(f"{self.name} does not run")
        now = time.monotonic()
        self.process.kill()
        self.process.wait()
        return now

    def overhead(self, plugins: list[int]) -> list[int]:
        """Return its processes, save the engine and the plugins."""
        engine = self.process.pid if self.process and self.name in LAUNCHERS else 0
        return sorted(marked(self.mark) - set(plugins) - {engine})

    def environment(self) -> dict[str, str]:
        """What it runs in."""
        # Its commands first, as in an activated environment: honcho's shell wants it so.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {
            **os.environ,
            "PATH": path,
            MARK: self.mark,
            "LMCACHE_PLUGINS_RUNTIME_DIR": str(self.directory / "run"),
        }

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start its process, with its output in the log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stderr=log,
                env=self.environment(),
                cwd=self.directory,
                start_new_session=True,
                **{"stdin": subprocess.DEVNULL, "stdout": log, **options},
            )
        return self.process


class EngineHost(Host):
    """A Python process that stands for the engine, with one of the launchers or both."""

    def __init__(self, name: str, directory: Path, mark: str) -> None:
        super().__init__(name, directory, mark)
        command = [sys.executable, str(Path(__file__).with_name("engine.py"))]
        self._process = self.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.do("load", who=name)

    def environment(self) -> dict[str, str]:
        """What it runs in: this checkout's code."""
        return {**super().environment(), "PYTHONPATH": str(ROOT)}

    def begin(self, command: str, **arguments: Any) -> None:
        """Have the engine do something that is not waited for yet."""
        if self._process.stdin is None:
            raise LateError("the engine has no stdin")
        self._process.stdin.write(json.dumps([command, arguments]).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for what comes of it.

        Raises:
            LateError: The engine ended, or does not answer.
        """
        stdout = self._process.stdout
        if stdout is None or not select.select([stdout], [], [], ANSWER_SECONDS)[0]:
            raise LateError(f"the engine does not answer within {ANSWER_SECONDS:g} s")
        line = stdout.readline()
        if not line:
            raise LateError(f"the engine ended: {self.log.read_text(errors='replace')[-2000:]}")
        return json.loads(line)

    def do(self, command: str, **arguments: Any) -> Any:
        """Have the engine do something."""
        self.begin(command, **arguments)
        return self.answer()

    def launch(self, plugins: Plugins, settings: dict[str, Any] | None = None) -> float:
        """See :class:`Host`."""
        return self.blocked(plugins, settings)[0]

    def blocked(
        self, plugins: Plugins, settings: dict[str, Any] | None = None, who: str = ""
    ) -> tuple[float, float]:
        """Launch; return when it began and how long the engine was blocked, in seconds."""
        said = self.do(
            "launch",
            who=who or self.name,
            directory=str(plugins.directory),
            settings=settings or {},
        )
        return said["began"], said["took"]

    def stop(self, who: str = "") -> tuple[float, float]:
        """See :class:`Host`."""
        said = self.do("stop", who=who or self.name)
        return said["began"], said["began"] + said["took"]


class PeerHost(Host):
    """A process supervisor, started with a configuration that names all plugins."""

    def launch(self, plugins: Plugins, settings: dict[str, Any] | None = None) -> float:
        """See :class:`Host`; it counts from the start of the peer itself."""
        del settings
        command = self._configured(plugins)
        began = time.monotonic()
        self.start(command)
        return began

    def stop(self) -> tuple[float, float]:
        """See :class:`Host`."""
        if self.process is None:
            raise LateError(f"{self.name} does not run")
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return began, began

    def _configured(self, plugins: Plugins) -> list[str]:
        """Write its configuration; return its command."""
        program = str(Path(sys.executable).parent / self.name)
        if self.name == "supervisord":
            path = self._write("supervisord.conf", self._supervisord(plugins))
            return [program, "-n", "-c", path]
        if self.name == "circus":
            path = self._write("circus.ini", self._circus(plugins))
            return [program + "d", path]
        lines = [f"{file.stem}: exec {file}" for file in plugins.files]
        return [program, "-f", self._write("Procfile", "\n".join(lines) + "\n"), "start"]

    def _write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def _supervisord(self, plugins: Plugins) -> str:
        text = (
            f"[supervisord]\nlogfile={self.directory}/supervisord.log\n"
            f"pidfile={self.directory}/pid\nminfds=8192\n"
        )
        names = ",".join(file.stem for file in plugins.files)
        # In one group: it stops one group after another, each in about 0.3 s.
        text += f"[group:plugins]\nprograms={names}\n"
        for file in plugins.files:
            text += (
                f"[program:{file.stem}]\ncommand={file}\nredirect_stderr=true\n"
                f"stdout_logfile={self.log}\nstdout_logfile_maxbytes=0\n"
            )
        return text

    def _circus(self, plugins: Plugins) -> str:
        text = (
            f"[circus]\nendpoint=ipc://{self.directory}/endpoint\n"
            f"pubsub_endpoint=ipc://{self.directory}/pubsub\n"
        )
        for file in plugins.files:
            text += f"[watcher:{file.stem}]\ncmd={file}\ncopy_env=True\n"
            for stream in ("stdout_stream", "stderr_stream"):
                text += f"{stream}.class=FileStream\n{stream}.filename={self.log}\n"
        return text


def make(name: str, directory: Path, mark: str) -> Host:
    """Return the host of this name, ready to launch."""
    kind = EngineHost if name in LAUNCHERS else PeerHost
    return kind(name, directory, mark)
