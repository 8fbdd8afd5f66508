# SPDX-License-Identifier: Apache-2.0
"""Alertmanager as a target, through its v2 API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, ClassVar

from msgspec import Meta

from lmcache_plugin_adapter.gallery.alert_reporter.alerts import timestamp
from lmcache_plugin_adapter.kit.settings.quantities import Duration

from .target import AlertRequest, AlertTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert

PATH = "/api/v2/alerts"

_LIVES = 3
"""An alert ends on its own after this many periods without a repeat."""

_REQUEST_TIME = 30.0
"""Seconds added to an alert's life for a slow request."""


class Alertmanager(AlertTarget, kw_only=True, forbid_unknown_fields=True):
    """An Alertmanager."""

    example: ClassVar[str] = "http://alertmanager:9093"

    # After a restart, Alertmanager has forgotten its alerts, but not whom it has notified.
    repeat_resolved: ClassVar[float] = 900.0
    keeps_alerts: ClassVar[bool] = True

    resend: Annotated[Duration, Meta(ge=1, le=3600)] = 60.0
    """Seconds after which a firing alert is sent again. An alert that is not sent for three times
    as long ends on its own: its reporter is gone."""

    def requests(
        self,
        alerts: Sequence[Alert],
        now: float,
        again: frozenset[str],  # noqa: ARG002 - Alertmanager knows its alerts
    ) -> list[AlertRequest]:
        """Return one request with all alerts; see :meth:`.target.AlertTarget.requests`."""
        until = now + _LIVES * self.resend + _REQUEST_TIME
        content = json.dumps([_entry(alert, until) for alert in alerts]).encode()
        return [AlertRequest(PATH, content, tuple(alert.id for alert in alerts))]


def _entry(alert: Alert, until: float) -> dict[str, object]:
    ends = alert.ends_at if alert.ends_at is not None else (alert.expires_at or until)
    return {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "startsAt": timestamp(alert.starts_at),
        "endsAt": timestamp(ends),
    }
