"""What ``/proc`` says of an engine process: gone, ended, stopped, hanging in the kernel."""

from __future__ import annotations

import os
import time
from typing import Literal, NamedTuple

from lmcache_plugin_adapter.linux.procfs import has_memory

State = Literal["ok", "dead", "stopped", "unresponsive", "stalled", "starting"]

_STOPPED = "Tt"
_ENDED = "ZXx"
_DIED, _FAILED = "died", "failed"


class Verdict(NamedTuple):
    """What a check found.

    Attributes:
        healthy: Whether the engine may be said to work.
        reason: Why not, for a person to read. Of a healthy engine: what is odd, or empty.
        state: The fault, or ``ok``.
    """

    healthy: bool
    reason: str
    state: State


class Process:
    """An engine process.

    Args:
        pid: Which.
        stopped_after: Seconds for which it may be stopped.
        stalled_after: Seconds for which its first thread may hang in the kernel.
    """

    def __init__(self, pid: int, stopped_after: float, stalled_after: float) -> None:
        self._pid = pid
        self._stopped_after = stopped_after
        self._stalled_after = stalled_after
        found = read_stat(pid)
        self._start = found[1] if found is not None else None
        self._stopped_since: float | None = None
        self._blocked_since: float | None = None
        self._switches: bytes | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped when last looked at."""
        return self._stopped_since is not None

    @property
    def age(self) -> float:
        """Seconds since it was started; 0 if it was gone before it was looked at."""
        if self._start is None:
            return 0.0
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self._start / os.sysconf("SC_CLK_TCK")

    def look(self, now: float) -> Verdict:
        """Judge the process alone."""
        found = read_stat(self._pid)
        if found is None:
            return Verdict(False, f"engine process {self._pid} is gone", "dead")
        state, start = found
        if self._start is None or start != self._start:
            text = f"engine process {self._pid} is gone (another has this pid now)"
            return Verdict(False, text, "dead")
        if state in _ENDED:
            text = f"engine process {self._pid} has ended (state {state})"
            return Verdict(False, text, "dead")
        odd = []
        stopped = self._stopped_for(state, now)
        if stopped is not None:
            text = f"engine process {self._pid} is stopped (state {state}) for {stopped:.1f} s"
            if stopped >= self._stopped_after:
                return Verdict(False, text, "stopped")
            odd.append(text)
        blocked = self._blocked_for(state, now)
        if blocked is not None:
            text = f"engine process {self._pid} hangs in the kernel (state D) for {blocked:.1f} s"
            if blocked >= self._stalled_after:
                return Verdict(False, text, "stalled")
            if blocked >= self._stopped_after:
                odd.append(text)
        return Verdict(True, "; ".join(odd), "ok")

    def death(self, word: str) -> Verdict | None:
        """Return the verdict on an engine that has died, when it is time to end.

        Args:
            word: The context's ``ending``.
        """
        verdict = self.look(time.monotonic())
        if not has_died(word, verdict.state != "dead" and has_memory(self._pid)):
            return None
        if verdict.state == "dead":
            return verdict
        how = "was ended by an exception" if word == _FAILED else "has ended without closing"
        return Verdict(False, f"engine process {self._pid} {how}", "dead")

    def _stopped_for(self, state: str, now: float) -> float | None:
        if state not in _STOPPED:
            self._stopped_since = None
            return None
        if self._stopped_since is None:
            self._stopped_since = now
        return now - self._stopped_since

    def _blocked_for(self, state: str, now: float) -> float | None:
        """Return for how long the first thread has been in one and the same wait."""
        switches = read_switches(self._pid) if state == "D" else None
        if switches is None or switches != self._switches or self._blocked_since is None:
            self._blocked_since = now
        self._switches = switches
        return now - self._blocked_since if switches is not None else None


def has_died(word: str, alive: bool) -> bool:
    """Tell whether the engine has died, when it is time to end.

    The supervisor knows: an engine that closes tells it so before it ends. Where it says nothing
    (no runtime directory; a stop of this plugin alone), an engine process that is gone has died.

    Args:
        word: The context's ``ending``.
        alive: Whether the engine process lives.
    """
    return word in (_DIED, _FAILED) if word else not alive


def read_stat(pid: int) -> tuple[str, int] | None:
    """Return a process's state and start time (clock ticks since boot), or None."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
        # The command's name stands in parentheses and may hold anything.
        rest = line[line.rindex(b")") + 2 :].split()
        return rest[0].decode(), int(rest[19])
    except (OSError, ValueError, IndexError):
        return None


def read_switches(pid: int) -> bytes | None:
    """Return the counts of context switches of a process's first thread."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    return b" ".join(line for line in lines if b"_ctxt_switches:" in line)
