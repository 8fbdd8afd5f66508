# SPDX-License-Identifier: Apache-2.0
"""The delay before a retry."""

from __future__ import annotations

from .chance import fraction


class Backoff:
    """A delay that doubles up to a limit, with a random part so that clients do not synchronize.

    Args:
        initial: The first delay, in seconds.
        maximum: The longest delay, in seconds.
        jitter: The greatest random part, as a fraction of the delay.
    """

    def __init__(self, initial: float = 0.5, maximum: float = 30.0, jitter: float = 0.2) -> None:
        if not 0 < initial <= maximum or jitter < 0:
            raise ValueError("'initial' is above 0 and not above 'maximum', 'jitter' not below 0")
        self._initial = initial
        self._maximum = maximum
        self._jitter = jitter
        self._next = initial

    def next(self) -> float:
        """Return the delay in seconds; the next one is twice as long."""
        wait = self._next
        self._next = min(2 * wait, self._maximum)
        return min(wait * (1 + self._jitter * fraction()), self._maximum)

    def reset(self) -> None:
        """Start from the initial delay, after a success."""
        self._next = self._initial
