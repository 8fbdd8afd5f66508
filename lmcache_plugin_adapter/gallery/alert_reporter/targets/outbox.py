"""What one target has not been told yet: the latest state of each alert, not a queue of news."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert


class Due(NamedTuple):
    """What is to be sent.

    Attributes:
        alerts: In the order in which they changed.
        again: Ids of those that the target has been told of.
    """

    alerts: list[Alert]
    again: frozenset[str]


class Outbox:
    """The alerts of one target; bounded, as there is one entry for each alert.

    Args:
        repeat_after: Seconds after which what still fires is due again.
        repeat_resolved: Seconds since its end for which a resolved alert that was told of is
            due again and again, too.
        keep_resolved: Seconds since its end after which a resolved alert that the target could
            not be told of is dropped.
    """

    def __init__(self, repeat_after: float, repeat_resolved: float, keep_resolved: float) -> None:
        self._repeat_after = repeat_after
        self._repeat_resolved = repeat_resolved
        self._keep_resolved = keep_resolved
        self._alerts: dict[str, Alert] = {}
        self._told: dict[str, float] = {}
        """When the target was told of the present state of an alert."""
        self._ended: dict[str, float] = {}
        self.dropped = 0
        """Resolved alerts that were never told."""

    def put(self, alert: Alert, now: float) -> None:
        """Take the new state of an alert; ``now`` are seconds that only grow, here as below."""
        self._forget(alert.id)  # it goes to the end
        self._alerts[alert.id] = alert
        if not alert.firing:
            self._ended[alert.id] = now

    def drop_old(self, now: float) -> None:
        """Drop resolved alerts that have been kept for long enough."""
        for key, ended in list(self._ended.items()):
            told = key in self._told
            if now - ended >= (self._repeat_resolved if told else self._keep_resolved):
                self.dropped += not told
                self._forget(key)

    def due(self, now: float) -> Due:
        """Return what is to be sent now."""
        due = [
            key
            for key in self._alerts
            if key not in self._told or now - self._told[key] >= self._repeat_after
        ]
        again = frozenset(key for key in due if key in self._told)
        return Due([self._alerts[key] for key in due], again)

    def next_due(self, now: float) -> float | None:
        """Return in how many seconds something is due; None: not before something changes."""
        if len(self._told) < len(self._alerts):
            return 0.0
        times = [told + self._repeat_after - now for told in self._told.values()]
        return max(min(times), 0.0) if times else None

    def told(self, alerts: Iterable[Alert], now: float) -> None:
        """Note that the target has been told of these, of which some may have changed since."""
        for alert in alerts:
            if self._alerts.get(alert.id) is not alert:
                continue
            if alert.firing or self._repeat_resolved > 0:
                self._told[alert.id] = now
            else:
                self._forget(alert.id)

    @property
    def untold(self) -> list[Alert]:
        """Those whose state the target has not been told."""
        return [alert for key, alert in self._alerts.items() if key not in self._told]

    def _forget(self, key: str) -> None:
        self._alerts.pop(key, None)
        self._told.pop(key, None)
        self._ended.pop(key, None)
