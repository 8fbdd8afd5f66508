# SPDX-License-Identifier: Apache-2.0
"""Read processes in ``/proc``: parents, groups, sessions, environments."""

from __future__ import annotations

import os
import signal
import time

from .syscalls import pidfd_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator


class Process:
    """The relevant fields of ``/proc/PID/stat``."""

    # Not a named tuple, which takes ten times as long to create as a class.
    __slots__ = ("group", "parent", "pid", "session", "start", "state", "threads")

    def __init__(
        self, pid: int, state: str, parent: int, group: int, session: int, threads: int, start: int
    ) -> None:
        self.pid = pid
        self.state = state
        self.parent = parent
        self.group = group
        self.session = session
        self.threads = threads
        self.start = start

    @property
    def has_exited(self) -> bool:
        """Whether no thread of it runs; its first thread may be a zombie before the others end."""
        return self.state in "ZX" and self.threads < 2


_PAGE = os.sysconf("SC_PAGE_SIZE")

_RECENT = 5
"""A table of processes is recent for this multiple of the time that reading it took."""


def read_process(pid: int) -> Process | None:
    """Return a process, or None if it does not exist."""
    line = _stat_of(pid)
    # The command's name is in parentheses and may contain anything, parentheses too.
    rest = line[line.rfind(b")") + 2 :].split(b" ", 20)
    try:
        parent, group, session = int(rest[1]), int(rest[2]), int(rest[3])
        return Process(pid, rest[0].decode(), parent, group, session, int(rest[17]), int(rest[19]))
    except (IndexError, ValueError):
        return None


def thread_count(pid: int) -> int:
    """Return how many threads a process has; 0 if the kernel hides them."""
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _stat_of(pid: int) -> bytes:
    # Without a file object: a table of processes reads hundreds of these.
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 1024)
    except OSError:
        return b""
    finally:
        os.close(fd)


class ProcessTable:
    """All processes except zombies, as they were at one moment.

    Args:
        processes: The processes; None to read ``/proc``.
    """

    __slots__ = ("_children", "_variables", "by_pid", "complete", "good_until")

    def __init__(self, processes: Iterable[Process] | None = None) -> None:
        self.by_pid: dict[int, Process] = {}
        self._children: dict[int, list[int]] = {}
        self._variables: dict[int, tuple[bytes | None, ...]] = {}
        begun = time.monotonic()
        for process in _read_all() if processes is None else processes:
            self.by_pid[process.pid] = process
            self._children.setdefault(process.parent, []).append(process.pid)
        self.complete = True
        """Whether no process of interest is known to be missing."""
        now = time.monotonic()
        self.good_until = now + _RECENT * (now - begun)

    @classmethod
    def recent(cls) -> ProcessTable:
        """Return a table that is at most a moment old, shared by many plugins."""
        global _latest  # noqa: PLW0603 - shared by all plugins
        if _latest is None or time.monotonic() > _latest.good_until:
            _latest = cls()
        return _latest

    def variables(self, pid: int, *names: bytes) -> tuple[bytes | None, ...]:
        """Return variables of a process of this table; read once, so always request the same."""
        if pid not in self._variables:
            environment = environment_of(pid)
            self._variables[pid] = tuple(variable(environment, name) for name in names)
        return self._variables[pid]

    def with_descendants(self, roots: Iterable[int]) -> set[int]:
        """Return the existing ones of ``roots``, and all their descendants."""
        found: set[int] = set()
        pending = [pid for pid in roots if pid in self.by_pid]
        while pending:
            pid = pending.pop()
            if pid not in found:
                found.add(pid)
                pending += self._children.get(pid, ())
        return found

    def send(self, pids: Iterable[int], number: signal.Signals) -> None:
        """Send a signal to these processes, never to a later process of the same pid."""
        for pid in pids:
            _send(self.by_pid[pid], number)

    def kill(self, pids: Collection[int]) -> None:
        """Kill these processes, and each process group that contains no other process.

        A group is killed at once, so that no member can fork and escape.
        """
        others = {process.group for pid, process in self.by_pid.items() if pid not in pids}
        others.add(os.getpgrp())
        for group in {self.by_pid[pid].group for pid in pids} - others:
            try:
                os.killpg(group, signal.SIGKILL)
            except OSError:
                pass  # all members have exited
        self.send(pids, signal.SIGKILL)


_latest: ProcessTable | None = None


def own_children() -> list[int] | None:
    """Return the children of this process's first thread; None if the kernel hides them.

    Nothing is missing in it: the kernel hands over the children of a process that exits
    before the process becomes a zombie, and zombies stay in it until they are reaped.
    """
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children", "rb", buffering=0) as file:
            parts = []
            while part := file.read(1 << 16):
                parts.append(part)
            return [int(pid) for pid in b"".join(parts).split()]
    except OSError:
        return None


