"""One target's own thread and buffer: none waits for another, and none is sent to twice."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.http_client.answer import failure
from lmcache_plugin_adapter.gallery.http_client.deadline import Deadline
from lmcache_plugin_adapter.gallery.metric_reporter.trouble import Trouble, times

if TYPE_CHECKING:
    import httpx

    from lmcache_plugin_adapter.gallery.http_client.answer import Answer
    from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget
    from lmcache_plugin_adapter.gallery.metric_reporter.report import Report

    from .buffer import Buffer, Parcel


LOOK_UP = 30.0
"""Seconds after which a lane with nothing to do looks whether what waits has become too old."""

LONGEST_WAIT = 3600.0
"""Seconds for which a target may ask to be left alone."""


class Kind(Protocol):
    """What differs from one kind of target to another."""

    key: str
    """Its key in the settings."""
    path: str
    """Below the target's ``url``."""
    headers: dict[str, str]

    @property
    def target(self) -> HttpTarget:
        """Its settings."""

    def pack(self, report: Report) -> list[Parcel]:
        """Return the requests that carry a report; called for every report, in order."""

    def farewell(self, time_ms: int, born: float) -> list[Parcel]:
        """Return the requests that end what was sent: both are the same moment, as in a report."""

    def try_again(self, answer: Answer) -> bool:
        """Tell whether the same request may be accepted later."""

    def partly_refused(self, answer: Answer) -> tuple[int, str] | None:
        """Return how much of a request that is accepted was not taken, and why; None: all was."""


class Lane(threading.Thread):
    """Sends one target's parcels, in order, each until it is accepted or refused.

    A parcel is sent again only when it is not known to have arrived: no
    connection, no answer in time, or an answer that asks to come again. It is the
    same bytes then, timestamps included, so that a target that has it already
    can tell.

    Args:
        kind: What is sent to, and how.
        buffer: What waits for it.
        say_every: Seconds between two lines about the same trouble.
    """

    def __init__(self, kind: Kind, buffer: Buffer, say_every: float) -> None:
        super().__init__(name=kind.key, daemon=True)  # a request that hangs must not hold the exit
        self.kind = kind
        self.buffer = buffer
        self.lost = 0
        """Samples dropped or refused so far."""
        self._where = f"{kind.key} ({kind.target.shown})"
        self._away = Trouble(say_every)
        self._refusing = Trouble(say_every)
        self._dropping = Trouble(say_every)
        self._backoff = kit.Backoff(initial=0.5, maximum=30.0)
        self._not_before = 0.0
        self._asked_to_wait = False
        self._end: float | None = None
        self._ending = threading.Event()
        self._client: httpx.Client | None = None
        self._deadline = Deadline(0.0)
        self._in_hand: Parcel | None = None

    def run(self) -> None:
        """Send until ``finish`` and the buffer is empty."""
        while True:
            ending = self._end is not None
            parcel = self.buffer.take(LOOK_UP)
            self._count_drops()
            if parcel is not None:
                self._in_hand = parcel
                sent = self._send(parcel)
                if not sent:
                    self.buffer.put_back(parcel)
                self._in_hand = None
                if not sent:
                    self._pause()
            elif ending:
                break
            if self._end is not None and time.monotonic() >= self._end:
                break
        self._count_drops()
        for trouble in (self._dropping, self._refusing):
            trouble.flush()
        if self._client is not None:
            self._client.close()

    def finish(self, end: float) -> None:
        """Send what is left until ``end``, by the monotonic clock, and no longer.

        A request that is under way gets half of the time: another may be answered at once.
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
        """Return how many requests, and samples in them, are not known to have arrived."""
        parcel = self._in_hand
        requests, samples = self.buffer.requests, self.buffer.samples
        return (requests, samples) if parcel is None else (requests + 1, samples + parcel.samples)

    def _send(self, parcel: Parcel) -> bool:
        """Try once; True: it is dealt with, one way or the other."""
        kind, timeout = self.kind, self.kind.target.timeout
        deadline = self._deadline = Deadline(timeout)  # first: ``finish`` may come now
        if self._end is not None:
            timeout = max(min(timeout, self._end - time.monotonic()), 0.05)
            deadline = Deadline(timeout)
        try:
            if self._client is None:
                self._client = kind.target.client()
            answer = kind.target.ask(
                self._client,
                parcel.method,
                kind.path,
                content=parcel.body,
                headers=kind.headers if parcel.body else None,
                timeout=timeout,
                deadline=deadline,
            )
        except Exception as error:  # noqa: BLE001 - a thread that ends would say nothing
            self._failed(failure(error), None)
            return False
        if kind.try_again(answer):
            self._failed(str(answer), answer.retry_after)
            return False
        # Whatever it says, it is there.
        self._back()
        if not answer.accepted:
            self.lost += parcel.samples
            self._refusing.happened(
                lambda n: (
                    f"Target {self._where} refuses what it is sent: {answer}; {n} samples are lost"
                ),
                parcel.samples,
            )
            return True
        partly = kind.partly_refused(answer)
        if partly is not None:
            refused, why = partly
            self.lost += refused
            self._refusing.happened(
                lambda n: f"Target {self._where} took only a part: {n} points refused: {why}",
                refused,
            )
        elif self._refusing.over() is not None:
            kit.info(f"Target {self._where} accepts what it is sent again")
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
                f"Cannot send to {self._where}: {reason}; {waiting} samples wait, "
                f"tries again{times(n)}"
            )
        )

    def _back(self) -> None:
        self._backoff.reset()
        self._asked_to_wait = False
        lasted = self._away.over()
        if lasted is not None:
            kit.info(f"Target {self._where} answers again, after {lasted:.0f} s")

    def _pause(self) -> None:
        """Wait until it may be tried again; ``finish`` cuts it short."""
        while True:
            now = time.monotonic()
            until = self._not_before if self._end is None else min(self._not_before, self._end)
            if now >= until:
                return
            self._count_drops()
            if self._end is None:
                self._ending.wait(min(until - now, LOOK_UP))
            else:
                time.sleep(until - now)

    def _count_drops(self) -> None:
        count = self.buffer.dropped()
        self.lost += count
        if count:
            self._dropping.happened(
                lambda n: (
                    f"Dropped the {n} oldest samples for {self._where}: "
                    "more have come than its buffer holds"
                ),
                count,
            )
        else:
            self._dropping.remind()
