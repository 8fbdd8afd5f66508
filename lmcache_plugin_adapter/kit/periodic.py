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
            moment. 0: none. A first round that comes at once has none.
        stop: What ends it; None: the last one made, or a new one.
        at_once: Whether the first round comes at once, rather than after
            ``seconds``.
    """
    if seconds <= 0 or not 0 <= jitter < 1:
        raise ValueError("'seconds' is above 0, 'jitter' from 0 to below 1")
    stop = stop or Stop.latest or Stop()
    begun = time.monotonic()
    tick = Tick(0 if at_once else 1)
    due = begun if at_once else begun + seconds * (1 + jitter * fraction())
    while not stop.wait(due - time.monotonic()):
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
