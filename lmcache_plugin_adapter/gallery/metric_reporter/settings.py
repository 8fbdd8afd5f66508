# SPDX-License-Identifier: Apache-2.0
"""The settings of the metric reporter: one struct for it, one for each kind of target."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter.gallery.http_client.address import Filled
from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget
from lmcache_plugin_adapter.kit.settings.quantities import Duration, Size

OWN_LABELS = ("job", "instance", "source", "host", "role", "rank", "dp_rank")
"""Labels that the reporter adds to every series; ``rank`` on workers only, ``source`` only if
``instance`` is set."""

Address = Annotated[
    str,
    Meta(
        pattern=r"^https?://[^/?#\s]+\S*$",
        extra={"accepted": "an address with http:// or https://"},
    ),
]
LabelName = Annotated[
    str,
    Meta(
        pattern=r"^(?!__)(?!(le|quantile|job|instance)$)[a-zA-Z_][a-zA-Z0-9_]*$",
        extra={
            "accepted": "letters, digits and '_', not beginning with a digit or '__', and none of "
            "'le', 'quantile', 'job', 'instance'"
        },
    ),
]


class MetricSource(HttpTarget, kw_only=True):
    """An endpoint with metrics in Prometheus' text format (`/metrics`)."""

    example: ClassVar[str] = "https://127.0.0.1:8000"


class Relabel(msgspec.Struct, kw_only=True):
    """A step of relabelling, as in `metric_relabel_configs` of Prometheus."""

    action: Literal["replace", "keep", "drop", "labeldrop", "labelkeep", "labelmap"] = "replace"
    """The action on a series whose labels match, or on the labels whose names match."""
    source_labels: list[Filled] = []
    """Labels to match; `__name__` is the metric's name."""
    separator: str = ";"
    """Stands between the values of several labels."""
    regex: str = "(.*)"
    """Regular expression for the whole value (or the label's name)."""
    target_label: str = ""
    """Label to set, for `replace`."""
    replacement: str = "$1"
    """Value to set; `$1` or `${1}` is the first group. An empty value removes the label."""

    def __post_init__(self) -> None:
        """Refuse an invalid pattern, and a replacement without its label."""
        try:
            re.compile(self.regex)
        except re.error as error:
            raise ValueError(f"regex is no regular expression: {error}") from None
        if self.action == "replace" and not self.target_label:
            raise ValueError("replace needs target_label")


class Pushgateway(HttpTarget, kw_only=True):
    """A Pushgateway, which keeps the last values of each group for Prometheus to collect."""

    example: ClassVar[str] = "http://pushgateway:9091"

    delete_on_stop: bool = True
    """Delete the group when the engine ends. `false` leaves its last values there, for good."""

    def __post_init__(self) -> None:
        """Refuse the address of a group: the settings determine the group."""
        super().__post_init__()
        if "/metrics/job" in self.url:
            raise ValueError(f"url has a group; accepted is an address such as '{self.example}'")


class Buffered(HttpTarget, kw_only=True):
    """A target that gets every sample, late if need be."""

    buffer_seconds: Annotated[Duration, Meta(gt=0)] = 3600.0
    """Samples that are older are dropped when the target has been away so long."""
    buffer_samples: Annotated[int, Meta(ge=1)] = 1_000_000
    """As many samples are kept for the target; the oldest are dropped."""


class RemoteWrite(Buffered, kw_only=True):
    """A receiver of Prometheus' remote write 1.0 (`/api/v1/write`, or the path in `url`)."""

    example: ClassVar[str] = "http://prometheus:9090/api/v1/write"

    request_samples: Annotated[int, Meta(ge=1, le=100_000)] = 2000
    """Most samples in one request."""
    stale_markers: bool = True
    """Mark series that are gone, as Prometheus does, so that graphs end with the engine and not
    five minutes later."""


class Otlp(Buffered, kw_only=True):
    """A receiver of OTLP metrics over HTTP (`/v1/metrics`)."""

    example: ClassVar[str] = "http://collector:4318"

    resource: dict[Filled, str] = msgspec.field(default_factory=dict)
    """More attributes of the resource, such as `deployment.environment`."""


class MetricReporter(msgspec.Struct, kw_only=True):
    """Settings of the metric reporter."""

    interval: Annotated[Duration, Meta(gt=0, le=86400)] = 15.0
    """Seconds from one reading to the next."""
    scrape_timeout: Annotated[Duration, Meta(gt=0, le=3600)] = 10.0
    """Seconds in which the engine must answer. Readings that come due meanwhile are left out."""
    max_bytes: Annotated[Size, Meta(ge=1024)] = 16 * 1024 * 1024
    """A longer answer of the engine is not taken."""
    vllm_metrics_url: Address | None = None
    """vLLM's own metrics, `http://127.0.0.1:8000/metrics`: read on the scheduler instead of
    LMCache's internal API."""
    sources: list[MetricSource] = []
    """More endpoints, read on the scheduler. Each has its own series, groups and buffers."""
    job: Annotated[str, Meta(min_length=1)] = "lmcache"
    """Label `job`; in OTLP the `service.name`."""
    instance: Filled | None = None
    """Label `instance`; in OTLP the `service.instance.id`. Default: this host's name and the port
    that is read. If it is set, these are the label `source`, since engines may share it."""
    labels: dict[LabelName, str] = {}
    """More labels for every series. They may replace the reporter's own; an empty value removes
    one."""
    keep: list[Filled] = []
    """Metrics to send, by name: `vllm:*`. Default: all."""
    drop: list[Filled] = []
    """Metrics not to be sent, by name: `python_gc_*`."""
    relabel: list[Relabel] = []
    """Steps of relabelling, in their order, before the reporter adds its labels."""
    say_every: Annotated[Duration, Meta(gt=0)] = 60.0
    """Seconds between two log lines about the same problem."""
    target: Literal["console"] | None = None
    """`console` prints the samples to the log, for a trial without a server."""
    pushgateway: Pushgateway | None = None
    """Push to a Pushgateway."""
    remote_write: RemoteWrite | None = None
    """Send by remote write."""
    otlp: Otlp | None = None
    """Send by OTLP."""

    def why_unusable(self, key: str) -> str:
        """Return why the plugin cannot work with these settings, found at ``key``, or nothing."""
        if self.target or self.pushgateway or self.remote_write or self.otlp:
            return ""
        return (
            "there is no target: give one of pushgateway, remote_write and otlp in "
            f"'{key}', or 'target: console' for a trial"
        )
