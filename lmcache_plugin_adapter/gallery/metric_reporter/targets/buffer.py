"""What waits for a target: bounded in samples and in age, the oldest given up first."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


class Parcel(msgspec.Struct, frozen=True, eq=False):
    """One request, ready to be sent: the same bytes every time it is tried."""

    body: bytes
    samples: int
    born: float
    """When its samples were read, by the monotonic clock."""
    method: str = "POST"


class Buffer:
    """Parcels on their way to one target, in order. For one that puts and one that takes.

    Args:
        samples: As many samples at most, in all parcels.
        seconds: No parcel is older.
        latest_only: A new parcel takes the place of all before, which counts as no loss.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        *,
        samples: int,
        seconds: float,
        latest_only: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = samples
        self._seconds = seconds
        self._latest_only = latest_only
        self._clock = clock
        self._waiting: deque[Parcel] = deque()
        self._samples = 0
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, parcel: Parcel) -> None:
        """Add the newest parcel; the oldest go where there is no room."""
        with self._changed:
            if self._latest_only:
                self._waiting.clear()
                self._samples = 0
            self._waiting.append(parcel)
            self._samples += parcel.samples
            self._shed()
            self._changed.notify_all()

    def put_back(self, parcel: Parcel) -> None:
        """Add the oldest parcel again: it could not be sent."""
        with self._changed:
            if self._latest_only and self._waiting:
                return  # there is a newer state by now
            self._waiting.appendleft(parcel)
            self._samples += parcel.samples
            self._shed()
            self._changed.notify_all()

    def take(self, timeout: float) -> Parcel | None:
        """Return the oldest parcel, or None if there is none within ``timeout`` seconds."""
        with self._changed:
            self._shed()
            if not self._waiting and not self._closed:
                self._changed.wait(timeout)
                self._shed()
            if not self._waiting:
                return None
            parcel = self._waiting.popleft()
            self._samples -= parcel.samples
            return parcel

    def close(self) -> None:
        """Let no ``take`` wait any more: what is there is all that will be."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def samples(self) -> int:
        """Samples that wait."""
        return self._samples

    @property
    def requests(self) -> int:
        """Parcels that wait."""
        return len(self._waiting)

    def dropped(self) -> int:
        """Return how many samples were given up since this was last asked."""
        with self._changed:
            self._shed()
            count, self._dropped = self._dropped, 0
            return count

    def _shed(self) -> None:
        oldest = self._clock() - self._seconds
        while self._waiting and (
            self._waiting[0].born < oldest
            # What is larger than the whole bound is kept alone rather than never sent.
            or (self._samples > self._most and len(self._waiting) > 1)
        ):
            parcel = self._waiting.popleft()
            self._samples -= parcel.samples
            self._dropped += parcel.samples
