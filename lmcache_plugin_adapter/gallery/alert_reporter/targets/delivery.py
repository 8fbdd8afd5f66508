# SPDX-License-Identifier: Apache-2.0
"""Deliver alerts to one target, in a thread of its own, with retries until it accepts them."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.http_client.answer import TargetError, failure
from lmcache_plugin_adapter.gallery.http_client.errors import HttpError

from .pending import PendingAlerts

if TYPE_CHECKING:
    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert
    from lmcache_plugin_adapter.gallery.http_client.client import Client

    from .target import AlertRequest, AlertTarget

INITIAL_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds between attempts while the target does not accept alerts."""

_LAST_PAUSE = 0.25
"""Seconds between attempts in the grace period."""

_LONGEST_WISH = 300.0
"""The longest pause that a target may ask for (Retry-After)."""

_SHARE = 0.3
"""Part of the grace period that the request in flight may still take."""


class _AlertsRefusedError(Exception):
    """A target did not accept a request; the text says why."""

    def __init__(self, why: str, *, final: bool = False, wait: float = 0.0) -> None:
        super().__init__(why)
        self.final = final
        """Whether a retry would be refused, too."""
        self.wait = wait
        """Seconds of the pause that the target asked for."""


class AlertDelivery:
    """Deliver alerts to one target.

    Args:
        target: The target.
        keep_resolved: As for :class:`.pending.PendingAlerts`.
    """

    def __init__(self, target: AlertTarget, keep_resolved: float) -> None:
        self.target = target
        self._pending = PendingAlerts(target.resend, target.repeat_resolved, keep_resolved)
        self._changed = threading.Condition()
        self._deadline: float | None = None
        """The end of the grace period; None before :meth:`finish`."""
        self._finishing_since = 0.0
        self._sending_since: float | None = None
        """The start of the request in flight."""
        self._problem = ""
        self._problem_since = 0.0
        self._start()

    def put(self, alert: Alert) -> None:
        """Queue an alert; return at once."""
        with self._changed:
            self._pending.put(alert, time.monotonic())
            self._changed.notify_all()

    def finish(self, seconds: float) -> None:
        """Deliver the undelivered alerts within ``seconds``, then stop."""
        with self._changed:
            self._finishing_since = time.monotonic()
            self._deadline = self._finishing_since + seconds
            self._changed.notify_all()

    def join(self) -> list[Alert]:
        """Wait for the end after :meth:`finish`; return the undelivered alerts."""
        deadline = self._deadline or 0.0
        with self._changed:
            patience = max(deadline - time.monotonic(), 0.0) * _SHARE
            self._changed.wait_for(lambda: not self._has_old_request(), patience)
            if self._has_old_request():
                # The request may never end: a new thread replaces the old one.
                self._sending_since = None
                self._start()
        self._thread.join(max(deadline - time.monotonic(), 0.0))
        with self._changed:
            return self._pending.undelivered

    @property
    def undelivered(self) -> list[Alert]:
        """The alerts that the target has not accepted yet."""
        with self._changed:
            return self._pending.undelivered

    @property
    def problem(self) -> str:
        """Why the target does not accept alerts; empty if it does."""
        return self._problem

    def _has_old_request(self) -> bool:
        """Tell whether the request in flight began before :meth:`finish`."""
        return self._sending_since is not None and self._sending_since < self._finishing_since

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
            except _AlertsRefusedError as refusal:
                pause = max(backoff.next(), min(refusal.wait, _LONGEST_WISH))
                self._log_problem(str(refusal))
            except Exception as error:  # noqa: BLE001 - the thread must survive
                pause = backoff.next()
                self._log_problem(failure(error))

    def _wait(self, pause: float) -> bool:
        """Wait until alerts are due, at least ``pause`` seconds; return False at the end."""
        begun = time.monotonic()
        with self._changed:
            while not self._replaced:
                now = time.monotonic()
                self._pending.drop_old(now)
                due_in = self._pending.next_due(now)
                rest = pause
                if self._deadline is not None:
                    if now >= self._deadline or not self._pending.undelivered:
                        return False
                    rest = min(pause, _LAST_PAUSE)
                wait = None if due_in is None else max(due_in, begun + rest - now)
                if wait is not None and wait <= 0:
                    return True
                if self._deadline is not None and wait is not None:
                    wait = min(wait, self._deadline - now)
                self._changed.wait(wait)
        return False

    def _round(self, client: Client) -> bool:
        """Deliver all due alerts; return False if there were none."""
        now = time.monotonic()
        with self._changed:
            if self._replaced:
                return False
            if self._pending.dropped:
                self._log_dropped()
            due = self._pending.due(now)
            if self._deadline is not None:
                due = due._replace(alerts=self._pending.undelivered)
        if not due.alerts:
            return False
        by_id = {alert.id: alert for alert in due.alerts}
        requests = deque(self.target.requests(due.alerts, time.time(), due.again))
        while requests:
            request = requests.popleft()
            refused = None
            try:
                self._send(client, request)
            except _AlertsRefusedError as refusal:
                if not refusal.final:
                    raise
                if len(request.ids) > 1:  # one bad alert must not cost the others
                    for key in reversed(request.ids):
                        one = self.target.requests([by_id[key]], time.time(), due.again)
                        requests.extendleft(one)
                    continue
                refused = refusal
            with self._changed:
                if self._replaced:
                    return False
                self._pending.delivered([by_id[key] for key in request.ids], time.monotonic())
            if refused is None:
                self._log_recovery()
            else:
                name = by_id[request.ids[0]].name
                kit.error(f"Alerts refused by '{self.target.shown}' ({name}): {refused}")
        return True

    def _send(self, client: Client, request: AlertRequest) -> None:
        timeout = self.target.timeout
        with self._changed:
            if self._deadline is not None:
                timeout = max(min(timeout, self._deadline - time.monotonic()), 0.05)
            self._sending_since = time.monotonic()
        try:
            answer = self.target.ask(
                client,
                "POST",
                request.path,
                content=request.content,
                headers={"Content-Type": "application/json"},
                timeout=timeout,
            )
        except (HttpError, TargetError) as error:
            raise _AlertsRefusedError(failure(error)) from None
        finally:
            with self._changed:
                if not self._replaced:
                    self._sending_since = None
                    self._changed.notify_all()
        if not answer.accepted:
            final = answer.refuses_content
            raise _AlertsRefusedError(str(answer), final=final, wait=answer.retry_after or 0.0)

    def _log_problem(self, why: str) -> None:
        if self._replaced or why == self._problem:
            return
        if not self._problem:
            self._problem_since = time.monotonic()
        self._problem = why
        kit.warning(
            f"Cannot send alerts to '{self.target.shown}': {why}; "
            f"retrying after pauses of up to {LONGEST_PAUSE:g} s"
        )

    def _log_recovery(self) -> None:
        if self._problem:
            seconds = time.monotonic() - self._problem_since
            self._problem = ""
            kit.info(f"Alerts reach '{self.target.shown}' again after {seconds:.0f} s")

    def _log_dropped(self) -> None:
        count, self._pending.dropped = self._pending.dropped, 0
        kit.warning(
            f"Resolved alerts that '{self.target.shown}' did not receive in time "
            f"(keep_resolved): {count}"
        )
