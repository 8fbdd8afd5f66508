# SPDX-License-Identifier: Apache-2.0
"""The memory limit of a process's container, and the processes killed for lack of memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_LIMIT = 1 << 60
"""Version 1 writes "no limit" as a number near 2**63, rounded down to pages."""


class Memory(NamedTuple):
    """The values of a memory controller."""

    limit: int
    """Bytes above which the kernel kills processes."""
    used: int
    """Bytes of all processes in the group, without droppable file pages."""


def container_memory(pid: int, root: str = "") -> Memory | None:
    """Return the tightest memory limit above a process; None if none is visible.

    Args:
        pid: The process.
        root: The directory with ``/proc`` and ``/sys``.
    """
    found: list[Memory] = []
    for version, mount, path in _memory_groups(pid, root):
        if version == 2:
            files = ("memory.max", "memory.current", "inactive_file")
        else:
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        found += _upwards(mount, path, files)
    return min(found, default=None)


class ContainerOomKills:
    """Count the processes in a process's container that the kernel kills for lack of memory.

    Args:
        pid: The process, while it is alive.
        root: The directory with ``/proc`` and ``/sys``.
    """

    def __init__(self, pid: int, root: str = "") -> None:
        self._file = ""
        for version, mount, path in _memory_groups(pid, root):
            name = "memory.events" if version == 2 else "memory.oom_control"
            own = f"{mount}/{path.strip('/')}".rstrip("/")
            files = (f"{own}/{name}", f"{mount}/{name}")
            self._file = next((file for file in files if os.path.exists(file)), self._file)
        self._before = self._count()

    def since(self) -> int:
        """Return how many processes were killed since; 0 if unknown."""
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


def _memory_groups(pid: int, root: str) -> Iterator[tuple[int, str, str]]:
    """Yield version, mount point and path of each group that limits a process's memory."""
    try:
        lines = _text(f"{root}/proc/{pid}/cgroup").splitlines()
    except OSError:
        return
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if not controllers:
            yield 2, f"{root}/sys/fs/cgroup", path
        elif "memory" in controllers.split(","):
            yield 1, f"{root}/sys/fs/cgroup/memory", path


def _upwards(mount: str, path: str, files: tuple[str, str, str]) -> list[Memory]:
    """Read every group from ``path`` up to the root of the mount.

    A container often sees only its own group, as the root of the mount, while the path is that of
    the host: missing groups are skipped.
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
        pass  # without it, droppable pages count as used
    return Memory(int(limit), max(used, 0))


def _text(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(1 << 16)