def own_descendants() -> set[int]:
    """Return this process and its descendants; some may be missing while others exit.

    Unlike a :class:`ProcessTable`, this does not read the other processes of the machine.
    """
    me = os.getpid()
    if own_children() is None:
        return ProcessTable().with_descendants([me])
    found: set[int] = set()
    pending = [me]
    while pending:
        pid = pending.pop()
        found.add(pid)
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue  # it has exited
        for thread in threads:
            pending += map(int, _read(pid, f"task/{thread}/children").split())
    return found


def _read_all() -> Iterator[Process]:
    try:
        entries = os.listdir("/proc")
    except OSError:
        return
    for entry in entries:
        if entry.isdigit():
            process = read_process(int(entry))
            if process is not None and not process.has_exited:
                yield process


def is_dying(pid: int) -> bool:
    """Return whether a process has exited or has been sent SIGKILL, which ends it in a moment."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            lines = file.read(8192).split(b"\n")
    except OSError:
        return True
    fields = dict(line.split(b":\t", 1) for line in lines if b":\t" in line)
    if fields.get(b"State", b"")[:1] in (b"Z", b"X"):
        return True
    pending = int(fields.get(b"SigPnd", b"0"), 16) | int(fields.get(b"ShdPnd", b"0"), 16)
    return bool(pending >> (signal.SIGKILL - 1) & 1)


def environment_of(pid: int) -> bytes:
    """Return a process's environment at its exec, NUL-separated; empty if unreadable."""
    return _read(pid, "environ") or _read_of_threads(pid, "environ")


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            parts = []
            while part := file.read(1 << 20):
                parts.append(part)
            return b"".join(parts)
    except OSError:
        return b""


def _read_of_threads(pid: int, name: str) -> bytes:
    """Read a file that shows a process's memory, which its first thread loses when it exits."""
    process = read_process(pid)
    if process is None or process.state not in "ZX" or process.has_exited:
        return b""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return b""
    parts = (_read(pid, f"task/{thread}/{name}") for thread in threads if thread != str(pid))
    return next(filter(None, parts), b"")


def variable(environment: bytes, name: bytes) -> bytes | None:
    """Return the value of ``name`` in a result of :func:`environment_of`."""
    mark = b"\0" + name + b"="
    start = (b"\0" + environment).find(mark)
    if start < 0:
        return None
    start += len(mark) - 1
    end = environment.find(b"\0", start)
    return environment[start : end if end >= 0 else len(environment)]


def resident_memory(pid: int) -> int:
    """Return the bytes of a process in memory, shared pages included."""
    words = _read(pid, "statm").split()
    return int(words[1]) * _PAGE if len(words) > 1 else 0


def proportional_memory(pid: int) -> int:
    """Return the bytes of a process in memory, with its part of shared pages if it is known."""
    for line in _read(pid, "smaps_rollup").split(b"\n"):
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1_024
    return resident_memory(pid)


def memory_image(pid: int) -> str:
    """Return where code and stack of a process lie: an exec changes it.

    Returns:
        Empty if the kernel hides it from this process. Without address space layout
        randomization, an exec of the same program does not change it.
    """
    line = _stat_of(pid)
    # Fields 26 to 28 of proc(5): startcode, endcode, startstack.
    fields = line[line.rfind(b")") + 2 :].split(b" ")[23:26]
    return b".".join(fields).decode() if len(fields) == 3 and fields[2] != b"0" else ""


def has_memory(pid: int) -> bool:
    """Return whether a process has a command line, which an exiting process has lost."""
    return bool(_read(pid, "cmdline") or _read_of_threads(pid, "cmdline"))


def arguments_of(pid: int) -> list[bytes]:
    """Return a process's command line, possibly empty."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")[:-1]
    except OSError:
        return []


def command_of(pid: int) -> bytes:
    """Return the kernel's name of a process (15 bytes)."""
    try:
        with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
            return file.read(64).rstrip(b"\n")
    except OSError:
        return b""


def _send(process: Process, number: signal.Signals) -> None:
    try:
        fd = pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except OSError:
        fd = -1  # refused by a sandbox: compare, then signal by number
    try:
        now = read_process(process.pid)
        if now is None or now.start != process.start:
            return
        if fd >= 0:
            signal.pidfd_send_signal(fd, number)
        else:
            os.kill(process.pid, number)
    except OSError:
        pass
    finally:
        if fd >= 0:
            os.close(fd)


def signal_group(leader: int, *numbers: signal.Signals) -> None:
    """Signal a group, and its leader if it left the group; the leader must not be reaped yet."""
    for number in numbers:
        try:
            os.killpg(leader, number)
        except OSError:
            pass  # no such group yet, or any more
        try:
            if os.getpgid(leader) != leader:
                os.kill(leader, number)
        except OSError:
            pass
