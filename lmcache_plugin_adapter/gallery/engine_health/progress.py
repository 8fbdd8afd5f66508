"""Whether vLLM gets on with its requests, read from its metrics: pure arithmetic.

vLLM counts a prompt's tokens when all of the prompt has been processed. A long prompt moves only
the use of the KV cache until then, which therefore counts as progress, too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
REQUESTS = (RUNNING, WAITING)
"""Gauges of requests in an engine. A waiting one may wait for a KV cache that never comes."""

MARKS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:kv_cache_usage_perc")
"""What moves when an engine gets on."""


class Progress:
    """Follows the engines behind one ``/metrics``, each by its label ``engine``."""

    def __init__(self) -> None:
        self._marks: dict[str, tuple[float, ...]] = {}
        self._requests: dict[str, float] = {}
        self._since: dict[str, float] = {}
        self.moved_at: float | None = None
        """When any of the engines was last seen to get on; None: not yet."""

    def take(self, text: str, now: float) -> str:
        """Take vLLM's metrics as they are now; return what is wrong with them, or nothing."""
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
        """Yield engine, seconds without progress and requests, of engines with requests."""
        for engine, requests in self._requests.items():
            if requests:
                yield engine, now - self._since[engine], requests


def read_samples(text: str) -> Iterator[tuple[str, str, float]]:
    """Yield name, label ``engine`` and value of the samples that matter here.

    A parser of all that vLLM exports would cost more than the rest of a check.
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
