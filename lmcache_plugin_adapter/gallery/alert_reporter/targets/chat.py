# SPDX-License-Identifier: Apache-2.0
"""What targets have in common at which people read the alerts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .target import AlertRequest
from .webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert


class ChatWebhook(Webhook, kw_only=True, forbid_unknown_fields=True):
    """A webhook that posts messages."""

    def requests(
        self,
        alerts: Sequence[Alert],
        now: float,  # noqa: ARG002 - a message has the time of its arrival
        again: frozenset[str],
    ) -> list[AlertRequest]:
        """Return a request for each alert; see :meth:`.target.AlertTarget.requests`."""
        return [
            AlertRequest(
                "", json.dumps(self.document(alert, alert.id in again)).encode(), (alert.id,)
            )
            for alert in alerts
        ]

    @staticmethod
    def document(alert: Alert, again: bool) -> dict[str, object]:
        """Return the message for an alert.

        Args:
            alert: The alert.
            again: Whether the target has received it before.
        """
        raise NotImplementedError


def headline(alert: Alert, again: bool) -> str:
    """Return the first line of a message."""
    status = ("STILL FIRING" if again else "FIRING") if alert.firing else "RESOLVED"
    return f"[{status}] {alert.annotations.get('summary') or alert.name}"[:1000]


def facts(alert: Alert) -> Iterator[tuple[str, str]]:
    """Yield the labels that a reader needs, and what was measured."""
    for name, value in alert.labels.items():
        if name != "alertname":
            yield name, value
    if alert.value is not None:
        yield alert.measure, f"{alert.value:.4g}"
