# SPDX-License-Identifier: Apache-2.0
"""The settings of health checks, and the detection times that follow from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter.gallery.http_client.address import Url, check_urls
from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget
from lmcache_plugin_adapter.kit.settings.quantities import Duration

if TYPE_CHECKING:
    from .verdict import State


class ProbeRequest(HttpTarget, kw_only=True, forbid_unknown_fields=True):
    """A small request to the engine, sent when the engine has no other requests."""

    body: dict[str, object]
    """The request's JSON: `{"model": "m", "prompt": "x", "max_tokens": 1}` for
    `/v1/completions`."""
    interval: Annotated[Duration, Meta(gt=0, le=86400)] = 60.0
    """Seconds without progress after which the request is sent."""
    timeout: Annotated[Duration, Meta(gt=0, le=3600)] = 30.0
    """Seconds without an answer, nor any other progress, that mean `stalled`."""


class HealthSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How to check an engine's health."""

    health_url: Url | None = None
    """vLLM's health check, such as `http://127.0.0.1:8000/health`."""
    metrics_url: Url | None = None
    """vLLM's metrics, such as `http://127.0.0.1:8000/metrics`. They show whether requests make
    progress."""
    internal_api: bool = True
    """Also check LMCache's internal API, if `internal_api_server_enabled` is set."""
    timeout: Annotated[Duration, Meta(gt=0, le=60)] = 2.0
    """Seconds in which each of them must answer."""
    failures: Annotated[int, Meta(ge=1, le=100)] = 3
    """Failed requests in a row that mean `unresponsive`."""
    startup_timeout: Annotated[Duration, Meta(ge=0, le=7 * 86400)] = 1800.0
    """Seconds after the start of the engine process in which the engine need not answer yet,
    because it loads a model. Later, no answer means `unresponsive`, also for a plugin that was
    restarted and has not seen an answer."""
    stopped_after: Annotated[Duration, Meta(ge=0, le=3600)] = 2.0
    """Seconds for which the process may be stopped without a fault."""
    stalled_after: Annotated[Duration, Meta(gt=0, le=86400)] = 60.0
    """Seconds without progress (tokens, use of the KV cache) while there were requests, or with
    the engine's first thread hanging in the kernel, that mean `stalled`."""
    verify: bool = True
    """`false` accepts any certificate of vLLM's HTTPS server."""
    probe: ProbeRequest | None = None
    """A request for an idle engine, whose hang shows in no other way."""

    def __post_init__(self) -> None:
        """Refuse invalid addresses."""
        check_urls(self, "health_url", "metrics_url")

    def detection(self, interval: float) -> dict[State, float]:
        """Return the longest time from each fault to its verdict, in seconds.

        Args:
            interval: Seconds between two checks.
        """
        # A check that waits for an answer may delay the next one.
        round_ = interval if self.timeout < interval else interval + self.timeout
        found: dict[State, float] = {
            "dead": round_ + self.timeout,
            "stopped": self.stopped_after + 2 * round_ + self.timeout,
        }
        if self.health_url or self.metrics_url or self.internal_api:
            found["unresponsive"] = (self.failures + 1) * round_ + self.timeout
        stalled = self.stalled_after
        if self.probe is not None:
            stalled = max(stalled, self.probe.interval + self.probe.timeout + round_)
        found["stalled"] = stalled + 2 * round_ + self.timeout
        return found
