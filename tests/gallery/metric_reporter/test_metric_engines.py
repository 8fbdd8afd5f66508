# SPDX-License-Identifier: Apache-2.0
"""The metric reporter on a host with several engines: each sends what is its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from harness import wait_until
from metric_stubs import ENVIRONMENT, PLUGIN, EngineMetrics, Gate
from plugins import METRIC_REPORTER

from lmcache_plugin_adapter.gallery.metric_reporter import exposition
from lmcache_plugin_adapter.gallery.metric_reporter.settings import MetricReporter
from lmcache_plugin_adapter.gallery.metric_reporter.source import choose
from lmcache_plugin_adapter.kit import Context

NAME = "all_metric_reporter"

pytestmark = pytest.mark.timeout(120)


def settings(gate: Gate) -> dict[str, Any]:
    """Return those of a reporter in a hurry."""
    return {"interval": 0.25, "pushgateway": {"url": gate.url}}


def test_another_engines_metrics_are_not_read_and_its_group_is_left_alone(
    run_plugin: Callable[..., Any], engine: EngineMetrics
) -> None:
    """A second engine whose internal API found the port taken. Nothing is sent, to the end."""
    with Gate() as gate:
        plugin = run_plugin(
            METRIC_REPORTER, role="worker", name=NAME, config=engine.config, settings=settings(gate)
        )
        line = plugin.wait_for("another process than this engine listens there")
        assert line.level == "warning"
        assert f"Does not read LMCache's internal API ({engine.url}/metrics)" in line.text
        assert plugin.stop() == 0
        assert len([one for one in plugin.lines if "another process" in one.text]) == 1
        assert not engine.served
        assert not gate.requests


def test_a_port_that_is_taken_and_given_back_is_read_again(
    run_plugin: Callable[..., Any],
) -> None:
    """What was sent until then is ended: it was the engine's own."""
    with Gate() as gate:
        engine = EngineMetrics()
        plugin = run_plugin(
            METRIC_REPORTER, role="worker", name=NAME, config=engine.config, settings=settings(gate)
        )
        wait_until(lambda: gate.accepted, 20, "readings of an engine that does not answer")
        assert b"\nup{" in gate.accepted[0].body
        with socket.create_server(("127.0.0.1", engine.port)):
            plugin.wait_for("another process")
            wait_until(lambda: gate.accepted[-1].method == "DELETE", 20, "the end")
        before = len(gate.accepted)
        wait_until(lambda: len(gate.accepted) > before, 20, "readings again")
        assert gate.accepted[before].method == "PUT"
        assert plugin.stop() == 0


def test_an_engine_is_read_by_its_own_reporter(
    run_plugin: Callable[..., Any], engine: EngineMetrics
) -> None:
    """It listens itself."""
    with Gate() as gate:
        plugin = run_plugin(
            PLUGIN,
            role="worker",
            name=NAME,
            config=engine.config,
            settings=settings(gate),
            env=ENVIRONMENT,
        )
        wait_until(lambda: engine.served >= 2, 20, "readings")
        assert plugin.stop() == 0
        assert not [line for line in plugin.lines if line.level == "warning"]


def scheduler(rank: int, data_parallel: str) -> Context:
    """Return the scheduler of a replica."""
    return Context(
        role="SCHEDULER",
        worker_id=-1,
        worker_count=2,
        name=NAME,
        dp_rank=rank,
        dp_size=4,
        engine_pid=os.getpid(),
        config={"extra_config": {"runtime_plugins": {"data_parallel": data_parallel}}},
    )


@pytest.mark.parametrize(
    ("rank", "data_parallel", "expected"),
    [
        (0, "local-rank-0", ["running 0", "running 1", "memory"]),
        (0, "all", ["running 0", "memory"]),
        (1, "all", ["running 1"]),
        (2, "all", []),
    ],
)
def test_vllms_metrics_of_several_replicas_are_sent_once(
    rank: int, data_parallel: str, expected: list[str]
) -> None:
    """Each reporter sends its replica's; what is the server's goes with the first."""
    text = 'running{engine="0"} 1\nrunning{engine="1"} 2\nmemory 3\n'
    (where,) = choose(
        scheduler(rank, data_parallel),
        msgspec.convert({"vllm_metrics_url": "http://127.0.0.1:8000/metrics"}, MetricReporter),
    )
    found = [
        " ".join([sample.name, *sample.labels.values()])
        for family in where.own(exposition.parse(text))
        for sample in family.samples
    ]
    assert found == expected


def test_a_server_of_later_replicas_has_a_first_one_too() -> None:
    """A node behind a load balancer of its own: replicas 2 and 3. Old servers name none."""
    (where,) = choose(
        scheduler(2, "all"),
        msgspec.convert({"vllm_metrics_url": "http://127.0.0.1:8000/metrics"}, MetricReporter),
    )

    def names(text: str) -> list[str]:
        return [one.name for one in where.own(exposition.parse(text)) if one.samples]

    assert names('a{engine="2"} 1\nb{engine="3"} 1\nc 1\n') == ["a", "c"]
    assert names("c 1\n") == ["c"]
