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

    def room(self, now: float) -> int:
        """Return how many whole tokens are there at time ``now``."""
        if now > self._updated:
            self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
            self._updated = now
        return int(self._tokens)

    def take(self, wanted: int, now: float) -> int:
        """Take up to ``wanted`` whole tokens at time ``now`` and return how many were there."""
        taken = min(wanted, self.room(now))
        self._tokens -= taken
        return taken


class LineLimiter:
    """What one plugin may add to the engine's log.

    Lines of level error and worse draw on an allowance of their own, so that
    a flood of ordinary lines does not hide them.
    """

    __slots__ = ("_ordinary", "_urgent", "held")

    def __init__(self, lines: float, per: float, burst: float, now: float) -> None:
        self._ordinary = TokenBucket(lines, per, burst, now)
        self._urgent = TokenBucket(lines, per, burst, now)
        self.held = 0
        """Lines held back since :meth:`collect` was last called."""

    def admit(self, lines: int, urgent: bool, now: float) -> int:
        """Return how many of ``lines`` may pass; the others are counted in :attr:`held`."""
        passed = self._ordinary.take(lines, now)
        if urgent and passed < lines:
            passed += self._urgent.take(lines - passed, now)
        self.held += lines - passed
        return passed

    def spent(self, now: float) -> bool:
        """Whether an ordinary line would be held back at time ``now``."""
        return not self._ordinary.room(now)

    def collect(self) -> int:
        """Return the count of lines held back since the last call."""
        held, self.held = self.held, 0
        return held
