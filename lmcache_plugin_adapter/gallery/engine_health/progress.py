# SPDX-License-Identifier: Apache-2.0
"""Whether vLLM makes progress with its requests, computed from its metrics.

vLLM counts a prompt's tokens once the whole prompt is processed. Until then, a long prompt changes
only the use of the KV cache, which therefore counts as progress, too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
REQUESTS = (RUNNING, WAITING)
"""Gauges of requests. A waiting request counts: it may wait for a KV cache that never comes."""

MARKS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:kv_cache_usage_perc")
"""Metrics that change when an engine makes progress."""


class Progress:
    """Track the engines behind one ``/metrics``, each by its label ``engine``."""

    def __init__(self) -> None:
        self._marks: dict[str, tuple[float, ...]] = {}
        self._requests: dict[str, float] = {}
        self._since: dict[str, float] = {}
        self.moved_at: float | None = None
        """When any engine last made progress; None: not yet."""

    def take(self, text: str, now: float) -> str:
        """Take vLLM's current metrics; return what is wrong with them, or an empty text."""
        samples: dict[str, dict[str, float]] = {}
        for name, engine, value in read_samples(text):
            of_engine = samples.setdefault(engine, {})
            of_engine[name] = of_engine.get(name, 0.0) + value
        engines = {engine: found for engine, found in samples.items() if RUNNING in found}
        if not engines:
            return f"no {RUNNING} (not vLLM's metrics, or its statistics are off)"
        for engine, found in engines.items():
            marks = tuple(found.get(name, 0.0) for name in MARKS)
            requests = sum(found.get(name, 0.0) for name in REQUESTS)
            if marks != self._marks.get(engine, marks):
                self.moved_at = now
            if not requests or marks != self._marks.get(engine) or not self._requests.get(engine):
                self._since[engine] = now
            self._marks[engine] = marks
            self._requests[engine] = requests
        for gone in self._marks.keys() - engines.keys():
            del self._marks[gone], self._requests[gone], self._since[gone]
        return ""

    def standing(self, now: float) -> Iterator[tuple[str, float, float]]:
        """Yield name, seconds without progress and requests of each engine with requests."""
        for engine, requests in self._requests.items():
            if requests:
                yield engine, now - self._since[engine], requests


def read_samples(text: str) -> Iterator[tuple[str, str, float]]:
    """Yield name, label ``engine`` and value of the relevant samples.

    Parsing all of vLLM's metrics would cost more than the rest of a check.
    """
    for match in _SAMPLE.finditer(text):
        name, labels, value = match.groups()
        engine = _ENGINE.search(labels or "")
        try:
            yield name, engine[1] if engine else "", float(value)
        except ValueError:
            continue


_SAMPLE = re.compile(
    rf"^({'|'.join(map(re.escape, REQUESTS + MARKS))})(\{{.*\}})?[ \t]+(\S+)", re.MULTILINE
)
_ENGINE = re.compile(r'[{,]engine="([^"]*)"')
