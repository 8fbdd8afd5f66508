# SPDX-License-Identifier: Apache-2.0
"""Log each kind of problem when it begins, and at intervals while it lasts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY = 60.0
"""Seconds between two lines about the same problem."""


class ProblemLog:
    """The problems of one target.

    Args:
        name: The target, which begins each line.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        self._count: dict[str, int] = {}

    def report(self, kind: str, text: str, count: int = 0) -> None:
        """Log a problem, unless one of its kind was logged in the last minute."""
        now = self._clock()
        total = self._count[kind] = self._count.get(kind, 0) + count
        if kind in self._logged_at and now - self._logged_at[kind] < _EVERY:
            return
        more = f" ({total:,} in all)" if total > count else ""
        kit.warning(f"{self._name} {text}{more}")
        self._logged_at[kind] = now

    def over(self, kind: str) -> None:
        """End a problem: the next one of its kind is logged at once."""
        self._logged_at.pop(kind, None)
