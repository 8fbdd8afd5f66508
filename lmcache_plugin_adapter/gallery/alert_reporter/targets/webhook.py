# SPDX-License-Identifier: Apache-2.0
"""A webhook as a target: one JSON document for each alert that fires or resolves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, ClassVar

from msgspec import Meta

from lmcache_plugin_adapter.gallery.alert_reporter.alerts import timestamp
from lmcache_plugin_adapter.gallery.http_client.address import Url
from lmcache_plugin_adapter.kit.settings.quantities import Duration

from .target import AlertRequest, AlertTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert

VERSION = 1
"""Of the document: raised when a key changes its meaning or is removed."""


class Webhook(AlertTarget, kw_only=True, forbid_unknown_fields=True):
    """A server that receives a document for each alert."""

    path_is_secret: ClassVar[bool] = True
    repeat_resolved: ClassVar[float] = 0.0
    keeps_alerts: ClassVar[bool] = False

    url: Annotated[Url, Meta(extra={"secret": True})]
    """Address of the server."""
    resend: Annotated[Duration, Meta(ge=1, le=7 * 86400)] = 14400.0
    """Seconds after which a firing alert is sent again."""

    def requests(
        self, alerts: Sequence[Alert], now: float, again: frozenset[str]
    ) -> list[AlertRequest]:
        """Return a request for each alert; see :meth:`.target.AlertTarget.requests`."""
        return [
            AlertRequest(
                "", json.dumps(self.document(alert, now, alert.id in again)).encode(), (alert.id,)
            )
            for alert in alerts
        ]

    def document(self, alert: Alert, now: float, again: bool) -> dict[str, object]:
        """Return the document for an alert.

        Args:
            alert: The alert.
            now: Seconds since 1970.
            again: Whether the target has received the alert before.
        """
        return document(alert, now, again)


def document(alert: Alert, now: float, again: bool) -> dict[str, object]:
    """Return the document for an alert, with all that is known of it."""
    return {
        "version": VERSION,
        "status": "firing" if alert.firing else "resolved",
        "repeated": again,
        "id": alert.id,
        "name": alert.name,
        "severity": alert.labels.get("severity", ""),
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "measure": alert.measure or None,
        "value": alert.value,
        "limit": alert.limit,
        "starts_at": timestamp(alert.starts_at),
        "ends_at": None if alert.ends_at is None else timestamp(alert.ends_at),
        "expires_at": None if alert.expires_at is None else timestamp(alert.expires_at),
        "sent_at": timestamp(now),
    }
