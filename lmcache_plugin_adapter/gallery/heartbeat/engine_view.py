"""The last verdict on the engine, for all who register it. An old verdict is none."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from lmcache_plugin_adapter.gallery.engine_health.health import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable


class Notice(NamedTuple):
    """What stands on the board.

    Attributes:
        verdict: The last one, or that it is too old.
        unhealthy_for: Seconds since the engine did not work, 0 if it does.
        number: Grows when the engine's state changes.
        closed: Whether it is time to end.
        stale: Whether the verdict is unhealthy only because it is old: nobody knows better. The
            entry is not refreshed then, and not taken back either, since a host that was paused
            for a moment knows better in the next.
    """

    verdict: Verdict
    unhealthy_for: float
    number: int
    closed: bool
    stale: bool


class Board:
    """Verdicts from one thread, for many.

    Args:
        good_for: Seconds after which a verdict says nothing any more: the one who examines the
            engine may hang, or the whole host may have been stopped.
        clock: Seconds that only grow.
    """

    def __init__(self, good_for: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._good_for = good_for
        self._clock = clock
        self._changed = threading.Condition()
        self._verdict = Verdict(False, "not looked at yet", "starting")
        self._at = self._unhealthy_since = clock()
        self._number = 0
        self._closed = False

    def post(self, verdict: Verdict) -> None:
        """Put up a verdict; wakes up who waits if the engine's state is another now."""
        with self._changed:
            last, unhealthy_for, *_ = self._read()
            now = self._clock()
            self._unhealthy_since = now - unhealthy_for
            self._verdict, self._at = verdict, now
            if (last.healthy, last.state) != (verdict.healthy, verdict.state):
                self._number += 1
                self._changed.notify_all()

    def close(self, verdict: Verdict | None = None) -> None:
        """Say that it is time to end, and put up a last verdict if there is one."""
        with self._changed:
            if verdict is not None:
                self._verdict, self._at = verdict, self._clock()
            self._closed = True
            self._number += 1
            self._changed.notify_all()

    def read(self) -> Notice:
        """Return what stands here."""
        with self._changed:
            return self._read()

    def wait(self, number: int, seconds: float) -> None:
        """Wait for another number, at most so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._number != number, max(seconds, 0.0))

    def _read(self) -> Notice:
        now = self._clock()
        verdict = self._verdict
        since = self._unhealthy_since
        age = now - self._at
        stale = verdict.healthy and age > self._good_for
        if stale:
            verdict = Verdict(False, f"not looked at for {age:.0f} s", "unresponsive")
            since = self._at + self._good_for
        unhealthy_for = 0.0 if verdict.healthy else now - since
        return Notice(verdict, unhealthy_for, self._number, self._closed, stale)
