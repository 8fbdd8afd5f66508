"""Do something again and again, at a fixed rate, until it is time to end."""

from __future__ import annotations

import time

from .chance import fraction
from .stopping import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Tick(int):
    """The number of a round, from 0; rounds that were skipped count.

    Attributes:
        missed: How many rounds were skipped before this one, because the work
            of the one before took longer.
    """

    missed: int = 0


def every(
    seconds: float, *, jitter: float = 0.1, stop: Stop | None = None, at_once: bool = True
) -> Iterator[Tick]:
    """Yield at a fixed rate until it is time to end, which ends the wait at once.

    Round ``n`` is due ``n * seconds`` after the beginning, plus a random part,
    whatever the rounds before took: nothing drifts. A round that comes due
    while the one before still works is skipped, not made up for.

    Args:
        seconds: From one round to the next.
        jitter: The random part is up to this part of ``seconds``, so that a
            fleet that was started together does not do the same in the same
            moment. 0: none.
        stop: What ends it; None: a new one.
        at_once: Whether the first round comes at once, rather than after
            ``seconds``.
    """
    if seconds <= 0 or not 0 <= jitter < 1:
        raise ValueError("'seconds' is above 0, 'jitter' from 0 to below 1")
    stop = Stop() if stop is None else stop
    begun = time.monotonic()
    number, missed = (0, 0) if at_once else (1, 0)
    due = begun if at_once else begun + seconds * (1 + jitter * fraction())
    while not stop.wait(due - time.monotonic()):
        tick = Tick(number)
        tick.missed = missed
        yield tick
        if stop.is_set():
            return
        now = time.monotonic()
        missed = -1
        while missed < 0 or due <= now:
            behind = int((now - begun) / seconds) - number - 1
            step = max(behind, 1)
            number, missed = number + step, missed + step
            due = begun + seconds * (number + jitter * fraction())
