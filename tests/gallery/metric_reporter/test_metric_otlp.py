# SPDX-License-Identifier: Apache-2.0
"""The metric reporter and OTLP: a strict receiver that checks every field of every request."""

from __future__ import annotations

import gzip
import math
import os
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import wait_until
from metric_servers import LOOKS
from metric_stubs import EngineMetrics, Gate, Request
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from lmcache_plugin_adapter import __version__

PATH = "/v1/metrics"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def run(report: Callable[..., Any]) -> Callable[..., Any]:
    """Run the reporter with a receiver of OTLP."""
    return lambda url, *more, **settings: report("otlp", url + PATH, *more, **settings)


def pairs(attributes: Any) -> dict[str, Any]:
    """Return attributes as a mapping; each key once, each with a value."""
    found: dict[str, Any] = {}
    for one in attributes:
        assert one.key
        assert one.key not in found
        kind = one.value.WhichOneof("value")
        assert kind in ("string_value", "int_value")
        found[one.key] = getattr(one.value, kind)
    return found


def check_point(point: Any, *, cumulative: bool) -> None:
    """Check what all data points have."""
    now = time.time_ns()
    assert now - 300e9 < point.time_unix_nano <= now + 1e9
    if cumulative:
        assert 0 < point.start_time_unix_nano <= point.time_unix_nano
    own = pairs(point.attributes)
    assert own["role"] == "worker"
    assert own["rank"] == "0"
    assert own["dp_rank"] == "0"
    assert own["host"] == os.uname().nodename
    assert all(own.values())
    assert not {"job", "instance", "le", "quantile"} & set(own)
    assert point.flags == 0


def check(request: Request) -> dict[str, Any]:
    """Check a request as a strict receiver does, and return its metrics by name."""
    assert request.method == "POST"
    assert request.path == PATH
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["content-encoding"] == "gzip"
    message = ExportMetricsServiceRequest.FromString(gzip.decompress(request.body))
    (resource,) = message.resource_metrics
    of = pairs(resource.resource.attributes)
    assert of["service.name"] == "lmcache"
    assert of["service.instance.id"].startswith(f"{os.uname().nodename}:")
    assert of["host.name"] == os.uname().nodename
    assert of["process.pid"] > 1
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "lmcache_plugin_adapter.gallery.metric_reporter"
    assert scope.scope.version == __version__
    names = [metric.name for metric in scope.metrics]
    assert len(names) == len(set(names))
    for metric in scope.metrics:
        assert metric.name
        kind = metric.WhichOneof("data")
        assert kind in ("gauge", "sum", "histogram", "summary")
        data = getattr(metric, kind)
        assert data.data_points
        if kind in ("sum", "histogram"):
            assert data.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
        if kind == "sum":
            assert data.is_monotonic
        for point in data.data_points:
            check_point(point, cumulative=kind != "gauge")
            if kind in ("sum", "gauge"):
                assert point.WhichOneof("value") == "as_double"
            if kind == "histogram":
                assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
                assert sum(point.bucket_counts) == point.count
                assert list(point.explicit_bounds) == sorted(set(point.explicit_bounds))
                assert not any(math.isinf(bound) for bound in point.explicit_bounds)
                assert point.HasField("sum")
    return {metric.name: metric for metric in scope.metrics}


def looks(gate: Gate) -> list[float]:
    """Return the readings that arrived, each request checked."""
    found = []
    for request in list(gate.accepted):
        metric = check(request).get(LOOKS)
        found += [point.as_double for point in metric.sum.data_points] if metric else []
    return found


