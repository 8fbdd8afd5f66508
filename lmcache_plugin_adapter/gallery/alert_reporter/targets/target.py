# SPDX-License-Identifier: Apache-2.0
"""The base of the targets of alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from msgspec import Meta

from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget
from lmcache_plugin_adapter.kit.settings.quantities import Duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert


class AlertRequest(NamedTuple):
    """One request."""

    path: str
    """The path below the target's address; empty: that address."""
    content: bytes
    """The JSON body."""
    ids: tuple[str, ...]
    """The ids of the alerts in it."""


class AlertTarget(HttpTarget, kw_only=True, forbid_unknown_fields=True):
    """A server that receives alerts."""

    repeat_resolved: ClassVar[float]
    """Seconds for which a resolved alert is repeated, too."""
    keeps_alerts: ClassVar[bool]
    """Whether the target keeps alerts by their labels, so that a later reporter can end them."""

    resend: Annotated[Duration, Meta(ge=1, le=7 * 86400)]

    def requests(
        self, alerts: Sequence[Alert], now: float, again: frozenset[str]
    ) -> list[AlertRequest]:
        """Return the requests with ``alerts``.

        Args:
            alerts: At least one alert.
            now: Seconds since 1970.
            again: The ids of alerts that the target has received before.
        """
        raise NotImplementedError
