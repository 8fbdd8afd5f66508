# SPDX-License-Identifier: Apache-2.0
"""Write log records on a thread of its own, the only thread that may block.

The engine's stderr belongs to the engine: it is never made non-blocking and
never reopened. If nothing reads it, the thread waits in ``write``, the queue
fills up to a bound, and further records are dropped and counted.
"""

from __future__ import annotations

import _thread
import os
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Target(Protocol):
        """Where bytes end up."""

        @property
        def batch_bytes(self) -> int:
            """The most bytes of one write, except for a longer record."""

        def write(self, data: bytes) -> None:
            """Write ``data``, whole records; raises OSError."""

        def write_ready(self, data: bytes) -> bytes:
            """Write as much as possible without waiting; return the rest; raises OSError."""


QUEUE_BYTES = 1 << 20
"""Size of a queue from which records are dropped and counted."""

_LOW_WATER = QUEUE_BYTES // 4

FILE_BATCH_BYTES = 1 << 18
STREAM_BATCH_BYTES = 1 << 16
"""Small, so that the progress of a slow reader can be observed."""


class Writer:
    """A bounded queue and the thread that empties it.

    If no thread can be started because of a limit of processes, the caller of
    :meth:`put` also writes, as much as possible without waiting.

    Args:
        on_room: Called on the writer's thread when a full queue has room
            again, when a target refuses records for the first time since
            :meth:`collect_losses`, and when it takes records again.
        soon: Delays a callback until the caller has put all its records: waking
            the thread for each record would switch threads as often.
    """

    def __init__(
        self,
        on_room: Callable[[], None],
        soon: Callable[[Callable[[], None]], None] = lambda callback: callback(),
    ) -> None:
        self._on_room = on_room
        self._soon = soon
        self._queue: deque[tuple[Target, bytes, int]] = deque()
        self._pending = 0
        self._full = False
        self._busy = False
        self._lock = _thread.allocate_lock()
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC)
        self._started = False
        self.dropped = 0
        """Lines that a full queue did not take since :meth:`collect_losses`."""
        self._refused: dict[Target, tuple[int, str]] = {}
        self._refusing: set[Target] = set()
        self.written = 0
        """Batches that have left the queue, written or refused."""

    def put(self, target: Target, data: bytes, lines: int) -> bool:
        """Queue ``data`` (``lines`` whole records) for ``target``; False if it was dropped."""
        if not self._started:
            self._start()
        if self._pending >= QUEUE_BYTES:
            self._full = True
            self.dropped += lines
            return False
        with self._lock:
            first = not self._queue
            before = self._pending
            self._queue.append((target, data, lines))
            self._pending += len(data)
        if not self._started:
            self._write_ready()
        elif before < _LOW_WATER <= self._pending:
            self.wake()  # a burst must not fill the queue first
        elif first:
            self._soon(self.wake)
        return True

    @property
    def congested(self) -> bool:
        """Whether the queue is so full that producers should pause."""
        if self._pending > QUEUE_BYTES // 2:
            self._full = True
            return True
        return False

    def is_refused_by(self, target: Target) -> bool:
        """Whether ``target`` refused its last batch (disk full, reader gone)."""
        return target in self._refusing

    def collect_losses(self) -> tuple[int, dict[Target, tuple[int, str]]]:
        """Return the lines dropped, and for each target the lines refused and why; reset both."""
        with self._lock:
            losses = self.dropped, self._refused
            self.dropped, self._refused = 0, {}
        return losses

    def drain(self, patience: float, deadline: float) -> bool:
        """Wait until all is written, at most until ``deadline`` (monotonic).

        Returns:
            False if nothing was written for ``patience`` seconds.
        """
        self.wake()
        written = -1
        now = until = time.monotonic()
        while (self._queue or self._busy) and now < deadline:
            if self.written != written:
                written = self.written
                until = now + patience
            elif now >= until:
                return False
            if not self._started:
                self._write_ready()
            time.sleep(0.001)
            now = time.monotonic()
        return True

    def give_up(self) -> None:
        """Drop the queued records."""
        with self._lock:
            self.dropped += sum(lines for _, _, lines in self._queue)
            self._queue.clear()
            self._pending = 0

    def _start(self) -> None:
        """Start the thread; if that fails, the next record tries again."""
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:
            return
        self._started = True
        self.wake()

    def wake(self) -> None:
        """Wake the thread if it sleeps and records are queued."""
        with self._lock:
            asleep = bool(self._queue) and not self._busy
        if asleep:
            os.write(self._wake_w, b"w")

    def _write_ready(self) -> None:
        """Write without a thread, and without waiting."""
        while self._queue:
            target, data, lines = self._queue.popleft()
            try:
                rest = target.write_ready(data)
            except Exception as error:  # noqa: BLE001 - as on the thread
                rest = b""
                news = self._note_refusal(target, lines, error)
            else:
                news = self._note_success(target)
            self._pending -= len(data) - len(rest)
            if len(rest) < len(data):
                self.written += 1
            if news:
                self._on_room()
            if rest:
                self._queue.appendleft((target, rest, lines))
                return

    def _note_refusal(self, target: Target, lines: int, error: Exception) -> bool:
        """Count refused lines; return whether this is the first refusal since the last report."""
        self._refusing.add(target)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        with self._lock:
            before = self._refused.get(target)
            self._refused[target] = (lines + (before[0] if before else 0), reason)
        return before is None

    def _note_success(self, target: Target) -> bool:
        """Record that a target takes records; return whether it refused them before."""
        news = target in self._refusing
        self._refusing.discard(target)
        return news

    def _run(self) -> None:
        while True:
            os.read(self._wake_r, 4096)
            while True:
                with self._lock:
                    if not self._queue:
                        self._busy = False
                        break
                    self._busy = True
                    target, parts, lines = self._take()
                try:
                    target.write(b"".join(parts))
                except Exception as error:  # noqa: BLE001 - the thread must not end
                    news = self._note_refusal(target, lines, error)
                else:
                    news = self._note_success(target)
                self.written += 1
                if news or (self._full and self._pending < _LOW_WATER):
                    self._full = False
                    self._on_room()

    def _take(self) -> tuple[Target, list[bytes], int]:
        """Take the next item, or a part of it, and the following items for the same target."""
        target, data, lines = self._queue.popleft()
        limit = target.batch_bytes
        if len(data) > limit:
            end = data.rfind(b"\n", 0, limit) + 1 or data.find(b"\n") + 1 or len(data)
            if end < len(data):
                taken = data.count(b"\n", 0, end)
                self._queue.appendleft((target, data[end:], lines - taken))
                data, lines, limit = data[:end], taken, 0
        parts = [data]
        size = len(data)
        while self._queue:
            following, more, count = self._queue[0]
            if following is not target or size + len(more) > limit:
                break
            self._queue.popleft()
            parts.append(more)
            size += len(more)
            lines += count
        self._pending -= size
        return target, parts, lines
