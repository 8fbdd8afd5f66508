"""The memory limit that a process is under: its container's, else the machine's."""

from __future__ import annotations

import os
from typing import NamedTuple

_NO_LIMIT = 1 << 60
"""Version 1 says "no limit" with a number near 2**63, rounded down to pages."""


class Memory(NamedTuple):
    """What a memory controller says.

    Attributes:
        limit: Bytes above which the kernel kills.
        used: Bytes of all processes in it, without file pages that can be dropped.
    """

    limit: int
    used: int


def container_memory(pid: int, root: str = "") -> Memory | None:
    """Return the tightest memory limit above a process; None if there is none, or none is seen.

    Args:
        pid: The process.
        root: Where ``/proc`` and ``/sys`` are.
    """
    try:
        with open(f"{root}/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    found: list[Memory] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            files = ("memory.max", "memory.current", "inactive_file")
            found += _upwards(f"{root}/sys/fs/cgroup", path, files)
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            found += _upwards(f"{root}/sys/fs/cgroup/memory", path, files)
    return min(found, default=None)


class OomKills:
    """Counts the processes that the kernel kills for lack of memory, in a process's container.

    Args:
        pid: The process, while it lives.
        root: Where ``/proc`` and ``/sys`` are.
    """

    def __init__(self, pid: int, root: str = "") -> None:
        self._file = ""
        try:
            groups = _text(f"{root}/proc/{pid}/cgroup").splitlines()
        except OSError:
            groups = []
        for line in groups:
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if not controllers:
                mount, name = f"{root}/sys/fs/cgroup", "memory.events"
            elif "memory" in controllers.split(","):
                mount, name = f"{root}/sys/fs/cgroup/memory", "memory.oom_control"
            else:
                continue
            own = f"{mount}/{path.strip('/')}".rstrip("/")
            files = (f"{own}/{name}", f"{mount}/{name}")
            self._file = next((file for file in files if os.path.exists(file)), self._file)
        self._before = self._count()

    def since(self) -> int:
        """Return how many were killed since; 0 also where nothing tells."""
        return max(self._count() - self._before, 0)

    def _count(self) -> int:
        try:
            for line in _text(self._file).splitlines() if self._file else ():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        except (OSError, ValueError):
            pass
        return 0


def _upwards(mount: str, path: str, files: tuple[str, str, str]) -> list[Memory]:
    """Read every group from ``path`` up to the mount's own.

    A container often sees only its own group, at the mount itself, while the path is that of
    the host: what is not there is passed over.
    """
    found = []
    parts = [part for part in path.split("/") if part and part != ".."]
    for depth in range(len(parts), -1, -1):
        memory = _read("/".join([mount, *parts[:depth]]), *files)
        if memory is not None:
            found.append(memory)
    return found


def _read(group: str, limit_file: str, used_file: str, reclaimable: str) -> Memory | None:
    try:
        limit = _text(f"{group}/{limit_file}").strip()
        if limit == "max" or int(limit) >= _NO_LIMIT or int(limit) <= 0:
            return None
        used = int(_text(f"{group}/{used_file}"))
    except (OSError, ValueError):
        return None
    try:
        for line in _text(f"{group}/memory.stat").splitlines():
            name, _, value = line.partition(" ")
            if name == reclaimable:
                used -= int(value)
    except (OSError, ValueError):
        pass  # then the page cache counts
    return Memory(int(limit), max(used, 0))


def _text(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with open(fd, encoding="ascii", errors="replace") as file:
        return file.read(1 << 16)
