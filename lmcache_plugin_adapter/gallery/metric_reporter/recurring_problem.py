# SPDX-License-Identifier: Apache-2.0
"""Log a recurring problem at once, then at intervals with a count."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE = 3
"""The most lines in one period, if the problem ends and recurs."""


def times(number: int) -> str:
    """Return the count for a log line: `` (7 times)``, or nothing for one."""
    return "" if number == 1 else f" ({number} times)"


class RecurringProblem:
    """One kind of problem, with the count since its last log line.

    Args:
        every: Seconds between two lines.
        log: Logs a line.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        every: float,
        log: Callable[[str], None] = kit.warning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every = every
        self._log = log
        self._clock = clock
        self._next = 0.0
        self._lines: deque[float] = deque(maxlen=AT_ONCE)
        self._logged = False
        self._text: Callable[[int], str] | None = None
        self._count = 0
        self.since: float | None = None
        """When it began; None while there is no problem."""

    def happened(self, text: Callable[[int], str], count: int = 1) -> None:
        """Count an occurrence; ``text`` makes the line from the count."""
        now = self._clock()
        if self.since is None:
            self.since = now
        self._count += count
        self._text = text
        if now >= self._next:
            self.flush()

    def remind(self) -> None:
        """Log the count if a line is due."""
        if self._clock() >= self._next:
            self.flush()

    def flush(self) -> None:
        """Log the count now, if there is one."""
        if self._text is None:
            return
        self._log(self._text(self._count))
        self._text = None
        self._count = 0
        self._logged = True
        self._lines.append(self._clock())
        self._next = self._clock() + self._every

    def over(self) -> float | None:
        """End the problem; return how many seconds it lasted.

        None if there was no problem, or none that was logged: the next one then includes its count.
        """
        if self.since is None:
            return None
        lasted = self._clock() - self.since
        self.since = None
        # A problem that keeps recurring is logged no more often than one that stays.
        self._next = self._lines[0] + self._every if len(self._lines) == AT_ONCE else 0.0
        if not self._logged:
            return None
        self._logged = False
        self._text = None
        self._count = 0
        return lasted
