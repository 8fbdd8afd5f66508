# SPDX-License-Identifier: Apache-2.0
"""Check whether an engine works: its process, its answers and its progress.

``EngineHealth.check`` always returns in time, even if the engine accepts connections and never
answers, as a process under SIGSTOP does. The faults::

    dead          the engine process has exited, or is a zombie
    stopped       the process is stopped (SIGSTOP, a debugger) for longer than a moment
    unresponsive  LMCache's internal API or vLLM's HTTP server does not answer
    stalled       vLLM has requests without any progress, or does not answer a probe request,
                  or the engine's first thread hangs in the kernel
    starting      no fault so far, but something has not answered for the first time; once the
                  engine process is old, this is unresponsive instead

vLLM's metrics add verdicts on progress. Their absence (``--disable-log-stats``, HTTP 500) is no
verdict, and is logged once, because stalls then show in probe requests only.

vLLM updates its metrics in the engine's steps. An engine that hangs in the step of its very first
request has not reported any request: only a probe request reveals that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.http_client.address import shown_url
from lmcache_plugin_adapter.gallery.http_client.client import Client

from .endpoints import Endpoint, accept_any, accept_ok, engine_client
from .idle_probe import IdleProbe
from .process import EngineProcess
from .progress import Progress
from .verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lmcache_plugin_adapter.kit import Context

    from .settings import HealthSettings

INTERNAL_API_PATH = "/version"
"""LMCache's internal API has no path for health: any answer counts, 404 included."""

_OK = Verdict(True, "", "ok")


class EngineHealth:
    """Check one engine repeatedly, from one thread at a time.

    Args:
        ctx: The plugin's context, with ``engine_pid`` and ``internal_api``.
        settings: What to check.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self, ctx: Context, settings: HealthSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._pid = ctx.engine_pid
        self._process = None
        if ctx.engine_pid is not None:
            self._process = EngineProcess(
                ctx.engine_pid, settings.stopped_after, settings.stalled_after
            )
        self._progress = Progress()
        self._idle_probe = IdleProbe(settings.probe, clock) if settings.probe is not None else None
        self._endpoints: list[Endpoint] = []  # the one of the internal API, if any, comes first
        timeout = settings.timeout
        self._api = api = ctx.internal_api if settings.internal_api else None
        self._has_api = False
        self._taken_logged = False
        if api is not None:
            url = api.url + INTERNAL_API_PATH
            name = "LMCache's server" if ctx.role == "SERVER" else "LMCache's internal API"
            self._endpoints.append(
                Endpoint(
                    name, url, lambda: Client(timeout=timeout, unix_socket=api.socket), accept_any
                )
            )

        open_client = engine_client(timeout, settings.verify)

        def endpoint(address: str, judge: Callable[[int, bytes], str], required: bool) -> Endpoint:
            return Endpoint(f"GET {shown_url(address)}", address, open_client, judge, required)

        if settings.health_url is not None:
            self._endpoints.append(endpoint(settings.health_url, accept_ok, True))
        self._metrics: Endpoint | None = None
        self._no_metrics = ""
        """The problems of the metrics, as far as they were answered."""
        self._no_metrics_logged = False
        if settings.metrics_url is not None:
            required = settings.health_url is None  # else /health shows whether vLLM answers
            self._metrics = endpoint(settings.metrics_url, self._take_metrics, required)
            self._endpoints.append(self._metrics)

    def check(self) -> Verdict:
        """Check the engine, in about ``timeout`` seconds at most."""
        now = self._clock()
        verdict = self._process.look(now) if self._process is not None else _OK
        if verdict.state != "ok":
            return verdict
        endpoints = self._own_endpoints()
        if self._process is None or not self._process.is_stopped:
            self._run(endpoints)
        return self._judge_answers(endpoints, verdict)

    def death(self, word: str) -> Verdict | None:
        """Return the verdict on the engine if it died, once the plugin is to stop; else None.

        Args:
            word: The context's ``ending``.
        """
        return None if self._process is None else self._process.death(word)

    def _own_endpoints(self) -> list[Endpoint]:
        """Return the endpoints, without that of an internal API which belongs to another engine.

        Only one of the engines on a host gets the port; its answers do not concern the others.
        """
        if self._api is None or self._pid is None or self._has_api:
            return self._endpoints
        self._has_api = self._api.listens_in(self._pid) is True  # for good
        if self._has_api or not self._api.is_taken_from(self._pid):
            return self._endpoints
        if not self._taken_logged:
            self._taken_logged = True
            kit.info(
                f"LMCache's internal API is not checked: another process listens at {self._api}, "
                f"not engine process {self._pid}"
            )
        return self._endpoints[1:]

    def _run(self, endpoints: list[Endpoint]) -> None:
        deadline = time.monotonic() + self._settings.timeout
        for endpoint in endpoints:
            endpoint.start(self._settings.timeout)
        for endpoint in endpoints:
            endpoint.finish(deadline, self._settings.timeout)
        if self._idle_probe is not None and all(one.answered for one in endpoints if one.required):
            self._idle_probe.look(self._progress.moved_at)

    def _judge_answers(self, endpoints: list[Endpoint], verdict: Verdict) -> Verdict:
        odd = [verdict.reason] if verdict.reason else []
        limit = self._settings.failures
        is_old = self._process is not None and self._process.age > self._settings.startup_timeout
        for endpoint in endpoints:
            if endpoint.failed and (endpoint.answered or is_old):
                if endpoint.required and endpoint.failed >= limit:
                    text = f"{endpoint.problem} ({endpoint.failed} in a row)"
                    return Verdict(False, text, "unresponsive")
                odd.append(f"{endpoint.problem} ({endpoint.failed} of {limit})")
        if self._no_metrics:
            odd.append(self._no_metrics)
        for engine, seconds, requests in self._standing():
            which = f" of engine {engine}" if engine else ""
            number = f"{requests:.0f} request{'s' if requests > 1 else ''}"
            text = f"no progress{which} for {seconds:.0f} s with {number}"
            if seconds >= self._settings.stalled_after:
                return Verdict(False, text, "stalled")
            if seconds >= self._settings.stalled_after / 2:
                odd.append(text)
        if self._idle_probe is not None and self._idle_probe.stalled:
            return Verdict(False, self._idle_probe.stalled, "stalled")
        if self._idle_probe is not None and self._idle_probe.odd:
            odd.append(self._idle_probe.odd)
        for endpoint in endpoints:
            if endpoint.required and not endpoint.answered:
                text = f"has not answered yet: {endpoint.problem}"
                return Verdict(False, text, "starting")
        return Verdict(True, "; ".join(odd), "ok")

    def _standing(self) -> Iterable[tuple[str, float, float]]:
        """Return the engines without progress; none while there are no metrics to tell."""
        if self._metrics is None or self._metrics.failed or self._no_metrics:
            return ()
        return self._progress.standing(self._clock())

    def _take_metrics(self, status: int, body: bytes) -> str:
        """Take the metrics; any answer shows that vLLM's server answers."""
        problem = accept_ok(status, body)
        if not problem:
            problem = self._progress.take(body.decode(errors="replace"), self._clock())
        if problem and self._metrics is not None:
            problem = f"{self._metrics.name}: {problem}"
            if not self._no_metrics_logged:
                self._no_metrics_logged = True
                kit.warning(f"Stalls are not visible in vLLM's metrics: {problem}")
        self._no_metrics = problem
        return ""
