# SPDX-License-Identifier: Apache-2.0
"""Repeat work at a fixed rate until the plugin is to stop."""

from __future__ import annotations

import time

from .chance import fraction
from .notifying import notify, watchdog_seconds
from .stopping import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Tick(int):
    """The number of a round, from 0; skipped rounds count.

    Attributes:
        missed: The number of rounds skipped before this one, because the previous one took longer.
    """

    missed: int = 0


def every(
    seconds: float, *, jitter: float = 0.1, stop: Stop | None = None, at_once: bool = True
) -> Iterator[Tick]:
    """Yield at a fixed rate until the plugin is to stop, which ends the wait at once.

    Round ``n`` starts ``n * seconds`` after the beginning, plus a random part, however long the
    previous rounds took. A round that comes due during the previous one is skipped.

    Each round, and the wait for it, is a sign of life for the watchdog.

    Args:
        seconds: The time from one round to the next.
        jitter: The greatest random part, as a fraction of ``seconds``, so that plugins started
            together do not work in the same moment. An immediate first round has none.
        stop: Ends the rounds; None: the latest stop, or a new one.
        at_once: Whether the first round comes at once, or after ``seconds``.
    """
    if seconds <= 0 or not 0 <= jitter < 1:
        raise ValueError("'seconds' is above 0, 'jitter' from 0 to below 1")
    stop = stop or Stop.latest or Stop()
    begun = time.monotonic()
    tick = Tick(0 if at_once else 1)
    due = begun if at_once else begun + seconds * (1 + jitter * fraction())
    while not _wait(stop, due):
        yield tick
        following = tick + 1
        due = begun + seconds * (following + jitter * fraction())
        now = time.monotonic()
        if due <= now:
            following = max(following, -int((begun - now) // seconds))
            due = begun + seconds * (following + jitter * fraction())
        missed = following - tick - 1
        tick = Tick(following)
        tick.missed = missed


def _wait(stop: Stop, due: float) -> bool:
    """Wait until ``due`` or the stop, and feed the watchdog meanwhile; return whether to stop."""
    watchdog = watchdog_seconds()
    if watchdog is None:
        return stop.wait(due - time.monotonic())
    while True:
        notify("WATCHDOG=1")
        left = due - time.monotonic()
        if stop.wait(min(left, watchdog / 2)):
            return True
        if left <= watchdog / 2:
            notify("WATCHDOG=1")
            return False
