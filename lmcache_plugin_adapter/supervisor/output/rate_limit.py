# SPDX-License-Identifier: Apache-2.0
"""Limit how many of a plugin's lines reach the engine's log: a token bucket, pure arithmetic."""

from __future__ import annotations


class TokenBucket:
    """``lines`` per ``per`` seconds on average, ``burst`` at once."""

    __slots__ = ("_burst", "_rate", "_tokens", "_updated")

    def __init__(self, lines: float, per: float, burst: float, now: float) -> None:
        self._rate = lines / per
        self._burst = burst
        self._tokens = burst
        self._updated = now

    def available(self, now: float) -> int:
        """Return the number of whole tokens at time ``now``."""
        if now > self._updated:
            self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
            self._updated = now
        return int(self._tokens)

    def take(self, wanted: int, now: float) -> int:
        """Take up to ``wanted`` whole tokens at time ``now``; return how many were taken."""
        taken = min(wanted, self.available(now))
        self._tokens -= taken
        return taken


class LineLimiter:
    """Limit the lines that one plugin adds to the engine's log.

    Lines of level error and worse draw on an allowance of their own, so that
    a flood of ordinary lines does not suppress them.
    """

    __slots__ = ("_ordinary", "_urgent", "suppressed")

    def __init__(self, lines: float, per: float, burst: float, now: float) -> None:
        self._ordinary = TokenBucket(lines, per, burst, now)
        self._urgent = TokenBucket(lines, per, burst, now)
        self.suppressed = 0
        """Lines suppressed since the last call of :meth:`collect`."""

    def admit(self, lines: int, urgent: bool, now: float) -> int:
        """Return how many of ``lines`` pass; the others are counted in :attr:`suppressed`."""
        passed = self._ordinary.take(lines, now)
        if urgent and passed < lines:
            passed += self._urgent.take(lines - passed, now)
        self.suppressed += lines - passed
        return passed

    def exhausted(self, now: float) -> bool:
        """Whether an ordinary line would be suppressed at time ``now``."""
        return not self._ordinary.available(now)

    def collect(self) -> int:
        """Return the number of lines suppressed since the last call."""
        suppressed, self.suppressed = self.suppressed, 0
        return suppressed
