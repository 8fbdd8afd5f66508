# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the metric reporter: an engine's metrics, a target, a reporter between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from metric_stubs import EngineMetrics, Gate, report_worker


@pytest.fixture
def engine() -> Iterator[EngineMetrics]:
    """The metrics that the reporter reads, served by this process."""
    with EngineMetrics() as engine:
        yield engine


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A target that accepts everything."""
    with Gate() as gate:
        yield gate


@pytest.fixture
def report(run_plugin: Callable[..., Any], engine: EngineMetrics) -> Callable[..., Any]:
    """Run the reporter on worker 0 with one target: ``report("otlp", url, …)``."""

    def begin(
        kind: str, url: str, grace: float = 20, target: dict[str, Any] | None = None, **more: Any
    ) -> Any:
        targets: dict[str, Any] = {kind: {"url": url, **(target or {})}}
        return report_worker(run_plugin, engine, grace, **targets, **more)

    return begin
