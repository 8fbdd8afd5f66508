# SPDX-License-Identifier: Apache-2.0
"""Deliver the records of one target in batches, with retries; log and count losses."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.log_reporter.reading.positions import StateError
from lmcache_plugin_adapter.gallery.log_reporter.targets.target import (
    RecordsRefusedError,
    TargetUnavailableError,
)
from lmcache_plugin_adapter.messages.wording import counted

from .in_flight import InFlight
from .problem_log import ProblemLog

if TYPE_CHECKING:
    from lmcache_plugin_adapter.gallery.log_reporter.reading.files import FollowedFiles
    from lmcache_plugin_adapter.gallery.log_reporter.reading.positions import Positions
    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record
    from lmcache_plugin_adapter.gallery.log_reporter.targets.target import LogTarget

    from .filtering import RecordFilter
    from .sources import Sources

_LINGER = 1.0
"""Seconds without a new line after which, during the stop, no more lines are expected."""

_LOOK = 0.1
"""Seconds between two checks for the stop while a batch is in flight."""

_MARGIN = 1.0
"""Seconds of the grace period reserved for the process's exit, at most a quarter of it."""

_SAVED_EVERY = 5.0
"""Seconds between two saves of the positions while nothing is delivered."""

_LONGEST_PAUSE = 300.0
"""The longest pause that a target may ask for (Retry-After)."""


class Batching(NamedTuple):
    """When to send a batch: as soon as one of the first three limits is reached."""

    records: int
    """The number of records."""
    bytes: int
    """The size of their text."""
    age: float
    """Seconds since the first record was read."""
    poll: float
    """Seconds between two reads of the files."""


def margin_of(stop: kit.Stop) -> float:
    """Return the seconds of the grace period reserved for the process's exit.

    Args:
        stop: The plugin's stop, not set yet.
    """
    return min(_MARGIN, stop.remaining() / 4)


