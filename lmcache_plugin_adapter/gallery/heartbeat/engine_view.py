# SPDX-License-Identifier: Apache-2.0
"""The current view of the engine: the last verdict, shared by all registrars until it is stale."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from lmcache_plugin_adapter.gallery.engine_health.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable


class View(NamedTuple):
    """The engine as last seen."""

    verdict: Verdict
    """The last verdict, or an unhealthy one if the last is stale."""
    unhealthy_for: float
    """Seconds since the engine stopped working; 0 if it works."""
    number: int
    """Grows when the engine's state changes."""
    closed: bool
    """Whether the registrars must stop."""
    stale: bool
    """Whether the verdict is unhealthy only because it is old. Registrars then neither refresh the
    entry nor remove it: after a pause of the host, the next check is near."""


class EngineView:
    """Hand verdicts from the checking thread to the registrars.

    Args:
        good_for: Seconds after which a verdict is stale, because the checking thread may hang or
            the host may have been paused.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, good_for: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._good_for = good_for
        self._clock = clock
        self._changed = threading.Condition()
        self._verdict = Verdict(False, "not checked yet", "starting")
        self._at = self._unhealthy_since = clock()
        self._number = 0
        self._closed = False

    def post(self, verdict: Verdict) -> None:
        """Store a verdict; wake the waiting registrars if the engine's state changed."""
        with self._changed:
            last, unhealthy_for, *_ = self._read()
            now = self._clock()
            self._unhealthy_since = now - unhealthy_for
            self._verdict, self._at = verdict, now
            if (last.healthy, last.state) != (verdict.healthy, verdict.state):
                self._number += 1
                self._changed.notify_all()

    def close(self, verdict: Verdict | None = None) -> None:
        """Tell the registrars to stop; store a last verdict if there is one."""
        with self._changed:
            if verdict is not None:
                self._verdict, self._at = verdict, self._clock()
            self._closed = True
            self._number += 1
            self._changed.notify_all()

    def read(self) -> View:
        """Return the current view."""
        with self._changed:
            return self._read()

    def wait(self, number: int, seconds: float) -> None:
        """Wait until the number changes, at most ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: self._number != number, max(seconds, 0.0))

    def _read(self) -> View:
        now = self._clock()
        verdict = self._verdict
        since = self._unhealthy_since
        age = now - self._at
        stale = verdict.healthy and age > self._good_for
        if stale:
            verdict = Verdict(False, f"not checked for {age:.0f} s", "unresponsive")
            since = self._at + self._good_for
        unhealthy_for = 0.0 if verdict.healthy else now - since
        return View(verdict, unhealthy_for, self._number, self._closed, stale)
