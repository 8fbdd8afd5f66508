# SPDX-License-Identifier: Apache-2.0
"""Measure an engine by its own metrics, as vLLM serves them at ``/metrics``."""

from __future__ import annotations

import re
import time
from collections import deque
from typing import TYPE_CHECKING, Literal, NamedTuple

from lmcache_plugin_adapter.gallery.engine_health.endpoints import (
    Endpoint,
    accept_ok,
    engine_client,
)
from lmcache_plugin_adapter.gallery.http_client.address import shown_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

Statistic = Literal["value", "max", "per_second", "mean", "p50", "p90", "p95", "p99"]

SELECTOR = (
    r'^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_][a-zA-Z0-9_]*="[^"]*"'
    r'(, ?[a-zA-Z_][a-zA-Z0-9_]*="[^"]*")*,?\})?$'
)
"""A metric's name, and labels that its series must have."""

_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_OVER = 60.0


class Query(NamedTuple):
    """The parts of the metrics to read."""

    selectors: tuple[str, ...]
    """Names that versions of the engine use; the first one with a series counts."""
    statistic: Statistic = "value"
    over: float = _OVER
    """Seconds over which a rate, a mean or a quantile is taken."""
    scale: float = 1.0


ENGINE_QUERIES: dict[str, Query] = {
    "requests_running": Query(("vllm:num_requests_running",)),
    "requests_waiting": Query(("vllm:num_requests_waiting",)),
    "kv_cache_percent": Query(
        ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), "max", scale=100.0
    ),
    "time_to_first_token_seconds": Query(("vllm:time_to_first_token_seconds",), "p95"),
    "inter_token_latency_seconds": Query(
        ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"), "p95"
    ),
    "request_latency_seconds": Query(("vllm:e2e_request_latency_seconds",), "p95"),
    "generation_tokens_per_second": Query(("vllm:generation_tokens_total",), "per_second"),
    "preemptions_per_second": Query(("vllm:num_preemptions_total",), "per_second"),
}
"""The measures on vLLM's metrics."""

Buckets = dict[float, float]
"""Cumulative counts of a histogram, by upper bound."""


class EngineMetrics:
    """Read the engine's metrics and compute what rules use of them.

    Args:
        url: The address of the metrics.
        timeout: Seconds for an answer.
        verify: Whether to verify the certificate of an HTTPS server.
        queries: What to compute, by the names of the values.
        log: Logs a line.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        url: str,
        timeout: float,
        verify: bool,
        queries: Mapping[str, Query],
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = timeout
        self._log = log
        self._clock = clock
        self._windows = {key: Window(query) for key, query in queries.items()}
        self._sample = re.compile(
            rf"^({'|'.join(sorted(_names(queries.values())))})(\{{.*\}})?[ \t]+(\S+)", re.MULTILINE
        )
        self._text = ""
        self._logged: set[str] = set()

        self._endpoint = Endpoint(
            f"GET {shown_url(url)}", url, engine_client(timeout, verify), self._take
        )

    def read(self) -> dict[str, float]:
        """Return the values that are known now; wait at most for the timeout."""
        self._text = ""
        self._endpoint.start(self._timeout)
        self._endpoint.finish(time.monotonic() + self._timeout, self._timeout)
        if not self._text:
            if self._endpoint.answered or "HTTP" in self._endpoint.problem:
                self._report(self._endpoint.problem, "the rules on it stay quiet meanwhile")
            return {}
        series = list(self.parse(self._text))
        now = self._clock()
        values = {}
        for key, window in self._windows.items():
            if not window.take(now, series):
                self._report(f"there is no {window.query.selectors[0]!r}", f"{key!r} has no value")
                continue
            value = window.value()
            if value is not None:
                values[key] = value * window.query.scale
        return values

    def parse(self, text: str) -> Iterator[tuple[str, dict[str, str], float]]:
        """Yield name, labels and value of the samples that queries use."""
        for found in self._sample.finditer(text):
            try:
                value = float(found[3])
            except ValueError:
                continue
            if value == value:  # not NaN
                yield found[1], dict(_LABEL.findall(found[2] or "")), value

    def _take(self, status: int, body: bytes) -> str:
        problem = accept_ok(status, body)
        if not problem:
            self._text = body.decode(errors="replace") or "\n"
        return problem

    def _report(self, reason: str, effect: str) -> None:
        if reason not in self._logged and len(self._logged) < 100:
            self._logged.add(reason)
            self._log(f"Cannot measure the engine's metrics: {reason}; {effect}")


class Window:
    """The recent states of one query's metric.

    Args:
        query: The query.
    """

    def __init__(self, query: Query) -> None:
        self.query = query
        self._states: deque[tuple[float, dict[object, float]]] = deque()

    def take(self, now: float, series: Sequence[tuple[str, dict[str, str], float]]) -> bool:
        """Take the current samples; return whether the metric was among them."""
        for selector in self.query.selectors:
            state = self._state(selector, series)
            if state:
                break
        else:
            return False
        if self._states and any(
            value < self._states[-1][1].get(key, 0.0) for key, value in state.items()
        ):
            self._states.clear()  # the engine was restarted, its counters began anew
        self._states.append((now, state))
        while len(self._states) > 2 and self._states[1][0] <= now - self.query.over:
            self._states.popleft()
        return True

    def value(self) -> float | None:
        """Return the statistic; None: it needs one more reading."""
        (begun, before), (now, state) = self._states[0], self._states[-1]
        how = self.query.statistic
        if how in ("value", "max"):
            found = max if how == "max" else sum
            self._states.clear()
            return float(found(state.values()))
        if now <= begun:
            return None
        change = {key: value - before.get(key, 0.0) for key, value in state.items()}
        if how == "per_second":
            return sum(change.values()) / (now - begun)
        if how == "mean":
            count = change.get("count", 0.0)
            return change.get("sum", 0.0) / count if count else 0.0
        return quantile(
            int(how[1:]) / 100, {key: one for key, one in change.items() if isinstance(key, float)}
        )

    def _state(
        self, selector: str, series: Sequence[tuple[str, dict[str, str], float]]
    ) -> dict[object, float]:
        name, _, labels = selector.partition("{")
        wanted = dict(_LABEL.findall(labels))
        how = self.query.statistic
        state: dict[object, float] = {}
        for found, has, value in series:
            if any(has.get(label) != text for label, text in wanted.items()):
                continue
            key: object = None
            if how in ("value", "max", "per_second"):
                if found == name:
                    key = tuple(sorted(has.items()))
            elif how == "mean":
                suffix = found.removeprefix(f"{name}_")
                key = suffix if suffix in ("sum", "count") else None
            elif found == f"{name}_bucket":
                key = _bound(has.get("le", ""))
            if key is not None:
                state[key] = state.get(key, 0.0) + value
        return state


def quantile(share: float, buckets: Buckets) -> float:
    """Return a quantile of a histogram, interpolated in its bucket; 0 without observations."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return 0.0
    rank = share * total
    lower = below = 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if bound == float("inf") or buckets[bound] == below:
                return lower
            return lower + (bound - lower) * (rank - below) / (buckets[bound] - below)
        lower, below = bound, buckets[bound]
    return lower


def _bound(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _names(queries: Iterable[Query]) -> set[str]:
    names = set()
    for query in queries:
        for selector in query.selectors:
            name = re.escape(selector.partition("{")[0])
            suffixes = {"mean": ("_sum", "_count"), "value": ("",), "max": ("",)}
            default = ("",) if query.statistic == "per_second" else ("_bucket",)
            names |= {name + suffix for suffix in suffixes.get(query.statistic, default)}
    return names