def test_every_reading_arrives_once_and_the_last_at_sigterm(
    run: Any, engine: EngineMetrics
) -> None:
    """A normal run, every field checked."""
    with Gate() as gate:
        plugin = run(gate.url, labels={"cluster": "eu"}, target={"resource": {"zone": "a"}})
        wait_until(lambda: len(gate.accepted) >= 4, 20, "requests")
        assert plugin.stop() == 0
        assert looks(gate) == [float(n + 1) for n in range(engine.served)]
        last = check(gate.accepted[-1])
        (point,) = last["lmcache:seconds"].histogram.data_points
        assert list(point.explicit_bounds) == [0.1, 1.0]
        assert point.count == engine.served
        assert last["lmcache:seconds"].description == "Time."
        assert pairs(point.attributes)["cluster"] == "eu"
        assert pairs(point.attributes)["exported_role"] == "scheduler"
        starts = {
            check(request)[LOOKS].sum.data_points[0].start_time_unix_nano
            for request in gate.accepted
        }
        assert len(starts) == 1  # what prometheus_client says in _created
        assert "lmcache:looks_created" not in last
        (gauge,) = last["lmcache:usage"].gauge.data_points
        assert gauge.as_double == engine.served / 4
        assert last["up"].gauge.data_points[0].as_double == 1.0
        assert not [line for line in plugin.lines if line.level in ("warning", "error")]


def test_nothing_is_lost_while_the_receiver_is_down(run: Any, engine: EngineMetrics) -> None:
    """At the start, and with 503 for a while later."""
    gate = Gate()
    gate.start()
    gate.stop()
    plugin = run(gate.url)
    plugin.wait_for("Cannot send to otlp")
    wait_until(lambda: engine.served >= 4, 20, "readings")
    with gate:
        plugin.wait_for("answers again", 40)
        gate.status = 503
        plugin.wait_for("HTTP 503", since=0)
        before = engine.served
        wait_until(lambda: engine.served >= before + 3, 20, "readings")
        gate.status = None
        wait_until(lambda: len(gate.accepted) > before, 40, "requests")
        assert plugin.stop() == 0
        assert looks(gate) == [float(n + 1) for n in range(engine.served)]


def test_a_400_is_final_and_a_part_that_is_refused_is_said(run: Any) -> None:
    """Both are counted."""
    with Gate() as gate:
        gate.status = 400
        plugin = run(gate.url)
        plugin.wait_for("refuses the samples")
        wait_until(lambda: len(gate.requests) >= 4, 20, "requests")
        bodies = [request.body for request in gate.requests]
        assert len(set(bodies)) == len(bodies)
        answer = ExportMetricsServiceResponse()
        answer.partial_success.rejected_data_points = 2
        answer.partial_success.error_message = "too many labels"
        gate.answer_body = answer.SerializeToString()
        gate.status = None
        # The line of the refusals was said a moment ago: this one waits, and comes at the end.
        wait_until(lambda: len(gate.accepted) >= 2, 20, "requests")
        assert plugin.stop() == 0
        plugin.wait_for(re.compile(r"\d+ points refused: too many labels"))


def test_a_slow_receiver_gets_what_is_left_in_the_grace_period(
    run: Any, engine: EngineMetrics
) -> None:
    """SIGTERM while a request is on its way."""
    with Gate() as gate:
        gate.delay = 0.6
        plugin = run(gate.url, grace=30)
        wait_until(lambda: len(gate.requests) >= 2, 20, "requests")
        assert plugin.stop() == 0
        assert looks(gate) == [float(n + 1) for n in range(engine.served)]


def test_bad_credentials_are_said_without_them(run: Any) -> None:
    """Given in the address."""
    with Gate(authorization="Bearer right") as gate:
        url = gate.url.replace("http://", "http://me:wrong-secret@")
        plugin = run(url)
        line = plugin.wait_for("HTTP 401")
        assert "Cannot send to otlp" in line.text
        assert gate.requests[0].headers["authorization"].startswith("Basic ")
        assert plugin.stop() == 0
        assert "wrong-secret" not in plugin.log


def test_a_killed_engine_leaves_nothing_unsent(run: Any, engine: EngineMetrics) -> None:
    """SIGKILL while the receiver is away: it is back within the grace period."""
    with Gate() as gate:
        gate.status = 503
        plugin = run(gate.url)
        wait_until(lambda: engine.served >= 4, 20, "readings that wait")
        engine.stop()
        gate.status = None
        plugin.engine.kill()
        assert plugin.wait_exit() == 0
        assert looks(gate) == [float(n + 1) for n in range(engine.served)]
