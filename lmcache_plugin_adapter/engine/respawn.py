# SPDX-License-Identifier: Apache-2.0
"""When the next supervisor starts after one was killed, and when no other one can help."""

from __future__ import annotations

import time

from lmcache_plugin_adapter.contract.backoff import backoff_delay

INITIAL_SECONDS = 0.1
MAX_SECONDS = 30.0
_RESET_AFTER = 30.0

_MOST_UNREADY = 5
_UNREADY_SECONDS = 60.0


class Respawn:
    """Counts the supervisors of one keeper that were killed or never became ready."""

    def __init__(self) -> None:
        self._attempt = 0
        self.unready = 0
        """How many in a row exited before they were ready."""
        self._started = self._ready_at = time.monotonic()

    def started(self) -> None:
        """Note the start of a supervisor."""
        self._started = time.monotonic()

    def exited(self, ready: bool) -> None:
        """Note the exit of a supervisor, and whether it had become ready."""
        now = time.monotonic()
        if now - self._started > _RESET_AFTER:
            self._attempt = 0
        if ready:
            self.unready, self._ready_at = 0, now
        else:
            self.unready += 1

    @property
    def hopeless(self) -> bool:
        """Whether to start no other one: too many in a row were never ready, for too long."""
        since = time.monotonic() - self._ready_at
        return self.unready >= _MOST_UNREADY and since >= _UNREADY_SECONDS

    def next_delay(self) -> float:
        """Return the seconds to wait before the next start; doubles each time."""
        self._attempt += 1
        return backoff_delay(self._attempt, INITIAL_SECONDS, MAX_SECONDS)
