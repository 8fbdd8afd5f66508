"""A Pushgateway: the last values, in a group of their own."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote

from lmcache_plugin_adapter.gallery.metric_reporter import exposition

from .buffer import Parcel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcache_plugin_adapter.gallery.http_client.answer import Answer
    from lmcache_plugin_adapter.gallery.metric_reporter.report import Report
    from lmcache_plugin_adapter.gallery.metric_reporter.settings import Pushgateway

GROUPING = ("instance", "role", "rank", "dp_rank")
"""Labels that, after ``job``, tell one reporter's group from all others."""


class PushgatewayKind:
    """Requests for a Pushgateway: each takes the place of the whole group.

    Args:
        settings: The target.
        own: The reporter's labels, of which the group's key is made.
    """

    key = "pushgateway"

    def __init__(self, settings: Pushgateway, own: Mapping[str, str]) -> None:
        self.target = settings
        self.path = group_path(own)
        self.headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}

    def pack(self, report: Report) -> list[Parcel]:
        """Return the one request that replaces the group."""
        count = sum(len(family.samples) for family in report.families)
        return [Parcel(exposition.write(report.families), count, report.born, "PUT")]

    def farewell(self, time_ms: int, born: float) -> list[Parcel]:  # noqa: ARG002 - the protocol
        """Return the request that deletes the group, if it is to go."""
        return [Parcel(b"", 0, born, "DELETE")] if self.target.delete_on_stop else []

    def try_again(self, answer: Answer) -> bool:
        """As everywhere: it may be a proxy that answers."""
        return answer.transient

    def partly_refused(
        self,
        answer: Answer,  # noqa: ARG002 - the kinds' protocol
    ) -> tuple[int, str] | None:
        """A push is taken as a whole or not at all."""
        return None


def group_path(own: Mapping[str, str]) -> str:
    """Return the path of a group; the encoding is the Pushgateway's for any value."""
    parts = ["/metrics"]
    for name in ("job", *GROUPING):
        value = own.get(name)
        if not value:
            continue
        if "/" in value:
            parts += [f"{name}@base64", base64.urlsafe_b64encode(value.encode()).decode()]
        else:
            parts += [name, quote(value, safe="")]
    return "/".join(parts)
