"""Bring alerts to one target: on a thread of its own, again and again until it has taken them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

import httpx

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.http_client.answer import TargetError, failure

from .outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert
    from lmcache_plugin_adapter.gallery.http_client.answer import Answer

INITIAL_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds between attempts at a target that does not take alerts."""

_LAST_PAUSE = 0.25
"""Seconds between attempts in the grace period: there is no time for longer ones."""

_LONGEST_WISH = 300.0
"""Seconds for which a target is left alone if it says so (Retry-After)."""

_REFUSED = frozenset({400, 413, 422})
"""Answers that say that the content is at fault: it is not sent again as it is."""

_SHARE = 0.3
"""Of the time at the end: so long may a request go on that was under way."""


class Request(NamedTuple):
    """One request.

    Attributes:
        path: Below the target's address; empty: that address.
        content: JSON.
        ids: The alerts in it.
    """

    path: str
    content: bytes
    ids: tuple[str, ...]


class Target(Protocol):
    """An :class:`..target.HttpTarget` that knows how to word alerts."""

    @property
    def shown(self) -> str:
        """Its address for messages."""

    @property
    def timeout(self) -> float:
        """Seconds in which it must answer."""

    @property
    def repeat_after(self) -> float:
        """See :class:`.outbox.Outbox`."""

    @property
    def repeat_resolved(self) -> float:
        """See :class:`.outbox.Outbox`."""

    @property
    def remembers(self) -> bool:
        """Whether it knows which alerts fire: then it can be told that an old one does not."""

    def client(self, timeout: float | None = None) -> httpx.Client:
        """Return a client."""

    def ask(
        self,
        client: httpx.Client,
        method: str,
        path: str = "",
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Send one request."""

    def requests(self, alerts: Sequence[Alert], now: float, again: frozenset[str]) -> list[Request]:
        """Return the requests that tell of ``alerts``.

        Args:
            alerts: Which, at least one.
            now: Seconds since 1970.
            again: Ids of those that it has been told of before.
        """


class _Refusal(Exception):  # noqa: N818 - an answer, no fault of ours
    """A target did not take something; the text says why."""

    def __init__(self, why: str, *, final: bool = False, wait: float = 0.0) -> None:
        super().__init__(why)
        self.final = final
        """Whether it would not take the same at another time either."""
        self.wait = wait
        """Seconds for which it wants to be left alone."""


class Delivery:
    """Tells one target of alerts.

    Args:
        target: Which.
        keep_resolved: See :class:`.outbox.Outbox`.
    """

    def __init__(self, target: Target, keep_resolved: float) -> None:
        self.target = target
        self._outbox = Outbox(target.repeat_after, target.repeat_resolved, keep_resolved)
        self._changed = threading.Condition()
        self._deadline: float | None = None
        """Until when all must be told; None: there is no end in sight."""
        self._finishing_since = 0.0
        self._asking_since: float | None = None
        """Since when a request is under way."""
        self._trouble = ""
        self._trouble_since = 0.0
        self._start()

    def tell(self, alert: Alert) -> None:
        """Have the target told of an alert; returns at once."""
        with self._changed:
            self._outbox.put(alert, time.monotonic())
            self._changed.notify_all()

    def finish(self, seconds: float) -> None:
        """Bring what is not told yet to its target within the time that is left, and no more."""
        with self._changed:
            self._finishing_since = time.monotonic()
            self._deadline = self._finishing_since + seconds
            self._changed.notify_all()

    def join(self) -> list[Alert]:
        """Wait for the end after :meth:`finish`; return what the target was not told."""
        deadline = self._deadline or 0.0
        with self._changed:
            patience = max(deadline - time.monotonic(), 0.0) * _SHARE
            self._changed.wait_for(lambda: not self._asks_from_before(), patience)
            if self._asks_from_before():
                # It may never end: another thread takes its place.
                self._asking_since = None
                self._start()
        self._thread.join(max(deadline - time.monotonic(), 0.0))
        with self._changed:
            return self._outbox.untold

    @property
    def untold(self) -> list[Alert]:
        """What the target has not been told yet."""
        with self._changed:
            return self._outbox.untold

    @property
    def trouble(self) -> str:
        """Why the target does not take alerts; empty when it does."""
        return self._trouble

    def _asks_from_before(self) -> bool:
        """Tell whether a request is under way that knows nothing of the end."""
        return self._asking_since is not None and self._asking_since < self._finishing_since

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name=self.target.shown, daemon=True)
        self._thread.start()

    @property
    def _replaced(self) -> bool:
        return threading.current_thread() is not self._thread

    def _work(self) -> None:
        backoff = kit.Backoff(INITIAL_PAUSE, LONGEST_PAUSE)
        pause = 0.0
        while self._wait(pause):
            try:
                with self.target.client() as client:
                    while self._round(client):
                        backoff.reset()
                pause = 0.0
            except _Refusal as refusal:
                pause = max(backoff.next(), min(refusal.wait, _LONGEST_WISH))
                self._say_trouble(str(refusal))
            except Exception as error:  # noqa: BLE001 - the thread must live on
                pause = backoff.next()
                self._say_trouble(failure(error))

    def _wait(self, pause: float) -> bool:
        """Wait for something to be due, but at least ``pause`` seconds; False at the end."""
        begun = time.monotonic()
        with self._changed:
            while not self._replaced:
                now = time.monotonic()
                self._outbox.drop_old(now)
                due_in = self._outbox.next_due(now)
                rest = pause
                if self._deadline is not None:
                    if now >= self._deadline or not self._outbox.untold:
                        return False
                    rest = min(pause, _LAST_PAUSE)
                wait = None if due_in is None else max(due_in, begun + rest - now)
                if wait is not None and wait <= 0:
                    return True
                if self._deadline is not None and wait is not None:
                    wait = min(wait, self._deadline - now)
                self._changed.wait(wait)
        return False

    def _round(self, client: httpx.Client) -> bool:
        """Tell all that is due; False when nothing was."""
        now = time.monotonic()
        with self._changed:
            if self._replaced:
                return False
            if self._outbox.dropped:
                self._say_dropped()
            due = self._outbox.due(now)
            if self._deadline is not None:
                due = due._replace(alerts=self._outbox.untold)
        if not due.alerts:
            return False
        by_id = {alert.id: alert for alert in due.alerts}
        for request in self.target.requests(due.alerts, time.time(), due.again):
            refused = None
            try:
                self._ask(client, request)
            except _Refusal as refusal:
                if not refusal.final:
                    raise
                refused = refusal
            with self._changed:
                if self._replaced:
                    return False
                self._outbox.told([by_id[key] for key in request.ids], time.monotonic())
            if refused is None:
                self._say_well()
            else:
                names = ", ".join(sorted({by_id[key].name for key in request.ids}))
                kit.error(f"Alerts refused by '{self.target.shown}' ({names}): {refused}")
        return True

    def _ask(self, client: httpx.Client, request: Request) -> None:
        timeout = self.target.timeout
        with self._changed:
            if self._deadline is not None:
                timeout = max(min(timeout, self._deadline - time.monotonic()), 0.05)
            self._asking_since = time.monotonic()
        try:
            answer = self.target.ask(
                client,
                "POST",
                request.path,
                content=request.content,
                headers={"Content-Type": "application/json"},
                timeout=timeout,
            )
        except (httpx.HTTPError, TargetError) as error:
            raise _Refusal(failure(error)) from None
        finally:
            with self._changed:
                if not self._replaced:
                    self._asking_since = None
                    self._changed.notify_all()
        if not answer.accepted:
            final = answer.status in _REFUSED
            raise _Refusal(str(answer), final=final, wait=answer.retry_after or 0.0)

    def _say_trouble(self, why: str) -> None:
        if self._replaced or why == self._trouble:
            return
        if not self._trouble:
            self._trouble_since = time.monotonic()
        self._trouble = why
        kit.warning(
            f"Cannot send alerts to '{self.target.shown}': {why}; "
            f"tried again after pauses of up to {LONGEST_PAUSE:g} s"
        )

    def _say_well(self) -> None:
        if self._trouble:
            seconds = time.monotonic() - self._trouble_since
            self._trouble = ""
            kit.info(f"Alerts reach '{self.target.shown}' again after {seconds:.0f} s")

    def _say_dropped(self) -> None:
        count, self._outbox.dropped = self._outbox.dropped, 0
        kit.warning(
            f"Alerts resolved of which '{self.target.shown}' could not be told in time "
            f"(keep_resolved): {count}"
        )