class LogDelivery:
    """Follow the files for one target until the plugin is to stop.

    Args:
        target: The target of the records.
        files: The followed files, or several sources.
        state: The stored positions; None: positions are not stored.
        batching: When to send a batch.
        filtering: Leaves out records and hides text.
        stop: Tells when to stop.
    """

    def __init__(
        self,
        target: LogTarget,
        files: FollowedFiles | Sources,
        state: Positions | None,
        batching: Batching,
        filtering: RecordFilter,
        stop: kit.Stop,
    ) -> None:
        self._target = target
        self._files = files
        self._state = state
        self._batching = batching
        self._filter = filtering
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
        self._problems = ProblemLog(target.name)
        self.delivered = 0
        self.refused = 0

    def run(self) -> None:
        """Deliver until the stop; then deliver the rest, as long as the grace period lasts."""
        quiet_since = stopped_at = 0.0
        while True:
            now = time.monotonic()
            stopping = self._stop.is_set()
            if stopping and not stopped_at:
                quiet_since = stopped_at = now
                self._not_before = 0.0  # the target may have returned
            if stopping and self._stop.remaining() <= self._margin:
                break
            self._files.poll(now)
            lines = self._files.lines
            self._fill(now)
            if self._queue and now >= self._not_before and (stopping or self._is_due(now)):
                self._send()
                continue
            if now - self._saved_at >= _SAVED_EVERY:
                self._save()
            if not stopping:
                self._stop.wait(self._pause(now))
                continue
            if self._files.lines > lines:
                quiet_since = now
            if now - quiet_since >= _LINGER and not self._queue:
                break
            time.sleep(0.02 if self._not_before <= now else 0.05)
        self._finish()

    def _finish(self) -> None:
        """Deliver lines without a newline and records that waited for more lines."""
        if self._stop.remaining() > self._margin and self._down_since is None:
            now = time.monotonic()
            self._put(
                self._files.take(self._batching.records, self._batching.bytes, now, final=True)
            )
            while self._queue and self._stop.remaining() > self._margin:
                if not self._send():
                    break
        self._save()
        left = len(self._queue)
        text = f"Delivered {counted(self.delivered, 'record')} to {self._target.name}"
        if self._filter.dropped:
            text += f"; dropped {self._filter.dropped:,} that match 'drop'"
        if self.refused:
            text += f"; it refused {self.refused:,}"
        if left or self._files.unread:
            text += f"; {counted(left, 'record')} and {counted(self._files.unread, 'byte')}"
            text += " that were not read wait for the next start"
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
        self._put(records)

    def _put(self, records: list[Record]) -> None:
        for record in records:
            self._filter.apply(record)
        self._queue.extend(records)
        self._bytes += sum(len(record.text) for record in records)

    def _is_due(self, now: float) -> bool:
        return (
            len(self._queue) >= self._batching.records
            or self._bytes >= self._batching.bytes
            or now - self._since >= self._batching.age
        )

    def _pause(self, now: float) -> float:
        """Return the seconds until there is something to do."""
        pause = self._batching.poll
        if self._queue:
            due = max(self._since + self._batching.age, self._not_before)
            pause = min(pause, max(due - now, 0.01))
        return pause

    def _batch(self) -> tuple[list[Record], list[Record]]:
        """Return the next records of the queue, and those of them to send."""
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
        """Send the first batch; return whether it left the queue."""
        taken, wanted = self._batch()
        timeout = self._target.timeout
        if self._stop.is_set():
            timeout = min(timeout, max(self._stop.remaining() - self._margin, 0.05))
        try:
            if wanted:
                self._deliver(wanted, timeout)
        except TargetUnavailableError as error:
            self._unavailable(error)
            return False
        except RecordsRefusedError as error:
            if error.too_large and len(wanted) > 1:
                self._limit = max(len(wanted) // 2, 1)
                return False
            refused = len(wanted) if error.records is None else error.records
            self.refused += refused
            self.delivered += len(wanted) - refused
            self._problems.report(
                "refused",
                f"refused {counted(refused, 'record')}, which {'is' if refused == 1 else 'are'} "
                f"lost: {error}",
                refused,
            )
        else:
            self.delivered += len(wanted)
        self._limit = min(self._limit * 2, self._batching.records)
        self._acknowledge(taken)
        self._available()
        return True

    def _deliver(self, records: list[Record], timeout: float) -> None:
        """Send records and wait for the confirmation.

        A batch in flight at the stop gets half of the remaining time: if it hangs, a new
        connection may still succeed.
        """
        if self._stop.is_set():
            self._target.send(records, timeout)
            return
        request = InFlight(lambda: self._target.send(records, timeout))
        request.start()
        until: float | None = None
        while request.is_alive():
            request.join(_LOOK)
            left = self._stop.remaining() - self._margin
            if self._stop.is_set() and until is None:
                until = left / 2
            elif until is not None and left <= until and request.is_alive():
                self._target.close()
                raise TargetUnavailableError("not confirmed in time")
        request.result()

    def _acknowledge(self, taken: list[Record]) -> None:
        for record in taken:
            if record.tailed is not None:
                record.tailed.acked = max(record.tailed.acked, record.confirmed)
            self._queue.popleft()
        self._bytes = sum(len(record.text) for record in self._queue)
        self._since = time.monotonic()
        self._save()

    def _unavailable(self, error: TargetUnavailableError) -> None:
        now = time.monotonic()
        pause = self._backoff.next()
        if error.retry_after is not None:
            pause = min(max(pause, error.retry_after), _LONGEST_PAUSE)
        if self._stop.is_set():
            pause = min(pause, 0.5)
        self._not_before = now + pause
        if self._down_since is None:
            self._down_since = now
        self._problems.report(
            "unavailable",
            f"cannot be reached: {error}; retrying with growing pauses; nothing is lost while the "
            "files exist",
        )

    def _available(self) -> None:
        self._backoff.reset()
        self._not_before = 0.0
        if self._down_since is not None:
            seconds = time.monotonic() - self._down_since
            self._down_since = None
            self._problems.over("unavailable")
            kit.info(f"Delivers to {self._target.name} again, after {seconds:.0f} s")

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self._state is None:
            return
        try:
            self._state.save(self._files.positions())
        except StateError as error:
            self._problems.report(
                "state",
                f"has its positions stored no longer: {error}; after a restart, records will "
                "be delivered twice",
            )
        else:
            self._problems.over("state")
