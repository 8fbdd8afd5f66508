"""The cause of an engine's death, as far as the kernel reveals it."""

from __future__ import annotations

from .cgroup import OomKills

_FAILED = "failed"


class Autopsy:
    """Compare the state before and after an engine's death.

    Args:
        pid: The engine process, while it is alive.
    """

    def __init__(self, pid: int) -> None:
        self._kills = OomKills(pid)

    def report(self, word: str) -> str:
        """Return the cause of the death, to follow "engine process 4711" in a text.

        Args:
            word: The context's ``ending``.
        """
        how = "was ended by an exception." if word == _FAILED else "has ended without closing."
        killed = self._kills.since()
        if not killed:
            return how
        count = "1 process" if killed == 1 else f"{killed} processes"
        return f"{how} Meanwhile the kernel killed {count} of its container for lack of memory."
