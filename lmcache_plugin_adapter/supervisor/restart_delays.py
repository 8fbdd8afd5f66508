# SPDX-License-Identifier: Apache-2.0
"""The delays before restarts and before scheduled runs of one plugin."""

from __future__ import annotations

import os
import time

from lmcache_plugin_adapter.contract.backoff import backoff_delay
from lmcache_plugin_adapter.messages.wording import counted, span


class Restarts:
    """Count the restarts of one plugin and choose the delay before each.

    Args:
        backoff: Seconds: the first delay, the longest, and the uptime that
            resets the delay.
    """

    __slots__ = ("_backoff", "attempt", "count", "due")

    def __init__(self, backoff: tuple[float, float, float]) -> None:
        self._backoff = backoff
        self.count = 0
        self.due = 0.0
        """The monotonic time of the next start."""
        self.attempt = 0
        """The number of delays since the last reset."""

    def plan_next(self, uptime: float | None = None) -> str:
        """Choose the delay before the next start, and return it in words.

        Args:
            uptime: Seconds of the previous run; None if the plugin did not start.
        """
        initial, maximum, reset_after = self._backoff
        if uptime is not None and uptime >= reset_after:
            self.attempt = 0
        self.attempt += 1
        delay = backoff_delay(self.attempt, initial, maximum, os.urandom(1)[0] / 256)
        self.due = time.monotonic() + delay
        if uptime is None:
            return f"trying again in {span(delay)} (attempt {self.attempt + 1})"
        return f"starting again in {span(delay)} (restart {self.count + 1})"


class Schedule:
    """Choose the times of scheduled runs: at a fixed rate, however long the runs take.

    Args:
        every: Seconds from the start of one run to the start of the next.
        jitter: The greatest random delay of a run, in seconds.
    """

    __slots__ = ("_begun", "_every", "_jitter", "_round", "due")

    def __init__(self, every: float, jitter: float) -> None:
        self._every = every
        self._jitter = jitter
        self.due = 0.0
        """The monotonic time of the next run."""
        self.begin()

    def begin(self) -> None:
        """Count the intervals from now."""
        self._begun = time.monotonic()
        self._round = 0

    def plan_next(self) -> str:
        """Choose the time of the next run, and return it in words.

        Runs that came due during the last one are skipped.
        """
        now = time.monotonic()
        following = int((now - self._begun) // self._every) + 1
        skipped = following - self._round - 1
        self._round = following
        spread = self._jitter * os.urandom(1)[0] / 256
        self.due = self._begun + following * self._every + spread
        text = f"next run in {span(max(self.due - now, 0.0))}"
        return f"{text} ({counted(skipped, 'run')} skipped)" if skipped > 0 else text
