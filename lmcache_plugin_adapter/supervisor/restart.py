# SPDX-License-Identifier: Apache-2.0
"""The delays before restarts of one plugin."""

from __future__ import annotations

import os
import time

from lmcache_plugin_adapter.contract.backoff import backoff_delay


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

    def next_delay(self, uptime: float | None = None) -> float:
        """Choose the delay before the next start.

        Args:
            uptime: Seconds of the previous run; None if the plugin did not start.
        """
        initial, maximum, reset_after = self._backoff
        if uptime is not None and uptime >= reset_after:
            self.attempt = 0
        self.attempt += 1
        delay = backoff_delay(self.attempt, initial, maximum, os.urandom(1)[0] / 256)
        self.due = time.monotonic() + delay
        return delay
