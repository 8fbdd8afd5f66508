# SPDX-License-Identifier: Apache-2.0
"""The source of an engine's metrics: LMCache's internal API, or vLLM's ``/metrics``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.configuration.settings import read_settings
from lmcache_plugin_adapter.gallery.http_client.address import (
    check_url,
    is_this_host_only,
    parse,
    shown_url,
)
from lmcache_plugin_adapter.gallery.http_client.answer import TargetError, failure
from lmcache_plugin_adapter.gallery.http_client.client import Client
from lmcache_plugin_adapter.gallery.http_client.deadline import Deadline
from lmcache_plugin_adapter.gallery.http_client.errors import HttpError
from lmcache_plugin_adapter.kit.engine_api.address import internal_api

from .settings import MetricSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from .exposition import Family
    from .settings import MetricReporter

METRICS = "/metrics"
"""The path of metrics."""

# A new connection for each reading: a kept one would stay with a process that has lost the port.
_HEADERS = {"Accept": "text/plain;version=0.0.4", "Connection": "close"}


class SourceError(Exception):
    """The engine's metrics could not be read; the text says why."""


@dataclass(frozen=True)
class SourceReader:
    """One endpoint, which the reporter reads repeatedly."""

    name: str
    """The name of the endpoint, for messages."""
    shown: str
    """The address, for messages."""
    url: str
    instance: str
    """The value of the label ``instance``."""
    client: Client
    max_bytes: int
    """The longest accepted answer."""
    internal: bool
    """Whether the endpoint is LMCache's internal API."""
    is_taken: Callable[[], bool] = lambda: False
    """Tells whether another process than the engine listens at the address."""
    replica: int | None = None
    """The replica to report, if the endpoint covers several; None: all."""

    def read(self, timeout: float) -> str:
        """Return the endpoint's metrics.

        Args:
            timeout: Seconds for the whole answer.

        Raises:
            SourceError: There is no answer, or it is not a 200, too long or too slow.
        """
        taken = bytearray()
        try:
            with self.client.stream(
                "GET", self.url, headers=_HEADERS, timeout=timeout, deadline=Deadline(timeout)
            ) as response:
                if response.status != 200:
                    raise SourceError(f"HTTP {response.status} {response.reason}")
                for piece in response.pieces():
                    taken += piece
                    if len(taken) > self.max_bytes:
                        raise SourceError(f"the answer is over {self.max_bytes} bytes")
        except (HttpError, TargetError) as error:
            raise SourceError(failure(error)) from None
        return taken.decode(errors="replace")

    def own(self, families: list[Family]) -> list[Family]:
        """Return the samples that this reporter sends.

        vLLM's ``/metrics`` has a label ``engine`` with the index of the replica. Samples without
        it belong to the server; the reporter of its first replica sends them.
        """
        if self.replica is None:
            return families
        labels = {sample.labels.get("engine", "") for one in families for sample in one.samples}
        first = min((int(text) for text in labels if text.isdecimal()), default=self.replica)
        mine = {str(self.replica)} | ({""} if first == self.replica else set())
        return [
            one._replace(samples=[s for s in one.samples if s.labels.get("engine", "") in mine])
            for one in families
        ]


def choose(ctx: kit.Context, settings: MetricReporter) -> list[SourceReader]:
    """Return the sources of this process; none: see ``why_none``.

    Raises:
        SettingsError: ``vllm_metrics_url`` is invalid.
    """
    own = _own_source(ctx, settings)
    found = [] if own is None else [own]
    if ctx.role != "WORKER":
        found += [_over_http("metrics", one, ctx, settings) for one in settings.sources]
    return found


def _own_source(ctx: kit.Context, settings: MetricReporter) -> SourceReader | None:
    """Return vLLM's ``/metrics`` if it is configured, else the internal API if there is one."""
    if ctx.role == "SCHEDULER" and settings.vllm_metrics_url is not None:
        try:
            check_url("it", settings.vllm_metrics_url)
            vllm = MetricSource(url=settings.vllm_metrics_url)
        except ValueError as wrong:
            key = f"{ctx.settings_key}.vllm_metrics_url"
            raise kit.SettingsError(f"cannot use setting '{key}': {wrong}") from None
        return _over_http("vLLM's metrics", vllm, ctx, settings)
    api, pid = ctx.internal_api, ctx.engine_pid
    if api is None:
        return None
    place = api.socket.rpartition("/")[2] if api.socket else api.port
    return SourceReader(
        _name(ctx),
        str(api) if api.socket else f"{api}/metrics",
        f"{api.url}{METRICS}",
        f"{ctx.host}:{place}",
        Client(timeout=settings.scrape_timeout, unix_socket=api.socket),
        settings.max_bytes,
        internal=True,
        is_taken=lambda: pid is not None and api.is_taken_from(pid),
    )


def _over_http(
    name: str, where: MetricSource, ctx: kit.Context, settings: MetricReporter
) -> SourceReader:
    """Return an endpoint that the settings name."""
    url = parse(where.at(METRICS))
    host = ctx.host if is_this_host_only(url.host) else url.host
    path = "" if url.path == METRICS else url.path
    return SourceReader(
        name,
        shown_url(str(url)),
        str(url),
        f"{host}:{url.effective_port}{path}",
        where.client(),
        settings.max_bytes,
        internal=False,
        replica=ctx.dp_rank if _in_every_replica(ctx) else None,
    )


def _name(ctx: kit.Context) -> str:
    return "LMCache's server" if ctx.role == "SERVER" else "LMCache's internal API"


def _in_every_replica(ctx: kit.Context) -> bool:
    settings, _ = read_settings(ctx.config.get("extra_config"))
    return settings.data_parallel == "all"


def why_none(ctx: kit.Context) -> str:
    """Return why this process has no source, and which setting would change that."""
    what = "LMCache's internal API is off or leaves this process out"
    how = "set internal_api_server_enabled: true"
    if ctx.role == "SCHEDULER":
        return f"{what}, and vllm_metrics_url is not set; {how}, or vllm_metrics_url"
    if ctx.role == "WORKER":
        return f"{what}; {how}"
    return "the address of LMCache's server is unknown; start it as 'lmcache server'"


def shared_with_worker(ctx: kit.Context, where: SourceReader) -> bool:
    """Tell whether worker 0 runs in this scheduler's process; its reporter sends the metrics.

    vLLM runs a single worker in the scheduler's process. Both internal API servers then answer
    with the metrics of that process.
    """
    if ctx.role != "SCHEDULER" or ctx.worker_count != 1 or ctx.engine_pid is None:
        return False
    workers = internal_api(ctx.config, "WORKER", 0)
    if workers is None or workers == ctx.internal_api or not where.internal:
        return False
    return workers.listens_in(ctx.engine_pid) is True
