"""What is known of an engine's death."""

from __future__ import annotations

from .cgroup import OomKills

_FAILED = "failed"


class Autopsy:
    """Knows of an engine what can be told only later, by comparison.

    Args:
        pid: The engine process, while it lives.
    """

    def __init__(self, pid: int) -> None:
        self._kills = OomKills(pid)

    def report(self, word: str) -> str:
        """Say what is known of the death, to go on after "engine process 4711".

        Args:
            word: The context's ``ending``.
        """
        how = "was ended by an exception." if word == _FAILED else "has ended without closing."
        killed = self._kills.since()
        if not killed:
            return how
        count = "1 process" if killed == 1 else f"{killed} processes"
        return f"{how} Meanwhile the kernel killed {count} of its container for lack of memory."
