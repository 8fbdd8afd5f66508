# SPDX-License-Identifier: Apache-2.0
"""What ``/proc`` says of processes, and their ends as the kernel tells them."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

MARK = "LMCACHE_PLUGINS_BENCHMARK"
"""In the environment of all that a benchmark starts, so that it can be found and ended."""


class LateError(Exception):
    """Something did not happen within its time."""


def marked(value: str) -> set[int]:
    """Return the processes whose environment carries ``MARK=value``, zombies not counted."""
    wanted = f"{MARK}={value}".encode()
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                environment = Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:
                continue
            if wanted in environment.split(b"\0"):
                found.add(int(entry))
    return found - {os.getpid()}


def end_marked(value: str, seconds: float = 20.0) -> None:
    """Kill what carries the mark, until nothing is left.

    Raises:
        LateError: Something is left.
    """
    deadline = time.monotonic() + seconds
    while left := marked(value):
        if time.monotonic() > deadline:
            raise LateError(f"{len(left)} processes do not end")
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)


class Ends:
    """Waits for the ends of processes, without asking again and again.

    Args:
        pids: Whose ends; they run now.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._poll = select.poll()
        self._left: set[int] = set()
        for pid in pids:
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            self._left.add(fd)
            self._poll.register(fd, select.POLLIN)

    def last(self, deadline: float) -> float | None:
        """Return when the last of them ended, monotonic; None: not by then."""
        try:
            while self._left:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                for fd, _ in self._poll.poll(left * 1000):
                    self._poll.unregister(fd)
                    self._left.discard(fd)
                    os.close(fd)
            return time.monotonic()
        finally:
            for fd in self._left:
                os.close(fd)
            self._left.clear()


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something that can only be asked for.

    Raises:
        LateError: It did not become true.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LateError(f"not within {seconds:g} s: {what}")
        time.sleep(0.005)


def name_of(pid: int) -> str:
    """Return the name of the program that a process runs; empty: it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def threads_of(pid: int) -> list[int]:
    """Return the threads of a process; none if it is gone."""
    try:
        return [int(entry) for entry in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def cpu_seconds(pid: int, main_thread: bool = True) -> float:
    """Return the CPU time of a process's living threads, in seconds.

    Args:
        pid: The process.
        main_thread: Whether its main thread counts, too.
    """
    total = 0
    for thread in threads_of(pid):
        if main_thread or thread != pid:
            try:
                text = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text()
            except OSError:
                continue
            total += int(text.split()[0])
    return total / 1e9


def switches(pid: int, main_thread: bool = True) -> int:
    """Return how often a process's living threads were put on a CPU; arguments as above."""
    total = 0
    for thread in threads_of(pid):
        if main_thread or thread != pid:
            try:
                text = Path(f"/proc/{pid}/task/{thread}/status").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in text.splitlines() if "ctxt_sw" in line)
    return total


def memory_kb(pid: int, field: str = "Pss") -> int:
    """Return what a process's memory adds up to, in kB; 0 if it is gone.

    Args:
        pid: The process.
        field: As in ``smaps_rollup``. Pss: shared pages in equal parts.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    return 0


def pin(pids: Iterable[int], cpus: set[int], but: int = 0) -> None:
    """Put all threads of processes on ``cpus``, except the thread ``but``."""
    for pid in pids:
        for thread in threads_of(pid):
            if thread != but:
                try:
                    os.sched_setaffinity(thread, cpus)
                except ProcessLookupError:
                    continue


def count_in(log: Path, word: bytes) -> int:
    """Return how often a word is in a file that may be large."""
    total, rest = 0, b""
    with log.open("rb") as file:
        while chunk := file.read(1 << 24):
            total += (rest + chunk).count(word)
            rest = (rest + chunk)[1 - len(word) :]
    return total
