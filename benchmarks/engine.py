# SPDX-License-Identifier: Apache-2.0
"""An engine to be measured: launches plugins with either launcher, as it is told on stdin."""

from __future__ import annotations

import array
import importlib
import json
import mmap
import os
import time
from typing import Any


class Config:
    """The least that a configuration is."""

    def __init__(self, directory: str, settings: dict[str, Any]) -> None:
        self.runtime_plugin_locations = [directory]
        self.extra_config = {"runtime_plugins": settings}

    def to_json(self) -> str:
        """Return all of it."""
        return json.dumps(self.__dict__)


class Engine:
    """What the commands do; each takes keyword arguments and returns what JSON can say."""

    def __init__(self) -> None:
        self._launchers: dict[str, Any] = {}
        self._heap: mmap.mmap | None = None

    def load(self, who: str) -> None:
        """Import a launcher, as an engine has before it launches."""
        self._class(who)

    def launch(self, who: str, directory: str, settings: dict[str, Any]) -> dict[str, float]:
        """Launch; say when it began and how long it blocked, in seconds."""
        launcher = self._class(who)(Config(directory, settings), "worker", 1, 0)
        self._launchers[who] = launcher
        began = time.monotonic()
        launcher.launch_plugins()
        return {"began": began, "took": time.monotonic() - began}

    def stop(self, who: str) -> dict[str, float]:
        """Stop; say when it began and how long it blocked, in seconds."""
        began = time.monotonic()
        self._launchers.pop(who).stop_plugins()
        return {"began": began, "took": time.monotonic() - began}

    def touch(self, size: int) -> None:
        """Have a heap of so many bytes, in small pages, each written to."""
        self._heap = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._heap.madvise(mmap.MADV_NOHUGEPAGE)
        step = 1 << 24
        for place in range(0, size, step):
            self._heap[place : place + step] = bytes(min(step, size - place))

    def steps(self, seconds: float, milliseconds: float, cpu: int, into: str) -> None:
        """Run pure Python in steps on one CPU; write each step's begin and end, monotonic."""
        os.sched_setaffinity(0, {cpu})
        size = _calibrated(milliseconds / 1000)
        times = array.array("d")
        end = time.monotonic() + seconds
        now = time.monotonic()
        while now < end:
            times.append(now)
            _step(size)
            now = time.monotonic()
            times.append(now)
        with open(into, "wb") as out:
            times.tofile(out)

    def steps_on_all(self, seconds: float, milliseconds: float, cpus: list[int], into: str) -> None:
        """Run pure Python in one process on each CPU; each writes the end of each step."""
        size = _calibrated(milliseconds / 1000)
        children = []
        for cpu in cpus:
            child = os.fork()
            if not child:
                os.sched_setaffinity(0, {cpu})
                times = array.array("d")
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    _step(size)
                    times.append(time.monotonic())
                with open(f"{into}/{cpu}", "wb") as out:
                    times.tofile(out)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)

    def _class(self, who: str) -> Any:
        if who == "ours":
            from lmcache_plugin_adapter import RuntimePluginLauncher

            return RuntimePluginLauncher
        module = importlib.import_module("lmcache.v1.plugin.runtime_plugin_launcher")
        return module.RuntimePluginLauncher


def _step(size: int) -> int:
    total = 0
    for number in range(size):
        total += number & 7
    return total


def _calibrated(seconds: float) -> int:
    """Return the size of a step that takes so long."""
    best = min(_timed(100_000) for _ in range(5))
    return max(int(100_000 * seconds / best), 1)


def _timed(size: int) -> float:
    began = time.perf_counter()
    _step(size)
    return time.perf_counter() - began


def main() -> None:
    """Do what stdin says until it ends."""
    # Nobody but the measuring program reads or writes these two.
    commands = os.fdopen(os.dup(0), "r")
    answers = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    engine = Engine()
    for line in commands:
        name, arguments = json.loads(line)
        answers.write(json.dumps(getattr(engine, name)(**arguments)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
