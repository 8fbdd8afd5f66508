"""The heartbeat's settings, and which of them contradict each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter.gallery.engine_health.health import HealthSettings, Url
from lmcache_plugin_adapter.gallery.http_client.target import Filled, HttpTarget, check_url

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 2.0
"""Seconds for a request: an entry must be refreshed twice within its time, and be taken back
within the grace period."""

PAUSE = 0.6
"""The longest pause, in seconds, between a refresh that fails and the next."""

CONSUL_REAPING = 30.0
"""Consul looks for services to remove every so many seconds, and after a minute at the earliest."""

Seconds = Annotated[float, Meta(gt=0, le=86400)]
_Timeout = Annotated[
    float, Meta(gt=0, le=3600, description="Seconds in which a request must be answered.")
]
_Refresh = Annotated[
    Seconds | None,
    Meta(description="Seconds from one refresh to the next. Default: a third of `ttl`."),
]
MetaKey = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
MetaValue = Annotated[str, Meta(max_length=512)]


class Etcd(HttpTarget, kw_only=True, forbid_unknown_fields=True):
    """An entry in etcd v3 that expires with its lease, through etcd's JSON gateway."""

    timeout: _Timeout = TIMEOUT
    other_urls: Annotated[
        list[Url],
        Meta(description="Further members of the cluster, for when `url` does not answer."),
    ] = msgspec.field(default_factory=list)
    prefix: Annotated[
        str,
        Meta(description="Beginning of the key; then come `/`, `service`, `/` and `instance`."),
    ] = "/services"
    key: Annotated[
        Filled | None, Meta(description="The whole key, instead of that. Only one engine may.")
    ] = None
    ttl: Annotated[
        int,
        Meta(
            ge=2,
            le=86400,
            description="Seconds after which the entry expires when nothing refreshes it.",
        ),
    ] = 15
    interval: _Refresh = None

    def __post_init__(self) -> None:
        """Refuse what only looks like an address."""
        super().__post_init__()
        for index, url in enumerate(self.other_urls):
            check_url(f"other_urls[{index}]", url)


class Consul(HttpTarget, kw_only=True, forbid_unknown_fields=True):
    """A service with a TTL check, registered with the Consul agent of this host."""

    timeout: _Timeout = TIMEOUT
    token: Annotated[
        Filled | None, Meta(description="ACL token (`X-Consul-Token`). Better: a file.")
    ] = None
    token_file: Annotated[
        Filled | None, Meta(description="File with the ACL token, read for each request.")
    ] = None
    ttl: Annotated[
        int,
        Meta(
            ge=2,
            le=86400,
            description="Seconds after which the check is critical when nothing refreshes it.",
        ),
    ] = 15
    interval: _Refresh = None
    remove_critical_after: Annotated[
        float,
        Meta(
            ge=60,
            le=30 * 86400,
            description=(
                "Seconds after which Consul itself removes a service that stays critical "
                "(`DeregisterCriticalServiceAfter`)."
            ),
        ),
    ] = 60.0
    warnings: Annotated[
        bool,
        Meta(
            description=(
                "Report an engine that works, but shows something odd, as `warning` rather than "
                "`passing`."
            )
        ),
    ] = False

    def __post_init__(self) -> None:
        """Refuse two tokens."""
        super().__post_init__()
        if self.token is not None and self.token_file is not None:
            raise ValueError("give token or token_file, not both")


