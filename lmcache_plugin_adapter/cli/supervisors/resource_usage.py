"""What process trees take of CPU and memory, from one look at ``/proc``."""

from __future__ import annotations

import os
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """Of a process and all that descends from it or belongs to its session.

    Attributes:
        processes: How many.
        cpu_seconds: CPU time, that of ended children included.
        memory_bytes: Resident memory; what processes share counts for each.
    """

    processes: int
    cpu_seconds: float
    memory_bytes: int


class UsageTable:
    """The processes of one moment."""

    def __init__(self) -> None:
        self._processes: dict[int, tuple[float, int]] = {}
        self._members: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                self._read(int(entry))

    def of(self, pid: int) -> Usage | None:
        """Return what the tree of ``pid`` takes; None if there is no such process."""
        if pid not in self._processes:
            return None
        tree: set[int] = set()
        pending = [pid]
        while pending:
            one = pending.pop()
            if one not in tree and one in self._processes:
                tree.add(one)
                pending += self._members.get(one, ())
        taken = [self._processes[one] for one in tree]
        return Usage(len(tree), sum(cpu for cpu, _ in taken), sum(size for _, size in taken))

    def alone(self, pid: int) -> Usage | None:
        """Return what a process takes without its descendants."""
        if pid not in self._processes:
            return None
        return Usage(1, *self._processes[pid])

    def _read(self, pid: int) -> None:
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                line = file.read(2048)
        except OSError:
            return
        # state parent group session …: the name before may hold anything, parentheses too
        rest = line[line.rfind(b")") + 2 :].split(b" ")
        try:
            parent, session = int(rest[1]), int(rest[3])
            ticks = sum(map(int, rest[11:15]))
            pages = int(rest[21])
        except (IndexError, ValueError):
            return
        self._processes[pid] = ticks / _TICKS, pages * _PAGE
        for owner in {parent, session}:
            self._members.setdefault(owner, []).append(pid)


def command_line(pid: int) -> str | None:
    """Return a process's command line, secrets masked; None if it cannot be read."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
            words = file.read(1 << 16).rstrip(b"\0").split(b"\0")
    except OSError:
        return None
    shown: list[str] = []
    mask = False
    for word in words:
        text = word.decode("utf-8", "backslashreplace")
        name, equals, _ = text.partition("=")
        secret = name.startswith("-") and any(part in name.lower() for part in _SECRET)
        if mask and not text.startswith("-"):
            text = "***"
        elif secret and equals:
            text = f"{name}=***"
        mask = secret and not equals
        shown.append(text)
    return " ".join(shown) or None


_SECRET = ("key", "token", "secret", "password")
