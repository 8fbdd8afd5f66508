# SPDX-License-Identifier: Apache-2.0
"""The pending alerts of one target: the latest state of each, not a queue of changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert


class Due(NamedTuple):
    """The alerts to send."""

    alerts: list[Alert]
    """The alerts, in the order of their changes."""
    again: frozenset[str]
    """The ids of alerts that the target has received before."""


class PendingAlerts:
    """The alerts of one target; bounded, because each alert has one entry.

    Args:
        repeat_after: Seconds after which a firing alert is due again.
        repeat_resolved: Seconds after its end for which a delivered resolved alert is repeated.
        keep_resolved: Seconds after its end after which an undelivered resolved alert is dropped.
    """

    def __init__(self, repeat_after: float, repeat_resolved: float, keep_resolved: float) -> None:
        self._repeat_after = repeat_after
        self._repeat_resolved = repeat_resolved
        self._keep_resolved = keep_resolved
        self._alerts: dict[str, Alert] = {}
        self._delivered: dict[str, float] = {}
        """When the target received the current state of each alert."""
        self._ended: dict[str, float] = {}
        self.dropped = 0
        """The number of resolved alerts that were never delivered."""

    def put(self, alert: Alert, now: float) -> None:
        """Store the new state of an alert; ``now`` is a monotonic time, here and below."""
        self._forget(alert.id)  # move it to the end
        self._alerts[alert.id] = alert
        if not alert.firing:
            self._ended[alert.id] = now

    def drop_old(self, now: float) -> None:
        """Drop the resolved alerts whose time is over."""
        for key, ended in list(self._ended.items()):
            delivered = key in self._delivered
            if now - ended >= (self._repeat_resolved if delivered else self._keep_resolved):
                self.dropped += not delivered
                self._forget(key)

    def due(self, now: float) -> Due:
        """Return the alerts to send now."""
        due = [
            key
            for key in self._alerts
            if key not in self._delivered or now - self._delivered[key] >= self._repeat_after
        ]
        again = frozenset(key for key in due if key in self._delivered)
        return Due([self._alerts[key] for key in due], again)

    def next_due(self, now: float) -> float | None:
        """Return the seconds until an alert is due; None: until one changes."""
        if len(self._delivered) < len(self._alerts):
            return 0.0
        times = [at + self._repeat_after - now for at in self._delivered.values()]
        return max(min(times), 0.0) if times else None

    def delivered(self, alerts: Iterable[Alert], now: float) -> None:
        """Note that the target received these alerts, some of which may have changed since."""
        for alert in alerts:
            if self._alerts.get(alert.id) is not alert:
                continue
            if alert.firing or self._repeat_resolved > 0:
                self._delivered[alert.id] = now
            else:
                self._forget(alert.id)

    @property
    def undelivered(self) -> list[Alert]:
        """The alerts whose current state the target has not received."""
        return [alert for key, alert in self._alerts.items() if key not in self._delivered]

    def _forget(self, key: str) -> None:
        self._alerts.pop(key, None)
        self._delivered.pop(key, None)
        self._ended.pop(key, None)
