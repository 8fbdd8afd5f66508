# SPDX-License-Identifier: Apache-2.0
"""The settings of the heartbeat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter.gallery.engine_health.settings import HealthSettings
from lmcache_plugin_adapter.gallery.http_client.address import Filled, Url, check_url, check_urls
from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget
from lmcache_plugin_adapter.kit.settings.quantities import Duration, WholeSeconds

if TYPE_CHECKING:
    from lmcache_plugin_adapter.kit import Context

PORT = 8000
"""Port of vLLM's HTTP server."""
TIMEOUT = 2.0
"""Seconds for a request: two refreshes must fit into the time to live, and one deregistration into
the grace period."""

_Timeout = Annotated[Duration, Meta(gt=0, le=3600)]
_Ttl = Annotated[WholeSeconds, Meta(ge=2, le=86400)]
_Seconds = Annotated[Duration, Meta(gt=0, le=86400)]
_MetaKey = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
_MetaValue = Annotated[str, Meta(max_length=512)]


class Etcd(HttpTarget, kw_only=True, forbid_unknown_fields=True):
    """An entry in etcd v3 that expires with its lease, through etcd's JSON gateway."""

    example: ClassVar[str] = "http://etcd:2379"

    timeout: _Timeout = TIMEOUT
    other_urls: list[Url] = msgspec.field(default_factory=list)
    """More members of the cluster, used when `url` does not answer."""
    prefix: str = "/services"
    """Beginning of the key, before `/`, `service`, `/` and `instance`."""
    key: Filled | None = None
    """The whole key, instead of the above. Only one engine may use it."""
    ttl: _Ttl = 15
    """Seconds after which the entry expires unless it is refreshed."""
    interval: _Seconds | None = None
    """Seconds from one refresh to the next. Default: a third of `ttl`."""

    def __post_init__(self) -> None:
        """Refuse invalid addresses."""
        super().__post_init__()
        for index, url in enumerate(self.other_urls):
            check_url(f"other_urls[{index}]", url)


class Consul(HttpTarget, kw_only=True, forbid_unknown_fields=True):
    """A service with a TTL check, registered with the Consul agent of this host."""

    example: ClassVar[str] = "http://127.0.0.1:8500"

    timeout: _Timeout = TIMEOUT
    token: Filled | None = None
    """ACL token (`X-Consul-Token`). Better: a file."""
    token_file: Filled | None = None
    """File with the ACL token, read for each request."""
    ttl: _Ttl = 15
    """Seconds after which the check turns critical unless it is refreshed."""
    interval: _Seconds | None = None
    """Seconds from one refresh to the next. Default: a third of `ttl`."""
    remove_critical_after: Annotated[Duration, Meta(ge=60, le=30 * 86400)] = 60.0
    """Seconds after which Consul itself removes a service that stays critical
    (`DeregisterCriticalServiceAfter`)."""
    warnings: bool = False
    """Report an engine that works but shows a suspicious condition as `warning` instead of
    `passing`."""

    def __post_init__(self) -> None:
        """Refuse two tokens."""
        super().__post_init__()
        if self.token is not None and self.token_file is not None:
            raise ValueError("give token or token_file, not both")


class Ping(HttpTarget, kw_only=True, forbid_unknown_fields=True):
    """A URL that receives requests while the engine works."""

    path_is_secret: ClassVar[bool] = True

    url: Annotated[Url, Meta(extra={"secret": True})]
    """Address of the server."""
    timeout: _Timeout = TIMEOUT
    method: Literal["GET", "HEAD", "POST", "PUT"] = "GET"
    """Method of all requests."""
    body: dict[str, object] | None = None
    """JSON to send with POST and PUT. Default: the registration of the engine, with its state."""
    success: list[Annotated[int, Meta(ge=100, le=599)]] = msgspec.field(default_factory=list)
    """Status codes that mean success. Default: 200 to 299."""
    interval: _Seconds = 15.0
    """Seconds from one request to the next."""
    fail_url: Annotated[Url | None, Meta(extra={"secret": True})] = None
    """Requested once when the engine no longer works or has died."""
    stop_url: Annotated[Url | None, Meta(extra={"secret": True})] = None
    """Requested once when the engine or the plugin stops."""

    def __post_init__(self) -> None:
        """Refuse invalid addresses."""
        super().__post_init__()
        check_urls(self, "fail_url", "stop_url")


class Heartbeat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All settings of the heartbeat."""

    service: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    """Name of the service. Default: `vllm`, or `lmcache` beside LMCache's server."""
    instance: Filled | None = None
    """Unique name of this engine within the service. Default: host, port, data-parallel rank and
    role, such as `node7-8000-dp0-scheduler`."""
    address: Filled | None = None
    """Address at which clients on other hosts reach the engine; a loopback or unspecified one is
    replaced. Default: `VLLM_HOST_IP` or `POD_IP` of the
    environment, else the address of the interface with the default route."""
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    """Port to register. Default: 8000, where vLLM's HTTP server listens, or the port of LMCache's
    server."""
    tags: list[Filled] = []
    """Tags of the service."""
    metadata: Annotated[dict[_MetaKey, _MetaValue], Meta(max_length=48)] = {}
    """Names and values of your own."""
    interval: Annotated[Duration, Meta(gt=0, le=3600)] = 3.0
    """Seconds between two checks of the engine."""
    ask_vllm: bool = True
    """Check `/health` and `/metrics` of `http://127.0.0.1:PORT`, unless `engine` gives other
    addresses. Not beside LMCache's server, whose own HTTP port is checked."""
    deregister_after: Annotated[Duration, Meta(ge=0, le=86400)] = 0.0
    """Seconds for which an unhealthy engine that is not dead keeps its entry. Meanwhile the entry
    is not refreshed (etcd), or critical (Consul)."""
    engine: HealthSettings = HealthSettings()
    """How the engine is checked."""
    target: Literal["console"] | None = None
    """`console` prints what would be registered to the log, for a trial without a server."""
    etcd: Etcd | None = None
    """Register in etcd."""
    consul: Consul | None = None
    """Register in Consul."""
    http: Ping | None = None
    """Send requests to a URL."""

    def why_unusable(self, key: str) -> str:
        """Return why the plugin cannot work with these settings, found at ``key``, or nothing."""
        if self.target or self.etcd or self.consul or self.http:
            return ""
        return (
            f"cannot register the engine: '{key}' has none of 'etcd', 'consul' and 'http', "
            "nor 'target: console' for a trial"
        )

    def completed(self, ctx: Context) -> Heartbeat:
        """Return the settings with the defaults of the host beside which the plugin runs."""
        server = ctx.config.get("mp_config") if ctx.role == "SERVER" else None
        if not isinstance(server, dict):
            return self
        return msgspec.structs.replace(
            self,
            service=self.service or "lmcache",
            port=self.port or server.get("port"),
            ask_vllm=False,
        )

    def examination(self) -> HealthSettings:
        """Return how to check the engine, with the addresses that follow from ``port``."""
        if not self.ask_vllm:
            return self.engine
        base = f"http://127.0.0.1:{self.port or PORT}"
        return msgspec.structs.replace(
            self.engine,
            health_url=self.engine.health_url or f"{base}/health",
            metrics_url=self.engine.metrics_url or f"{base}/metrics",
        )
