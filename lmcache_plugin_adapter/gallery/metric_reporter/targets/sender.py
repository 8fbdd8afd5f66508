# SPDX-License-Identifier: Apache-2.0
"""Send the batches of one target, in a thread of its own: no target waits for another."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.http_client.answer import failure
from lmcache_plugin_adapter.gallery.http_client.deadline import Deadline
from lmcache_plugin_adapter.gallery.metric_reporter.recurring_problem import RecurringProblem, times
from lmcache_plugin_adapter.messages.wording import counted, lost

if TYPE_CHECKING:
    from lmcache_plugin_adapter.gallery.http_client.client import Client

    from .buffer import Batch, Buffer
    from .kind import Kind


IDLE_SECONDS = 30.0
"""Seconds after which an idle sender drops batches that have become too old."""

LONGEST_WAIT = 3600.0
"""The longest pause that a target may ask for (Retry-After)."""


class Sender(threading.Thread):
    """Send the batches of one target, in order, each until it is accepted or refused.

    A batch is retried as long as the buffer keeps it, unless the target accepts it or blames its
    content: an operator can mend credentials and addresses meanwhile. A retry sends the same
    bytes, timestamps included, so that the target can recognize duplicates.

    Args:
        kind: The target.
        buffer: The queue of its batches.
        say_every: Seconds between two log lines about the same problem.
    """

    def __init__(self, kind: Kind, buffer: Buffer, say_every: float) -> None:
        super().__init__(name=kind.key, daemon=True)  # a hanging request must not delay the exit
        self.kind = kind
        self.buffer = buffer
        self.lost = 0
        """The number of samples dropped or refused so far."""

        self._away = RecurringProblem(say_every)
        self._refusing = RecurringProblem(say_every)
        self._dropping = RecurringProblem(say_every)
        self._backoff = kit.Backoff(initial=0.5, maximum=30.0)
        self._not_before = 0.0
        self._asked_to_wait = False
        self._end: float | None = None
        self._ending = threading.Event()
        self._client: Client | None = None
        self._deadline = Deadline(0.0)
        self._in_flight: Batch | None = None

    def run(self) -> None:
        """Send batches until ``finish`` was called and the queue is empty."""
        while True:
            ending = self._end is not None
            batch = self.buffer.take(IDLE_SECONDS)
            self._count_drops()
            if batch is not None:
                self._in_flight = batch
                sent = self._send(batch)
                if not sent:
                    self.buffer.put_back(batch)
                self._in_flight = None
                if not sent:
                    self._pause()
            elif ending:
                break
            if self._end is not None and time.monotonic() >= self._end:
                break
        self._count_drops()
        for problem in (self._dropping, self._refusing):
            problem.flush()
        if self._client is not None:
            self._client.close()

    def finish(self, end: float) -> None:
        """Send the rest of the queue until ``end`` (monotonic seconds), then stop.

        The request in flight gets half of that time: a new one may be answered at once.
        """
        self._end = end
        now = time.monotonic()
        self._deadline.bring_forward(now + (end - now) / 2)
        if not self._asked_to_wait:
            self._not_before = 0.0
            self._backoff.reset()
        self._ending.set()
        self.buffer.close()

    def unsent(self) -> tuple[int, int]:
        """Return how many requests, and how many samples in them, are unconfirmed."""
        batch = self._in_flight
        requests, samples = self.buffer.requests, self.buffer.samples
        return (requests, samples) if batch is None else (requests + 1, samples + batch.samples)

    def _send(self, batch: Batch) -> bool:
        """Send a batch once; return whether it is done, accepted or refused."""
        kind, timeout = self.kind, self.kind.target.timeout
        deadline = self._deadline = Deadline(
            timeout
        )  # first: another thread may call ``finish`` now
        if self._end is not None:
            timeout = max(min(timeout, self._end - time.monotonic()), 0.05)
            deadline = Deadline(timeout)
        try:
            if self._client is None:
                self._client = kind.target.client()
            answer = kind.target.ask(
                self._client,
                batch.method,
                kind.path,
                content=batch.body,
                headers=kind.headers if batch.body else None,
                timeout=timeout,
                deadline=deadline,
            )
        except Exception as error:  # noqa: BLE001 - a thread must not die silently
            self._failed(failure(error), None)
            return False
        if not answer.accepted and not answer.refuses_content:
            self._failed(str(answer), answer.retry_after)
            return False
        self._back()
        if not answer.accepted:
            self.lost += batch.samples
            self._refusing.happened(
                lambda n: (
                    f"Target {self.kind.shown} refuses the samples: {answer}; {lost(n, 'sample')}"
                ),
                batch.samples,
            )
            return True
        partly = kind.partly_refused(answer)
        if partly is not None:
            refused, why = partly
            refused = min(max(refused, 0), batch.samples)
            self.lost += refused
            self._refusing.happened(
                lambda n: (
                    f"Target {self.kind.shown} accepted only a part: {n} points refused: {why}"
                    if n
                    else f"Target {self.kind.shown} accepted all points, with a warning: {why}"
                ),
                refused,
            )
        else:
            self._refusing.flush()  # what was lost since the last line is counted, too
            if self._refusing.over() is not None:
                kit.info(f"Target {self.kind.shown} accepts samples again")
        return True

    def _failed(self, reason: str, retry_after: float | None) -> None:
        wait = self._backoff.next()
        self._asked_to_wait = retry_after is not None
        if retry_after is not None:
            wait = max(wait, min(retry_after, LONGEST_WAIT))
        self._not_before = time.monotonic() + wait
        _, waiting = self.unsent()
        self._away.happened(
            lambda n: (
                f"Cannot send to {self.kind.shown}: {reason}; {counted(waiting, 'sample')} "
                f"{'waits' if waiting == 1 else 'wait'}, "
                f"retrying{times(n)}"
            )
        )

    def _back(self) -> None:
        self._backoff.reset()
        self._asked_to_wait = False
        lasted = self._away.over()
        if lasted is not None:
            kit.info(f"Target {self.kind.shown} answers again, after {lasted:.0f} s")

    def _pause(self) -> None:
        """Wait until the next attempt; ``finish`` shortens the wait."""
        while True:
            now = time.monotonic()
            until = self._not_before if self._end is None else min(self._not_before, self._end)
            if now >= until:
                return
            self._count_drops()
            if self._end is None:
                self._ending.wait(min(until - now, IDLE_SECONDS))
            else:
                time.sleep(until - now)

    def _count_drops(self) -> None:
        count = self.buffer.dropped()
        self.lost += count
        if count:
            self._dropping.happened(
                lambda n: (
                    f"Dropped the {n} oldest samples for {self.kind.shown}: its buffer is full"
                ),
                count,
            )
        else:
            self._dropping.remind()
