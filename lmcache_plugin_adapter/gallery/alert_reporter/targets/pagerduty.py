# SPDX-License-Identifier: Apache-2.0
"""PagerDuty as a target, through version 2 of its Events API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from msgspec import Meta

from lmcache_plugin_adapter.gallery.alert_reporter.alerts import timestamp
from lmcache_plugin_adapter.gallery.http_client.address import Filled, Url  # noqa: TC001 - msgspec
from lmcache_plugin_adapter.gallery.http_client.secrets import read_secret

from .texts import cut, fitting, links
from .webhook import Webhook

if TYPE_CHECKING:
    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert

_SEVERITIES = frozenset({"critical", "error", "warning", "info"})
_MOST_BYTES = 500_000
"""PagerDuty accepts 512 KB."""
_MOST_SUMMARY, _MOST_LINKS = 1024, 10


class PagerDuty(Webhook, kw_only=True, forbid_unknown_fields=True):
    """A service of PagerDuty."""

    path_is_secret: ClassVar[bool] = False

    url: Url = "https://events.pagerduty.com/v2/enqueue"
    """Address of the server."""
    routing_key: Annotated[Filled, Meta(extra={"secret": True})] | None = None
    """Integration key of the service. Better: a file."""
    routing_key_file: Filled | None = None
    """File with the integration key, read for each request."""

    def __post_init__(self) -> None:
        """Refuse a target without a key."""
        super().__post_init__()
        if (self.routing_key is None) == (self.routing_key_file is None):
            raise ValueError("give one of routing_key and routing_key_file")

    def document(
        self,
        alert: Alert,
        now: float,  # noqa: ARG002 - an event has the time of the alert
        again: bool,  # noqa: ARG002 - PagerDuty knows its alerts by their key
    ) -> dict[str, object]:
        """Return the event for an alert."""
        key = self.routing_key or ""
        if self.routing_key_file is not None:
            key = read_secret("routing_key_file", self.routing_key_file)
        return event(alert, key)


def event(alert: Alert, routing_key: str) -> dict[str, object]:
    """Return the event for an alert, with the integration key of a service."""
    common: dict[str, object] = {"routing_key": routing_key, "dedup_key": alert.id}
    if not alert.firing:
        return {**common, "event_action": "resolve"}
    return fitting(lambda limit: {**common, **_trigger(alert, limit)}, _MOST_BYTES)


def _trigger(alert: Alert, limit: int) -> dict[str, object]:
    severity = alert.labels.get("severity", "")
    details = {**alert.annotations, **alert.labels}
    if alert.value is not None:
        details[alert.measure] = f"{alert.value:.4g}"
    return {
        "event_action": "trigger",
        "payload": {
            "summary": cut(alert.annotations.get("summary") or alert.name, _MOST_SUMMARY),
            "source": cut(alert.labels.get("host") or "unknown", limit),
            "severity": severity if severity in _SEVERITIES else "warning",
            "timestamp": timestamp(alert.starts_at),
            "component": cut(alert.labels.get("role") or "engine", limit),
            "group": cut(alert.labels.get("engine") or "vllm", limit),
            "class": cut(alert.name, limit),
            "custom_details": {name: cut(value, limit) for name, value in details.items()},
        },
        "client": "lmcache-plugin-adapter",
        "links": [{"href": url, "text": name} for name, url in links(alert, limit)[:_MOST_LINKS]],
    }