class Ping(HttpTarget, kw_only=True, forbid_unknown_fields=True):
    """A URL that is asked for as long as the engine works."""

    path_is_secret: ClassVar[bool] = True

    url: Annotated[Url, Meta(description="Address of the server.", extra={"secret": True})]
    timeout: _Timeout = TIMEOUT
    method: Annotated[
        Literal["GET", "HEAD", "POST", "PUT"], Meta(description="Method of all requests.")
    ] = "GET"
    body: Annotated[
        dict[str, object] | None,
        Meta(
            description=(
                "JSON to send with POST and PUT. Default: what is registered elsewhere, with the "
                "engine's state."
            )
        ),
    ] = None
    success: Annotated[
        list[Annotated[int, Meta(ge=100, le=599)]],
        Meta(description="Status codes that mean success. Default: 200 to 299."),
    ] = msgspec.field(default_factory=list)
    interval: Annotated[
        float, Meta(gt=0, le=86400, description="Seconds from one request to the next.")
    ] = 15.0
    fail_url: Annotated[
        Url | None,
        Meta(
            description="Asked for once when the engine does not work any more, or has died.",
            extra={"secret": True},
        ),
    ] = None
    stop_url: Annotated[
        Url | None,
        Meta(
            description="Asked for once when the engine or the plugin ends.",
            extra={"secret": True},
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse what only looks like an address."""
        super().__post_init__()
        for key in ("fail_url", "stop_url"):
            url = getattr(self, key)
            if url is not None:
                check_url(key, url)


class Heartbeat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Everything."""

    service: Annotated[
        str,
        Meta(min_length=1, max_length=255, description="Name of the service."),
    ] = "vllm"
    instance: Annotated[
        Filled | None,
        Meta(
            description=(
                "What tells this engine from all others of the service. Default: host, port, "
                "data-parallel rank and role, such as `node7-8000-dp0-scheduler`."
            )
        ),
    ] = None
    address: Annotated[
        Filled | None,
        Meta(
            description=(
                "Where clients reach the engine. Default: `VLLM_HOST_IP` or `POD_IP` of the "
                "environment, else the address of the interface with the default route."
            )
        ),
    ] = None
    port: Annotated[int, Meta(ge=1, le=65535, description="Port of vLLM's HTTP server.")] = 8000
    tags: Annotated[list[Filled], Meta(description="Tags of the service.")] = []
    metadata: Annotated[
        dict[MetaKey, MetaValue], Meta(max_length=48, description="Names and values of your own.")
    ] = {}
    interval: Annotated[
        float,
        Meta(gt=0, le=3600, description="Seconds from one look at the engine to the next."),
    ] = 3.0
    ask_vllm: Annotated[
        bool,
        Meta(
            description=(
                "Look at `/health` and `/metrics` of `http://127.0.0.1:PORT`, where `engine` "
                "names no other addresses."
            )
        ),
    ] = True
    deregister_after: Annotated[
        float,
        Meta(
            ge=0,
            le=86400,
            description=(
                "Seconds for which an engine that does not work, and is not dead, keeps its entry. "
                "It is not refreshed (etcd) and critical (Consul) all the same."
            ),
        ),
    ] = 0.0
    engine: Annotated[HealthSettings, Meta(description="How the engine is looked at.")] = (
        HealthSettings()
    )
    etcd: Annotated[Etcd | None, Meta(description="Register in etcd.")] = None
    consul: Annotated[Consul | None, Meta(description="Register in Consul.")] = None
    http: Annotated[Ping | None, Meta(description="Ask for a URL.")] = None

    def examination(self) -> HealthSettings:
        """Return how to look at the engine, with the addresses that follow from ``port``."""
        if not self.ask_vllm:
            return self.engine
        base = f"http://127.0.0.1:{self.port}"
        return msgspec.structs.replace(
            self.engine,
            health_url=self.engine.health_url or f"{base}/health",
            metrics_url=self.engine.metrics_url or f"{base}/metrics",
        )


class Rhythm(NamedTuple):
    """How often a target is spoken to, in seconds.

    Attributes:
        interval: From one refresh to the next.
        timeout: For one request.
        ttl: After which the target takes the engine for gone; None: it alone knows.
    """

    interval: float
    timeout: float
    ttl: float | None


class Contradiction(NamedTuple):
    """A value that does not fit others.

    Attributes:
        key: Of the setting, below the plugin's own section.
        text: What was found, what is accepted and what is done instead.
    """

    key: str
    text: str


def rhythm_of(target: Etcd | Consul | Ping) -> Rhythm:
    """Return how often to speak to a target: its settings, as far as they can be kept."""
    if isinstance(target, Ping):
        return Rhythm(target.interval, min(target.timeout, target.interval), None)
    interval = target.interval
    if interval is None or interval >= target.ttl / 2:
        interval = target.ttl / 3
    return Rhythm(interval, min(target.timeout, _longest(target.ttl, interval)), target.ttl)


def contradictions(settings: Heartbeat) -> Iterator[Contradiction]:
    """Yield what ``rhythm_of`` does not take as it was written."""
    for name in ("etcd", "consul"):
        target: Etcd | Consul | None = getattr(settings, name)
        if target is None:
            continue
        rhythm = rhythm_of(target)
        if target.interval is not None and target.interval != rhythm.interval:
            yield Contradiction(
                f"{name}.interval",
                f"found {target.interval:g}, accepted is less than half of '{name}.ttl' "
                f"({target.ttl / 2:g}), so that one lost refresh does no harm; "
                f"{rhythm.interval:g} is taken",
            )
        if target.timeout not in (rhythm.timeout, TIMEOUT):
            yield Contradiction(
                f"{name}.timeout",
                f"found {target.timeout:g}, accepted is at most "
                f"{_longest(target.ttl, rhythm.interval):g}, so that two refreshes fit into "
                f"'{name}.ttl'; that is taken",
            )
    ping = settings.http
    if ping is not None and ping.timeout > ping.interval and ping.timeout != TIMEOUT:
        yield Contradiction(
            "http.timeout",
            f"found {ping.timeout:g}, accepted is at most 'http.interval' ({ping.interval:g}); "
            "that is taken",
        )


def _longest(ttl: float, interval: float) -> float:
    """Return the longest time for a request with which a second one comes in time."""
    return math.floor(50 * (ttl - interval - PAUSE)) / 100
