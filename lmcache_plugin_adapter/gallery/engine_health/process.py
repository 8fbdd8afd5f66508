# SPDX-License-Identifier: Apache-2.0
"""The state of an engine process in ``/proc``: exited, stopped, hanging in the kernel."""

from __future__ import annotations

import os
import time

from lmcache_plugin_adapter.contract.variables import DIED, FAILED
from lmcache_plugin_adapter.linux.procfs import has_memory, read_process

from .verdict import Verdict

_STOPPED = "Tt"
_ENDED = "ZXx"


class EngineProcess:
    """An engine process.

    Args:
        pid: The process.
        stopped_after: Seconds for which it may be stopped without a fault.
        stalled_after: Seconds for which its first thread may hang in the kernel without a fault.
    """

    def __init__(self, pid: int, stopped_after: float, stalled_after: float) -> None:
        self._pid = pid
        self._stopped_after = stopped_after
        self._stalled_after = stalled_after
        found = read_process(pid)
        self._start = found.start if found is not None else None
        self._stopped_since: float | None = None
        self._blocked_since: float | None = None
        self._switches: bytes | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether the last check found it stopped."""
        return self._stopped_since is not None

    @property
    def age(self) -> float:
        """Seconds since its start; 0 if it had exited before the first check."""
        if self._start is None:
            return 0.0
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self._start / os.sysconf("SC_CLK_TCK")

    def look(self, now: float) -> Verdict:
        """Return the verdict on the process alone."""
        found = read_process(self._pid)
        if found is None:
            return Verdict(False, f"engine process {self._pid} is gone", "dead")
        state = found.state
        if found.start != self._start:
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
        """Return the verdict on the engine if it died, once the plugin is to stop; else None.

        Args:
            word: The context's ``ending``.
        """
        verdict = self.look(time.monotonic())
        if not has_died(word, verdict.state != "dead" and has_memory(self._pid)):
            return None
        if verdict.state == "dead":
            return verdict
        how = "was ended by an exception" if word == FAILED else "has ended without closing"
        return Verdict(False, f"engine process {self._pid} {how}", "dead")

    def _stopped_for(self, state: str, now: float) -> float | None:
        if state not in _STOPPED:
            self._stopped_since = None
            return None
        if self._stopped_since is None:
            self._stopped_since = now
        return now - self._stopped_since

    def _blocked_for(self, state: str, now: float) -> float | None:
        """Return for how many seconds the first thread has been in one uninterrupted wait."""
        switches = read_switches(self._pid) if state == "D" else None
        if switches is None or switches != self._switches or self._blocked_since is None:
            self._blocked_since = now
        self._switches = switches
        return now - self._blocked_since if switches is not None else None


def has_died(word: str, alive: bool) -> bool:
    """Tell whether the engine died, once the plugin is to stop.

    The supervisor knows the reason: an engine that closes reports it before it exits. Without a
    reason (no runtime directory, or only this plugin stops), the engine died if its process is
    gone.

    Args:
        word: The context's ``ending``.
        alive: Whether the engine process is alive.
    """
    return word in (DIED, FAILED) if word else not alive


def read_switches(pid: int) -> bytes | None:
    """Return the context switch counts of a process's first thread, or None."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    return b" ".join(line for line in lines if b"_ctxt_switches:" in line)
