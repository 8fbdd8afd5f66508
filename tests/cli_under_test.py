# SPDX-License-Identifier: Apache-2.0
"""The command line as tests use it: a real process, known by a mark that all it starts inherit."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).resolve().parents[1]
COMMAND = (sys.executable, "-m", "lmcache_plugin_adapter")
MARK = "CLI_UNDER_TEST"


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without LMCache's variables, with the checkout on top."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LMCACHE_")}
    for name in ("COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS", "NO_COLOR", "PY_COLORS"):
        kept.pop(name, None)
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, **more}


def command(
    *arguments: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=60,
        check=False,
    )


def until(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Wait for ``condition``; fail with ``what`` when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def state_of(pid: int) -> str:
    """Return the state letter of a process, ``Z`` also for one that is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return "Z"
    return stat[stat.rfind(b")") + 2 :][:1].decode()


class Running:
    """A running ``lmcache-plugins run`` in a session of its own, as in a terminal.

    Args:
        directory: Where its output is kept.
        arguments: After ``run``.
        cwd: The working directory.
        env: More variables.
        prefix: A program and its arguments that starts the command.
        program: The command itself.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str | Path,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        program: tuple[str, ...] = COMMAND,
    ) -> None:
        self.mark = uuid.uuid4().hex
        self._out = directory / "stdout"
        self._err = directory / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*prefix, *program, "run", *map(str, arguments)],
                cwd=cwd,
                env=environment(**{MARK: self.mark}, **(env or {})),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        """What it printed so far."""
        return self._out.read_text(errors="surrogateescape")

    @property
    def log(self) -> str:
        """What it and the plugins logged so far."""
        return self._err.read_text(errors="surrogateescape")

    def until_logged(self, text: str, times: int = 1) -> None:
        """Wait until ``text`` stands in the log so many times."""
        self.until_logs(lambda log: log.count(text) >= times, f"{times} x {text!r}")

    def until_logs(self, condition: Callable[[str], object], what: str) -> None:
        """Wait until the log is as it should be; fail when the command ends before."""
        deadline = time.monotonic() + 30
        while not condition(self.log):
            ended = self.process.poll() is not None and not condition(self.log)
            assert not ended, f"ended without {what}:\n{self.log}"
            assert time.monotonic() < deadline, f"no {what} in:\n{self.log}"
            time.sleep(0.01)

    def processes(self) -> dict[int, str]:
        """Return the command lines of all living processes that carry the mark, by pid."""
        found = {}
        mark = f"{MARK}={self.mark}".encode()
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and mark in Path(f"/proc/{entry}/environ").read_bytes():
                    line = Path(f"/proc/{entry}/cmdline").read_bytes()
                    found[int(entry)] = line.replace(b"\0", b" ").decode(errors="replace")
        return {pid: line for pid, line in found.items() if state_of(pid) != "Z"}

    def stop(self) -> int:
        """Send what Ctrl-C sends to a terminal's foreground group; return the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.wait()

    def wait(self, seconds: float = 30) -> int:
        """Wait for its end; return the exit status."""
        return self.process.wait(seconds)

    def until_nothing_is_left(self, seconds: float = 10) -> None:
        """Wait until no process carries the mark."""
        until(lambda: not self.processes(), f"no process left of {self.processes()}", seconds)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in [self.process.pid, *self.processes()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


class OnTerminal(Running):
    """A running ``lmcache-plugins`` whose three streams are a terminal of its own.

    Args:
        words: The command and its arguments.
        columns: Width of the terminal.
        env: More variables.
    """

    def __init__(
        self, *words: str | Path, columns: int = 100, env: Mapping[str, str] | None = None
    ) -> None:
        self.mark = uuid.uuid4().hex
        self._shown = b""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, words)],
            cwd=ROOT,
            env=environment(**{MARK: self.mark, "TERM": "xterm-256color"}, **(env or {})),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()

    def _read(self, fd: int) -> None:
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while part := os.read(fd, 65536):
                self._shown += part
        os.close(fd)

    @property
    def log(self) -> str:
        """What the terminal showed so far, with its colour sequences."""
        return self._shown.decode(errors="replace").replace("\r\n", "\n")

    @property
    def stdout(self) -> str:
        """The same, as text."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log)

    def wait(self, seconds: float = 30) -> int:
        """Wait for its end and its last output; return the exit status."""
        status = super().wait(seconds)
        self._reader.join(seconds)
        return status
