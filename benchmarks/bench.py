# SPDX-License-Identifier: Apache-2.0
"""What every row is given: a place, hosts, and the certainty that nothing of it stays."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from .hosts import EngineHost, Host, make
from .plugins import Plugins
from .processes import end_marked, marked

T = TypeVar("T")

DESCRIPTORS = 16384
MEMORY_NEEDED = 2 << 30


class Bench:
    """A directory in memory, where there is room, and what runs in it.

    Args:
        scratch: Where to make the directory; None: ``/dev/shm`` if it has
            room, else the usual place.
    """

    def __init__(self, scratch: Path | None = None) -> None:
        shared = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
        if scratch is None and shared.is_dir() and shutil.disk_usage(shared).free > MEMORY_NEEDED:
            scratch = shared
        self.home = Path(tempfile.mkdtemp(prefix="plugins-bench-", dir=scratch))
        self.mark = self.home.name
        self.repeat = 0
        """Which of the repeats this is, from 0."""
        self._number = 0
        self._hosts: list[Host] = []
        self._plugins: list[Plugins] = []
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    def close(self) -> None:
        """End and remove all."""
        self.clear()
        shutil.rmtree(self.home, ignore_errors=True)

    def directory(self) -> Path:
        """Return a new directory."""
        self._number += 1
        path = self.home / f"d{self._number}"
        path.mkdir()
        return path

    def plugins(self, count: int, body: str | None = None, source: str | None = None) -> Plugins:
        """Make plugins; without ``body`` and ``source`` they sleep."""
        where = self.directory() / "plugins"
        if body is None:
            made = Plugins(where, count, source=source)
        else:
            made = Plugins(where, count, body, source)
        self._plugins.append(made)
        return made

    def host(self, name: str) -> Host:
        """Return a new host; an engine runs already, a peer does not."""
        made = make(name, self.directory(), self.mark)
        self._hosts.append(made)
        return made

    def engine(self, name: str) -> EngineHost:
        """Return a new engine."""
        made = self.host(name)
        if not isinstance(made, EngineHost):
            raise TypeError(f"'{name}' is no launcher")
        return made

    @contextmanager
    def hosting(self, name: str) -> Iterator[Host]:
        """Give a new host; in the end nothing of it is left."""
        try:
            yield self.host(name)
        finally:
            self.clear()

    def marked(self) -> set[int]:
        """Return the processes of all hosts."""
        return set().union(*(marked(host.mark) for host in self._hosts))

    def turns(self, names: Sequence[T]) -> list[T]:
        """Return ``names``, beginning with another one in each repeat."""
        start = self.repeat % len(names)
        return [*names[start:], *names[:start]]

    def clear(self) -> None:
        """End all hosts and plugins, and remove their files."""
        for host in self._hosts:
            # Engines first: a supervisor that is killed before is started again by its engine.
            if host.process is not None and host.process.poll() is None:
                host.process.kill()
                host.process.wait()
        for host in self._hosts:
            end_marked(host.mark)
            if host.process is not None:
                for pipe in (host.process.stdin, host.process.stdout):
                    if pipe is not None:
                        pipe.close()
        for plugins in self._plugins:
            plugins.close()
        self._hosts.clear()
        self._plugins.clear()
        for entry in os.listdir(self.home):
            shutil.rmtree(self.home / entry, ignore_errors=True)
