"""How long to wait before something is tried again."""

from __future__ import annotations

from .chance import fraction


class Backoff:
    """Seconds that grow twofold, up to a limit, each a little off so that many do not meet.

    Args:
        initial: The first wait, in seconds.
        maximum: The longest wait, in seconds.
        jitter: A wait is longer by up to this part of itself (and never longer
            than ``maximum``).
    """

    def __init__(self, initial: float = 0.5, maximum: float = 30.0, jitter: float = 0.2) -> None:
        if not 0 < initial <= maximum or jitter < 0:
            raise ValueError("'initial' is above 0 and not above 'maximum', 'jitter' not below 0")
        self._initial = initial
        self._maximum = maximum
        self._jitter = jitter
        self._next = initial

    def next(self) -> float:
        """Return the seconds to wait now; the next wait is twice as long."""
        wait = self._next
        self._next = min(2 * wait, self._maximum)
        return min(wait * (1 + self._jitter * fraction()), self._maximum)

    def reset(self) -> None:
        """Begin anew: it has worked."""
        self._next = self._initial
