"""What goes wrong again and again, said at once and then once in a while."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit

if TYPE_CHECKING:
    from collections.abc import Callable


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
        self._next = self._clock() + self._every

    def over(self) -> float | None:
        """Return how many seconds it lasted, or None if there was none; say no more of it."""
        if self.since is None:
            return None
        lasted = self._clock() - self.since
        self.since = None
        self._text = None
        self._count = 0
        self._next = 0.0
        return lasted
