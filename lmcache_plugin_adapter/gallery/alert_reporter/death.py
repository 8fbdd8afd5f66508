"""Whether an engine closed or died, and what is known of its death."""

from __future__ import annotations

from .cgroup import OomKills


class Autopsy:
    """Knows of an engine what can be told only later, by comparison.

    Args:
        pid: The engine process, while it lives.
    """

    def __init__(self, pid: int) -> None:
        self._kills = OomKills(pid)

    def report(self) -> str:
        """Say what is known of the death."""
        killed = self._kills.since()
        if not killed:
            return ""
        count = "1 process" if killed == 1 else f"{killed} processes"
        return f"Meanwhile the kernel killed {count} of its container for lack of memory."
