# SPDX-License-Identifier: Apache-2.0
"""Send to a Pushgateway: the latest values, in a group of the reporter's own."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote

from lmcache_plugin_adapter.gallery.metric_reporter import exposition

from .buffer import Batch
from .kind import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcache_plugin_adapter.gallery.metric_reporter.reading import Reading
    from lmcache_plugin_adapter.gallery.metric_reporter.settings import Pushgateway

GROUPING = ("instance", "source", "host", "role", "rank", "dp_rank")
"""The labels that, after ``job``, distinguish one reporter's group from all others. Engines may
share an ``instance``, such as the name of a service; no two have one ``source``."""


class PushgatewayKind(Kind):
    """Requests to a Pushgateway: each replaces the whole group.

    Args:
        settings: The target.
        own: The reporter's labels, which form the key of the group.
    """

    key = "pushgateway"

    def __init__(self, settings: Pushgateway, own: Mapping[str, str]) -> None:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        super().__init__(settings, headers, group_path(own))
        self._delete_on_stop = settings.delete_on_stop

    def encode(self, report: Reading) -> list[Batch]:
        """Return the one batch that replaces the group."""
        return [Batch(exposition.write(report.families), report.samples, report.born, "PUT")]

    def encode_end(self, time_ms: int, born: float) -> list[Batch]:  # noqa: ARG002 - no time in it
        """Return the batch that deletes the group, if the settings demand it."""
        return [Batch(b"", 0, born, "DELETE")] if self._delete_on_stop else []


def group_path(own: Mapping[str, str]) -> str:
    """Return the path of a group, in the Pushgateway's encoding for arbitrary values."""
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
