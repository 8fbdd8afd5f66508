"""What goes wrong again and again, said at once and then once in a while."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE = 3
"""So many lines may come in one period, where a trouble is over and there is another."""


def times(number: int) -> str:
    """Return what a line says of how often it has happened since the last: `` (7 times)``."""
    return "" if number == 1 else f" ({number} times)"


class Trouble:
    """One kind of trouble, with what has added up since it was last said.

    Args:
        every: Seconds between two lines.
        say: Prints a line.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        every: float,
        say: Callable[[str], None] = kit.warning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every = every
        self._say = say
        self._clock = clock
        self._next = 0.0
        self._lines: deque[float] = deque(maxlen=AT_ONCE)
        self._told = False
        self._text: Callable[[int], str] | None = None
        self._count = 0
        self.since: float | None = None
        """When it began; None while all is well."""

    def happened(self, text: Callable[[int], str], count: int = 1) -> None:
        """Add to it; ``text`` makes the line of what has added up."""
        now = self._clock()
        if self.since is None:
            self.since = now
        self._count += count
        self._text = text
        if now >= self._next:
            self.flush()

    def remind(self) -> None:
        """Say what has added up, if its time has come."""
        if self._clock() >= self._next:
            self.flush()

    def flush(self) -> None:
        """Say what has added up, if anything, now."""
        if self._text is None:
            return
        self._say(self._text(self._count))
        self._text = None
        self._count = 0
        self._told = True
        self._lines.append(self._clock())
        self._next = self._clock() + self._every

    def over(self) -> float | None:
        """Return how many seconds it lasted, and say no more of it.

        None if there was none, or none that was said: its count goes to the next.
        """
        if self.since is None:
            return None
        lasted = self._clock() - self.since
        self.since = None
        # What comes and goes all the time is said no more often than what stays.
        self._next = self._lines[0] + self._every if len(self._lines) == AT_ONCE else 0.0
        if not self._told:
            return None
        self._told = False
        self._text = None
        self._count = 0
        return lasted
