# SPDX-License-Identifier: Apache-2.0
"""The queue of batches for one target, bounded in samples and age; the oldest are dropped first."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


class Batch(msgspec.Struct, frozen=True, eq=False):
    """One encoded request; each retry sends the same bytes."""

    body: bytes
    samples: int
    born: float
    """When its samples were read, by the monotonic clock."""
    method: str = "POST"


class Buffer:
    """A queue between one producer and one consumer.

    Args:
        samples: The most samples in all batches.
        seconds: The greatest age of a batch.
        latest_only: A new batch replaces all others, which does not count as a loss.
        clock: A monotonic clock, in seconds.
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
        self._waiting: deque[Batch] = deque()
        self._samples = 0
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, batch: Batch) -> None:
        """Append a batch; drop the oldest ones if there is no room."""
        with self._changed:
            if self._latest_only:
                self._waiting.clear()
                self._samples = 0
            self._waiting.append(batch)
            self._added(batch)

    def put_back(self, batch: Batch) -> None:
        """Return a batch that could not be sent to the front of the queue."""
        with self._changed:
            if self._latest_only and self._waiting:
                return  # a newer batch has replaced it
            self._waiting.appendleft(batch)
            self._added(batch)

    def take(self, timeout: float) -> Batch | None:
        """Return the oldest batch, or None if there is none within ``timeout`` seconds."""
        with self._changed:
            self._drop_excess()
            if not self._waiting and not self._closed:
                self._changed.wait(timeout)
                self._drop_excess()
            return self._pop() if self._waiting else None

    def close(self) -> None:
        """Wake :meth:`take`, which no longer waits: nothing more will be added."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def samples(self) -> int:
        """The number of queued samples."""
        return self._samples

    @property
    def requests(self) -> int:
        """The number of queued batches."""
        return len(self._waiting)

    def dropped(self) -> int:
        """Return how many samples were dropped since the last call."""
        with self._changed:
            self._drop_excess()
            count, self._dropped = self._dropped, 0
            return count

    def _added(self, batch: Batch) -> None:
        self._samples += batch.samples
        self._drop_excess()
        self._changed.notify_all()

    def _pop(self) -> Batch:
        batch = self._waiting.popleft()
        self._samples -= batch.samples
        return batch

    def _drop_excess(self) -> None:
        oldest = self._clock() - self._seconds
        while self._waiting and (
            self._waiting[0].born < oldest
            # A single batch larger than the bound is kept: otherwise it would never be sent.
            or (self._samples > self._most and len(self._waiting) > 1)
        ):
            self._dropped += self._pop().samples
