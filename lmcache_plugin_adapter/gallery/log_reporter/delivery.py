"""Deliver one target's records: batches, retries, positions; what is lost is counted and said."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.log_reporter.reading.positions import StateError

from .in_flight import InFlight

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lmcache_plugin_adapter.gallery.log_reporter.reading.files import LogFiles
    from lmcache_plugin_adapter.gallery.log_reporter.reading.positions import Positions
    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record

_LINGER = 1.0
"""Seconds without a new line after which, once asked to end, there is nothing more to come."""

_LOOK = 0.1
"""Seconds between two looks at whether it is time to end, while a batch is under way."""

_MARGIN = 1.0
"""Seconds of the grace period that are left for the process's own end, at most a quarter."""

_SAVED_EVERY = 5.0
"""Seconds between two saves of the positions when nothing is delivered."""

_SAID_AGAIN = 60.0
"""Seconds between two lines on the same trouble."""


class UnavailableError(Exception):
    """The target did not take the records; later it may.

    Args:
        reason: Why, in words that go on in a sentence.
        retry_after: Seconds for which it wants to be left alone, if it said so.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class RefusedError(Exception):
    """The target will never take these records; the text says why.

    Args:
        reason: Why, in words that go on in a sentence.
        records: How many it refused; None: all of them.
        too_large: Whether fewer at a time may do.
    """

    def __init__(self, reason: str, records: int | None = None, *, too_large: bool = False) -> None:
        super().__init__(reason)
        self.records = records
        self.too_large = too_large


class Target(Protocol):
    """Where records go."""

    name: str
    """For messages: kind and address, no credentials."""

    def send(self, records: Sequence[Record], timeout: float) -> None:
        """Deliver the records; return when the target has confirmed them.

        Args:
            records: At least one.
            timeout: Seconds that it may take at most.

        Raises:
            UnavailableError: Not now.
            RefusedError: Never.
        """

    def close(self) -> None:
        """Close connections; batches under way, if any, are left behind."""


class Batching(NamedTuple):
    """When a batch is sent: as soon as one of these is reached.

    Attributes:
        records: Its records.
        bytes: Its text.
        age: Seconds since its first record was read.
        poll: Seconds between two looks at the files.
    """

    records: int
    bytes: int
    age: float
    poll: float


class Ending(Protocol):
    """When to end; as :class:`.kit.Stop`."""

    def is_set(self) -> bool:
        """Whether to end."""

    def wait(self, seconds: float) -> bool:
        """Wait, but not on when it is time to end."""

    def remaining(self) -> float:
        """Seconds that are left."""


def margin_of(stop: Ending) -> float:
    """Return how much of the grace period is left for the process's own end, in seconds.

    Args:
        stop: Asked before it is time to end.
    """
    return min(_MARGIN, stop.remaining() / 4)


class Delivery:
    """Follows the files for one target until it is time to end.

    Args:
        target: Where records go.
        timeout: Seconds that the target has for one batch.
        files: Where they come from.
        state: Where positions are remembered; None: nowhere.
        batching: When a batch is sent.
        stop: When to end.
    """

    def __init__(
        self,
        target: Target,
        timeout: float,
        files: LogFiles,
        state: Positions | None,
        batching: Batching,
        stop: Ending,
    ) -> None:
        self._target = target
        self._timeout = timeout
        self._files = files
        self._state = state
        self._batching = batching
        self._stop = stop
        self._margin = margin_of(stop)
        self._backoff = kit.Backoff()
        self._queue: deque[Record] = deque()
        self._bytes = 0
        self._since = 0.0
        self._limit = batching.records
        self._not_before = 0.0
        self._saved_at = 0.0
        self._down_since: float | None = None
        self._troubles = _Troubles(target.name)
        self.delivered = 0
        self.refused = 0

    def run(self) -> None:
        """Deliver until it is time to end and everything is delivered, or time is over."""
        quiet_since = ended_at = 0.0
        while True:
            now = time.monotonic()
            ending = self._stop.is_set()
            if ending and not ended_at:
                quiet_since = ended_at = now
                self._not_before = 0.0  # the target may be back
            if ending and self._stop.remaining() <= self._margin:
                break
            self._files.poll(now)
            lines = self._files.lines
            self._fill(now)
            if self._queue and now >= self._not_before and (ending or self._is_due(now)):
                self._send()
                continue
            if now - self._saved_at >= _SAVED_EVERY:
                self._save()
            if not ending:
                self._stop.wait(self._pause(now))
                continue
            if self._files.lines > lines:
                quiet_since = now
            if now - quiet_since >= _LINGER and not self._queue:
                break
            time.sleep(0.02 if self._not_before <= now else 0.05)
        self._end()

    def _end(self) -> None:
        """Take what is left: lines without a newline, records that waited for more lines."""
        if self._stop.remaining() > self._margin and self._down_since is None:
            now = time.monotonic()
            self._queue.extend(
                self._files.take(self._batching.records, self._batching.bytes, now, final=True)
            )
            while self._queue and self._stop.remaining() > self._margin:
                if not self._send():
                    break
        self._save()
        left = len(self._queue)
        text = f"Delivered {self.delivered:,} records to {self._target.name}"
        if self.refused:
            text += f"; it refused {self.refused:,}"
        if left or self._files.unread:
            text += (
                f"; {left:,} records and {self._files.unread:,} bytes that were not read wait "
                "for the next start"
            )
        kit.info(text)
        self._target.close()
        self._files.close()

    def _fill(self, now: float) -> None:
        """Read up to one batch."""
        if self._bytes >= self._batching.bytes or len(self._queue) >= self._batching.records:
            return
        room = self._batching.records - len(self._queue)
        records = self._files.take(room, self._batching.bytes - self._bytes, now)
        if records and not self._queue:
            self._since = now
        self._queue.extend(records)
        self._bytes += sum(len(record.text) for record in records)

    def _is_due(self, now: float) -> bool:
        return (
            len(self._queue) >= self._batching.records
            or self._bytes >= self._batching.bytes
            or now - self._since >= self._batching.age
        )

    def _pause(self, now: float) -> float:
        """Return how long nothing is to be done."""
        pause = self._batching.poll
        if self._queue:
            due = max(self._since + self._batching.age, self._not_before)
            pause = min(pause, max(due - now, 0.01))
        return pause

    def _batch(self) -> tuple[list[Record], list[Record]]:
        """Return the next records of the queue, and those of them to be sent."""
        taken: list[Record] = []
        wanted: list[Record] = []
        size = 0
        for record in self._queue:
            if wanted and (size >= self._batching.bytes or len(wanted) >= self._limit):
                break
            taken.append(record)
            if record.wanted:
                wanted.append(record)
                size += len(record.text)
        return taken, wanted

    def _send(self) -> bool:
        """Deliver the queue's first batch; whether it is off the queue."""
        taken, wanted = self._batch()
        timeout = self._timeout
        if self._stop.is_set():
            timeout = min(timeout, max(self._stop.remaining() - self._margin, 0.05))
        try:
            if wanted:
                self._deliver(wanted, timeout)
        except UnavailableError as error:
            self._unavailable(error)
            return False
        except RefusedError as error:
            if error.too_large and len(wanted) > 1:
                self._limit = max(len(wanted) // 2, 1)
                return False
            refused = len(wanted) if error.records is None else error.records
            self.refused += refused
            self.delivered += len(wanted) - refused
            self._troubles.say(
                "refused", f"refused {refused:,} records, which are lost: {error}", refused
            )
        else:
            self.delivered += len(wanted)
        self._limit = min(self._limit * 2, self._batching.records)
        self._acknowledge(taken)
        self._available()
        return True

    def _deliver(self, records: list[Record], timeout: float) -> None:
        """Have the target take the records.

        What is under way when it is time to end has half of the time that is left: if it
        hangs, another connection may not.
        """
        if self._stop.is_set():
            self._target.send(records, timeout)
            return
        flight = InFlight(lambda: self._target.send(records, timeout))
        flight.start()
        until: float | None = None
        while flight.is_alive():
            flight.join(_LOOK)
            left = self._stop.remaining() - self._margin
            if self._stop.is_set() and until is None:
                until = left / 2
            elif until is not None and left <= until and flight.is_alive():
                self._target.close()
                raise UnavailableError("not confirmed in time")
        flight.result()

    def _acknowledge(self, taken: list[Record]) -> None:
        for record in taken:
            if record.tailed is not None:
                record.tailed.acked = max(record.tailed.acked, record.end)
            self._queue.popleft()
        self._bytes = sum(len(record.text) for record in self._queue)
        self._since = time.monotonic()
        self._save()

    def _unavailable(self, error: UnavailableError) -> None:
        now = time.monotonic()
        pause = self._backoff.next()
        if error.retry_after is not None:
            pause = min(max(pause, error.retry_after), 300.0)
        if self._stop.is_set():
            pause = min(pause, 0.5)
        self._not_before = now + pause
        if self._down_since is None:
            self._down_since = now
        self._troubles.say(
            "unavailable",
            f"cannot be reached: {error}; nothing is lost as long as the files are there, and "
            "it is tried again with growing pauses",
        )

    def _available(self) -> None:
        self._backoff.reset()
        self._not_before = 0.0
        if self._down_since is not None:
            seconds = time.monotonic() - self._down_since
            self._down_since = None
            self._troubles.over("unavailable")
            kit.info(f"Delivers to {self._target.name} again, after {seconds:.0f} s")

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self._state is None:
            return
        try:
            self._state.save(self._files.positions())
        except StateError as error:
            self._troubles.say(
                "state",
                f"has its place remembered no longer: {error}; after a restart records will "
                "be delivered twice",
            )
        else:
            self._troubles.over("state")


class _Troubles:
    """Says each kind of trouble when it begins, and once in a while when it goes on."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._said: dict[str, tuple[float, str]] = {}
        self._count: dict[str, int] = {}

    def say(self, kind: str, text: str, count: int = 0) -> None:
        """Say it unless the like was said in the last minute."""
        now = self._clock()
        self._count[kind] = self._count.get(kind, 0) + count
        last = self._said.get(kind)
        if last is not None and now - last[0] < _SAID_AGAIN:
            return
        total = self._count[kind]
        more = f" ({total:,} in all)" if total > count else ""
        kit.warning(f"{self._name} {text}{more}")
        self._said[kind] = (now, text)

    def over(self, kind: str) -> None:
        """The trouble is over; the next one is said at once."""
        self._said.pop(kind, None)
