# SPDX-License-Identifier: Apache-2.0
"""Notice that the kernel killed a process because memory ran out."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_VMSTAT = "/proc/vmstat"
"""Where the kernel counts the kills of the whole machine."""


class OomKills:
    """Count the kills in this process's memory cgroup, or else on the whole machine."""

    def __init__(self) -> None:
        self._path = next((path for path in _files() if _count(path) is not None), _VMSTAT)
        self._seen = _count(self._path)

    def new(self) -> bool:
        """Return whether the kernel has killed a process since the last call."""
        before, self._seen = self._seen, _count(self._path)
        return before is not None and self._seen is not None and self._seen > before


def _files() -> Iterator[str]:
    """Yield the files in which the memory cgroup of this process may count kills."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            # Without a cgroup namespace, a container's own cgroup is the root of its mount.
            yield f"/sys/fs/cgroup/memory{path}/memory.oom_control"
            yield "/sys/fs/cgroup/memory/memory.oom_control"
        elif not controllers:
            yield f"/sys/fs/cgroup{path}/memory.events"
            yield "/sys/fs/cgroup/memory.events"


def _count(path: str) -> int | None:
    try:
        with open(path, "rb", buffering=0) as file:
            words = file.read(1 << 16).split()
        return int(words[words.index(b"oom_kill") + 1])
    except (OSError, ValueError, IndexError):
        return None
