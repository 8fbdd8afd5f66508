# SPDX-License-Identifier: Apache-2.0
"""Plugins to be measured with: a directory of them, and the word that they run."""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path

from .processes import LateError, name_of, wait_until

SLEEPS = "exec sleep 1000000\n"


class Plugins:
    """A directory of plugins that say their pid through a FIFO as they begin.

    Args:
        directory: An empty one, or none yet.
        count: How many; all alike.
        body: What they do then, in POSIX shell.
        source: Instead: a whole program in Python, which gets the function
            ``say_so()``.
    """

    def __init__(
        self, directory: Path, count: int, body: str = SLEEPS, source: str | None = None
    ) -> None:
        self.directory = directory
        self.count = count
        directory.mkdir(parents=True, exist_ok=True)
        self._fifo = directory.parent / f"{directory.name}.fifo"
        if not self._fifo.exists():
            os.mkfifo(self._fifo)
        # Open for writing as well: then it never comes to its end.
        self._fd = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        self.files: list[Path] = []
        for number in range(count):
            if source is None:
                self.add(f"all_p{number:04}.sh", f"#!/bin/sh\necho $$ >{self._fifo}\n{body}")
            else:
                self.add_python(f"all_p{number:04}.py", source)

    def add(self, name: str, text: str) -> Path:
        """Add a file."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)
        self.files.append(path)
        self.count = len(self.files)
        return path

    def add_python(self, name: str, source: str) -> Path:
        """Add a plugin in Python, run by the interpreter that runs this."""
        head = (
            f"#!{sys.executable}\nimport os, sys, time\ndef say_so():\n"
            f"    with open({str(self._fifo)!r}, 'w') as fifo:\n"
            "        fifo.write(f'{os.getpid()}\\n')\n"
        )
        return self.add(name, head + source)

    def forget(self) -> None:
        """Drop what was said before."""
        try:
            while os.read(self._fd, 1 << 16):
                pass
        except BlockingIOError:
            pass

    def running(self, seconds: float = 60.0) -> tuple[float, list[int]]:
        """Wait until all of them run.

        Returns:
            When the last one said so, monotonic, and the pids.

        Raises:
            LateError: Not all of them said so.
        """
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        data = b""
        while data.count(b"\n") < self.count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LateError(f"{data.count(10)} of {self.count} plugins run")
            if poll.poll(left * 1000):
                data += os.read(self._fd, 1 << 16)
        now = time.monotonic()
        return now, [int(pid) for pid in data.split()]

    def settled(self, pids: list[int], program: str = "sleep") -> None:
        """Wait until each of them has become ``program``."""
        wait_until(
            lambda: all(name_of(pid) == program for pid in pids), 30, f"all plugins are {program}"
        )

    def close(self) -> None:
        """Let go of the FIFO."""
        os.close(self._fd)
