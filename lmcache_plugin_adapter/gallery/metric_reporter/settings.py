"""What can be set for the metric reporter: one struct for it, one for each kind of target."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter.gallery.http_client.target import Filled, HttpTarget

OWN_LABELS = ("job", "instance", "host", "role", "rank", "dp_rank")
"""Labels that the reporter adds to every series; ``rank`` on workers only."""

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


class Pushgateway(HttpTarget, kw_only=True):
    """A Pushgateway, which keeps the last values of each group for Prometheus to collect."""

    delete_on_stop: Annotated[
        bool,
        Meta(
            description=(
                "Delete the group when the engine ends. `false` leaves its last values there, "
                "for good."
            )
        ),
    ] = True


class Buffered(HttpTarget, kw_only=True):
    """A target that gets every sample, late if need be."""

    buffer_seconds: Annotated[
        float,
        Meta(
            gt=0,
            description="Samples that are older are dropped when the target has been away so long.",
        ),
    ] = 3600.0
    buffer_samples: Annotated[
        int,
        Meta(
            ge=1,
            description="As many samples are kept for the target; the oldest are dropped.",
        ),
    ] = 1_000_000


class RemoteWrite(Buffered, kw_only=True):
    """A receiver of Prometheus' remote write 1.0."""

    request_samples: Annotated[
        int, Meta(ge=1, le=100_000, description="Most samples in one request.")
    ] = 2000
    stale_markers: Annotated[
        bool,
        Meta(
            description=(
                "Mark series that are gone, as Prometheus does, so that graphs end with the "
                "engine and not five minutes later."
            )
        ),
    ] = True


class Otlp(Buffered, kw_only=True):
    """A receiver of OTLP metrics over HTTP; ``url`` is the whole of it, with ``/v1/metrics``."""

    resource: Annotated[
        dict[Filled, str],
        Meta(description="More attributes of the resource, such as `deployment.environment`."),
    ] = msgspec.field(default_factory=dict)


class MetricReporter(msgspec.Struct, kw_only=True):
    """Settings of the metric reporter."""

    interval: Annotated[
        float, Meta(gt=0, le=86400, description="Seconds from one reading to the next.")
    ] = 15.0
    scrape_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description=(
                "Seconds in which the engine must answer. Readings that come due meanwhile are "
                "left out."
            ),
        ),
    ] = 10.0
    max_bytes: Annotated[
        int, Meta(ge=1024, description="A longer answer of the engine is not taken.")
    ] = 16 * 1024 * 1024
    vllm_metrics_url: Annotated[
        Address | None,
        Meta(
            description=(
                "vLLM's own metrics, `http://127.0.0.1:8000/metrics`: read on the scheduler "
                "instead of LMCache's internal API."
            )
        ),
    ] = None
    job: Annotated[
        str, Meta(min_length=1, description="Label `job`; in OTLP the `service.name`.")
    ] = "lmcache"
    instance: Annotated[
        Filled | None,
        Meta(
            description=(
                "Label `instance`; in OTLP the `service.instance.id`. "
                "Without it: this host's name and the port that is read."
            )
        ),
    ] = None
    labels: Annotated[
        dict[LabelName, str],
        Meta(
            description=(
                "More labels for every series. One of the reporter's own may be given another "
                "value; an empty one leaves it out."
            )
        ),
    ] = {}
    drop: Annotated[
        list[Filled],
        Meta(description="Metrics not to be sent, by name: `python_gc_*`."),
    ] = []
    say_every: Annotated[
        float,
        Meta(gt=0, description="Seconds between two lines about the same trouble."),
    ] = 60.0
    pushgateway: Annotated[
        Pushgateway | None, Meta(description="Where to push to; see the table below.")
    ] = None
    remote_write: Annotated[
        RemoteWrite | None, Meta(description="Where to write to; see the table below.")
    ] = None
    otlp: Annotated[Otlp | None, Meta(description="Where to send OTLP; see the table below.")] = (
        None
    )
