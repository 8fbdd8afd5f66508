"""Whether an engine closed or died, and what is known of its death."""

from __future__ import annotations

import os

from .cgroup import OomKills

ENDING_FILE = "LMCACHE_RUNTIME_PLUGIN_ENDING_FILE"

_DIED, _FAILED = "died", "failed"
_WORD_BYTES = 64


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
            word: What :func:`ending` has returned.
        """
        how = "was ended by an exception." if word == _FAILED else "has ended without closing."
        killed = self._kills.since()
        if not killed:
            return how
        count = "1 process" if killed == 1 else f"{killed} processes"
        return f"{how} Meanwhile the kernel killed {count} of its container for lack of memory."


def has_died(word: str, alive: bool) -> bool:
    """Tell whether the engine has died, when it is time to end.

    The supervisor knows: an engine that closes tells it so before it ends. Where it says nothing
    (no runtime directory; a stop of this plugin alone), an engine process that is gone has died.

    Args:
        word: What :func:`ending` has returned.
        alive: Whether the engine process lives.
    """
    return word in (_DIED, _FAILED) if word else not alive


def ending() -> str:
    """Return why plugins are to end, in the supervisor's one word; empty if it says nothing."""
    path = os.environ.get(ENDING_FILE)
    if not path:
        return ""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(_WORD_BYTES).strip()
    except OSError:
        return ""
