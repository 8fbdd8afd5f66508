# SPDX-License-Identifier: Apache-2.0
"""The metric reporter at SIGTERM, in the middle of a reading or of a request; odd long texts."""

from __future__ import annotations

import http.server
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import wait_until
from metric_stubs import EngineMetrics, Gate, looks, report_worker
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)

from lmcache_plugin_adapter.gallery.http_client.answer import Answer
from lmcache_plugin_adapter.gallery.metric_reporter import exposition
from lmcache_plugin_adapter.gallery.metric_reporter.settings import Otlp
from lmcache_plugin_adapter.gallery.metric_reporter.targets.otlp import OtlpKind

pytestmark = pytest.mark.timeout(120)


class SlowEngine(EngineMetrics):
    """Takes its time for each reading."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answer after a while."""
        self.asked += 1
        self.ending.wait(1.0)
        super().answer(handler)


def test_a_reading_that_is_under_way_at_sigterm_is_sent(run_plugin: Callable[..., Any]) -> None:
    """And the last one after it."""
    with SlowEngine() as engine, Gate() as gate:
        plugin = report_worker(run_plugin, engine, 40, remote_write={"url": gate.url})
        wait_until(lambda: engine.asked > engine.served and gate.accepted, 30, "a reading")
        under_way = engine.asked
        assert plugin.stop() == 0
        assert engine.served == under_way + 1
        assert looks(gate) == [float(n + 1) for n in range(engine.served)]


def test_a_request_that_hangs_at_sigterm_does_not_take_all_the_time(
    run_plugin: Callable[..., Any],
) -> None:
    """One bad connection: all others are answered at once."""
    with EngineMetrics() as engine, Gate() as gate:
        gate.delay = 90
        plugin = report_worker(
            run_plugin, engine, 20, remote_write={"url": gate.url, "timeout": 80}
        )
        wait_until(lambda: gate.requests, 20, "a request")
        gate.delay = 0
        before = engine.served
        wait_until(lambda: engine.served > before, 20, "readings that wait")
        assert plugin.stop() == 0
        assert looks(gate) == [float(n + 1) for n in range(engine.served)]
        assert gate.requests[1].body == gate.requests[0].body
        assert not [line for line in plugin.lines if "not sent" in line.text]


@pytest.mark.parametrize(
    "line",
    [
        "m" + " " * 200_000 + "x y",
        'm{a="b"' + " " * 200_000 + "c} 1",
        "m{" + "{" * 100_000 + "}" * 100_000 + " ",
        'm{a="' + "\\" * 200_001 + '"} 1',
        "m " + "1" * 200_000 + " x",
    ],
)
def test_no_line_takes_long_to_be_refused(line: str) -> None:
    """Time grows with its length, and not with the square of it."""
    begun = time.process_time()
    with pytest.raises(exposition.ExpositionError, match="line 1") as error:
        exposition.parse(line)
    assert time.process_time() - begun < 2
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("line", "value", "labels", "timestamp"),
    [
        ("m 1", 1.0, {}, None),
        ("m{} 1", 1.0, {}, None),
        ('m{a="}"}1', 1.0, {"a": "}"}, None),
        ('m {a="x y"}\t2 -7', 2.0, {"a": "x y"}, -7),
        ("m\t+Inf", float("inf"), {}, None),
    ],
)
def test_samples_are_read(
    line: str, value: float, labels: dict[str, str], timestamp: int | None
) -> None:
    """Blanks are few where they may be none."""
    (family,) = exposition.parse(line)
    assert family.samples == [exposition.Sample("m", labels, value, timestamp)]


@pytest.mark.parametrize(
    "line", ["m", "m1", "m-1", 'm{a="b"', 'm{a="b"}', "m 1 2 3", "1 2", "m }1"]
)
def test_what_is_no_sample_is_refused(line: str) -> None:
    """Rather than guessed at."""
    with pytest.raises(exposition.ExpositionError):
        exposition.parse(line)


def test_what_a_collector_says_of_points_is_cut_and_cleaned() -> None:
    """It goes to the engine's log."""
    response = ExportMetricsServiceResponse()
    response.partial_success.rejected_data_points = 1
    response.partial_success.error_message = "token S3CRET\x1b[2J" + "x" * 5000
    kind = OtlpKind(Otlp(url="http://h/v1/metrics"), {}, None)
    answer = Answer(
        200,
        "OK",
        "",
        response.SerializeToString(),
        hide=lambda text: text.replace("S3CRET", "***"),
    )
    partly = kind.partly_refused(answer)
    assert partly is not None
    assert partly[1].startswith("token ***?[2Jxxx")
    assert len(partly[1]) < 210
