"""Alertmanager as a target: its v2 API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from lmcache_plugin_adapter.gallery.alert_reporter.alerts import timestamp
from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget

from .delivery import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert

PATH = "/api/v2/alerts"

_LIVES = 3
"""An alert ends by itself when it has not been sent again for so many periods."""

_RESOLVED_AGAIN = 900.0
"""Seconds for which a resolved alert is sent again: Alertmanager forgets alerts when it is
restarted, but not that it has told people of them."""

_REQUEST_TIME = 30.0
"""Added to an alert's life, for a request that takes its time."""


class Alertmanager(HttpTarget, kw_only=True, forbid_unknown_fields=True):
    """An Alertmanager."""

    resend: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    """Seconds after which an alert that still fires is sent again. One that has not been sent for
    three times as long ends by itself: its reporter is gone."""

    @property
    def repeat_after(self) -> float:
        """Seconds after which an alert is sent again."""
        return self.resend

    @property
    def repeat_resolved(self) -> float:
        """Seconds for which a resolved alert is sent again, too."""
        return _RESOLVED_AGAIN

    @property
    def remembers(self) -> bool:
        """It knows its alerts by their labels."""
        return True

    def requests(self, alerts: Sequence[Alert], now: float, again: frozenset[str]) -> list[Request]:
        """Return one request with all alerts; see :class:`.delivery.Target`."""
        del again  # it is all the same to Alertmanager
        life = _LIVES * self.resend + _REQUEST_TIME
        document = [self._entry(alert, now + life) for alert in alerts]
        content = json.dumps(document).encode()
        return [Request(PATH, content, tuple(alert.id for alert in alerts))]

    @staticmethod
    def _entry(alert: Alert, until: float) -> dict[str, object]:
        ends = alert.ends_at if alert.ends_at is not None else (alert.expires_at or until)
        return {
            "labels": dict(alert.labels),
            "annotations": dict(alert.annotations),
            "startsAt": timestamp(alert.starts_at),
            "endsAt": timestamp(ends),
        }
