# SPDX-License-Identifier: Apache-2.0
"""The metric reporter and remote write: real Prometheus, real VictoriaMetrics, lost answers."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cramjam
import pytest
from harness import wait_until
from metric_servers import (
    LOOKS,
    kept,
    labels,
    prometheus,
    shown,
    values,
    victoria,
    victoria_without_doubles,
)
from metric_stubs import EngineMetrics, Gate, basic, looks
from servers import Server, serving

from lmcache_plugin_adapter.gallery.metric_reporter.targets.remote_write_schema import WriteRequest

WRITE = "/api/v1/write"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def run(report: Callable[..., Any]) -> Callable[..., Any]:
    """Run the reporter with a receiver of remote write."""
    return functools.partial(report, "remote_write")


@pytest.mark.parametrize("kind", [prometheus, victoria])
def test_every_sample_arrives_once_with_its_labels_and_the_last_at_sigterm(
    kind: Callable[[Path], Server], tmp_path: Path, run: Any, engine: EngineMetrics
) -> None:
    """A normal run, from the first reading to the one after SIGTERM."""
    with kind(tmp_path / "server") as server:
        begun = time.time()
        plugin = run(server.url + WRITE, labels={"cluster": "eu"})
        wait_until(lambda: len(values(server)) >= 5, 20, "samples")
        assert plugin.stop() == 0
        ended = time.time()
        wait_until(lambda: len(values(server)) >= engine.served, 30, "the last sample")
        assert values(server) == [float(n + 1) for n in range(engine.served)]
        times = [moment for moment, _ in kept(server)]
        assert begun - 1 <= times[0] <= times[-1] <= ended + 1
        assert all(late > early for early, late in itertools.pairwise(times))
        assert labels(server) == {
            "__name__": LOOKS,
            "job": "lmcache",
            "instance": f"{os.uname().nodename}:{engine.port}",
            "host": os.uname().nodename,
            "role": "worker",
            "rank": "0",
            "dp_rank": "0",
            "cluster": "eu",
            "model_name": "m",
            "worker_id": "0",
            "exported_role": "scheduler",
        }
        # All of them are over: nothing shows an engine that is gone as being there.
        wait_until(lambda: not shown(server), 30, "the end of the graph")
        assert not [line for line in plugin.lines if line.level in ("warning", "error")]


@pytest.mark.parametrize("kind", [prometheus, victoria])
def test_nothing_is_lost_while_the_target_is_down(
    kind: Callable[[Path], Server], tmp_path: Path, run: Any, engine: EngineMetrics
) -> None:
    """Down at the start, and for a while later: killed, and back with its data."""
    server = kind(tmp_path / "server")
    plugin = run(server.url + WRITE)
    plugin.wait_for("Cannot send to remote_write")
    wait_until(lambda: engine.served >= 4, 20, "readings while it is down")
    with serving(server):
        plugin.wait_for("answers again", 40)
        wait_until(lambda: len(values(server)) >= 6, 20, "samples")
        server.stop(signal.SIGTERM)
        before = engine.served
        wait_until(lambda: engine.served >= before + 4, 20, "readings while it is down again")
        server.start()
        wait_until(lambda: (values(server) or [0])[-1] > before + 4, 60, "samples afterwards")
        assert plugin.stop() == 0
        wait_until(lambda: len(values(server)) >= engine.served, 30, "the last sample")
        assert values(server) == [float(n + 1) for n in range(engine.served)]


def test_a_target_that_hangs_is_asked_again_and_gets_every_sample(
    tmp_path: Path, run: Any, engine: EngineMetrics
) -> None:
    """SIGSTOP: connections are taken and nothing is answered."""
    with prometheus(tmp_path / "server") as server:
        plugin = run(server.url + WRITE, target={"timeout": 0.5})
        wait_until(lambda: len(values(server)) >= 2, 20, "samples")
        server.pause()
        try:
            plugin.wait_for("no answer in time")
            before = engine.served
            wait_until(lambda: engine.served >= before + 4, 20, "readings go on")
        finally:
            server.resume()
        plugin.wait_for("answers again", 40)
        assert plugin.stop() == 0
        wait_until(lambda: len(values(server)) >= engine.served, 30, "the last sample")
        assert values(server) == [float(n + 1) for n in range(engine.served)]


@pytest.mark.parametrize("kind", [prometheus, victoria_without_doubles])
def test_a_lost_answer_makes_the_same_bytes_come_again_and_nothing_double(
    kind: Callable[[Path], Server], tmp_path: Path, run: Any, engine: EngineMetrics
) -> None:
    """It cannot be known whether they arrived; the server knows them by their time."""
    with kind(tmp_path / "server") as server, Gate(server.url) as gate:
        gate.lose_answers = 3
        plugin = run(gate.url + WRITE)
        wait_until(lambda: gate.lose_answers == 0 and len(values(server)) >= 5, 30, "samples")
        assert plugin.stop() == 0
        bodies = [request.body for request in gate.requests]
        assert len(set(bodies[:4])) == 1  # thrice without an answer, then with one
        assert len(set(bodies[3:])) == len(bodies[3:])
        wait_until(lambda: len(values(server)) >= engine.served, 30, "the last sample")
        assert values(server) == [float(n + 1) for n in range(engine.served)]
        assert not [line for line in plugin.lines if "refuses" in line.text]


def test_headers_are_those_of_the_protocol(run: Any) -> None:
    """Nothing is sent twice to one that answers, either."""
    with Gate() as gate:
        plugin = run(gate.url + WRITE, target={"headers": {"X-Scope-OrgID": "me"}})
        wait_until(lambda: len(gate.accepted) >= 4, 20, "requests")
        assert plugin.stop() == 0
        request = gate.requests[0]
        assert (request.method, request.path) == ("POST", WRITE)
        assert request.headers["content-type"] == "application/x-protobuf"
        assert request.headers["content-encoding"] == "snappy"
        assert request.headers["x-prometheus-remote-write-version"] == "0.1.0"
        assert request.headers["user-agent"].startswith("lmcache-plugin-adapter")
        assert request.headers["x-scope-orgid"] == "me"
        assert looks(gate) == sorted(set(looks(gate)))


def test_what_the_buffer_cannot_hold_is_dropped_oldest_first_counted_and_said(
    run: Any, engine: EngineMetrics
) -> None:
    """What is left comes in order, and the count is a metric, too."""
    with Gate() as gate:
        gate.stop()
        plugin = run(gate.url + WRITE, target={"buffer_samples": 80}, say_every=0.5)
        plugin.wait_for("oldest samples", 30)
        wait_until(lambda: engine.served >= 12, 30, "readings")
        gate.start()
        wait_until(lambda: len(looks(gate)) >= 3, 60, "samples")
        assert plugin.stop() == 0
        found = looks(gate)
        assert found[0] > 1  # the first are gone
        assert found == [found[0] + n for n in range(len(found))]
        assert found[-1] == engine.served
        lost = [
            sample.value
            for request in list(gate.accepted)
            for series in WriteRequest.FromString(
                bytes(cramjam.snappy.decompress_raw(request.body))
            ).timeseries
            for sample in series.samples
            if any(x.value == "lmcache_metric_reporter_lost_samples_total" for x in series.labels)
        ]
        assert max(v for v in lost if v == v) > 0


def test_what_is_refused_is_not_sent_again_but_said_once_in_a_while(run: Any) -> None:
    """A 400 is the same the next time."""
    with Gate() as gate:
        gate.status = 400
        gate.answer_body = b"out of order sample"
        plugin = run(gate.url + WRITE)
        line = plugin.wait_for("refuses the samples")
        assert line.level == "warning"
        assert "HTTP 400 Bad Request: out of order sample" in line.text
        wait_until(lambda: len(gate.requests) >= 5, 20, "more requests")
        bodies = [request.body for request in gate.requests]
        assert len(set(bodies)) == len(bodies)
        assert len([one for one in plugin.lines if "refuses" in one.text]) == 1
        gate.status = None
        plugin.wait_for("accepts samples again")
        assert plugin.stop() == 0


@pytest.mark.parametrize("status", [301, 401, 403, 404])
def test_samples_wait_while_an_operator_mends_the_target(run: Any, status: int) -> None:
    """A wrong address or credential loses nothing that the buffer holds."""
    with Gate() as gate:
        gate.status = status
        plugin = run(gate.url)
        line = plugin.wait_for(f"HTTP {status}")
        assert ("url should look like" in line.text) == (status == 404)
        wait_until(lambda: len(gate.requests) >= 3, 20, "requests")
        gate.status = None
        plugin.wait_for("answers again")
        wait_until(lambda: len(looks(gate)) >= 3, 20, "samples")
        assert plugin.stop() == 0
        assert looks(gate) == [float(n + 1) for n in range(len(looks(gate)))]
        assert "lost" not in plugin.log


@pytest.mark.parametrize("status", [429, 503])
def test_a_target_that_asks_to_wait_is_left_alone(run: Any, status: int) -> None:
    """``Retry-After`` is longer than our own pause would be."""
    with Gate() as gate:
        gate.status = status
        gate.headers = {"Retry-After": "3"}
        plugin = run(gate.url + WRITE)
        wait_until(lambda: len(gate.requests) == 1, 20, "a request")
        gate.status = None
        wait_until(lambda: len(gate.accepted) >= 3, 20, "requests afterwards")
        first, second = gate.requests[:2]
        assert second.moment - first.moment >= 3
        assert second.body == first.body
        assert plugin.stop() == 0
        assert looks(gate) == [float(n + 1) for n in range(len(looks(gate)))]


def test_bad_credentials_are_said_without_them_and_mended_without_a_restart(
    tmp_path: Path, run: Any
) -> None:
    """The password's file is read for each request."""
    secret = tmp_path / "password"
    secret.write_text("wrong-secret\n")
    with Gate(authorization=basic("me", "right-secret")) as gate:
        plugin = run(gate.url + WRITE, target={"username": "me", "password_file": str(secret)})
        line = plugin.wait_for("HTTP 401")
        assert "Cannot send to remote_write" in line.text
        secret.write_text("right-secret\n")
        plugin.wait_for("answers again")
        assert looks(gate)[0] == 1.0
        secret.unlink()
        plugin.wait_for("cannot read password_file")
        secret.write_text("right-secret\n")
        plugin.wait_for("answers again")
        assert plugin.stop() == 0
        assert "secret" not in plugin.log.replace(str(secret), "")
        echoed = basic("me", "wrong-secret").split()[1]
        assert echoed not in plugin.log  # the server had said it


def test_a_slow_target_gets_what_is_left_in_the_grace_period(
    run: Any, engine: EngineMetrics
) -> None:
    """SIGTERM while a request is on its way."""
    with Gate() as gate:
        gate.delay = 0.8
        plugin = run(gate.url + WRITE, grace=30)
        wait_until(lambda: len(gate.requests) >= 2, 20, "requests")
        assert plugin.stop() == 0
        assert looks(gate) == [float(n + 1) for n in range(engine.served)]


def test_a_target_that_is_away_at_sigterm_does_not_hold_the_exit(run: Any) -> None:
    """Within the grace period, with a line on what was not sent."""
    with Gate() as gate:
        gate.delay = 60
        plugin = run(gate.url + WRITE, grace=4)
        wait_until(lambda: len(gate.requests) >= 1, 20, "a request")
        assert plugin.stop() == 0
        assert plugin.wait_for("not sent to remote_write").level == "warning"


def test_sigterm_brings_one_more_reading(run: Any, engine: EngineMetrics) -> None:
    """Long before the next would be due."""
    with Gate() as gate:
        plugin = run(gate.url + WRITE, interval=60)
        wait_until(lambda: len(gate.accepted) == 1, 20, "the first reading")
        assert plugin.stop() == 0
        assert engine.served == 2
        assert looks(gate) == [1.0, 2.0]


def test_a_killed_engine_leaves_nothing_unsent_and_no_series_that_goes_on(
    tmp_path: Path, run: Any, engine: EngineMetrics
) -> None:
    """SIGKILL: its endpoint goes with it, what was read is sent within the grace period."""
    server = prometheus(tmp_path / "server")
    with Gate(server.url) as gate, serving(server):
        gate.status = 503
        plugin = run(gate.url + WRITE)
        wait_until(lambda: engine.served >= 4, 20, "readings that wait")
        engine.stop()
        gate.status = None
        plugin.engine.kill()
        assert plugin.wait_exit() == 0
        wait_until(lambda: len(values(server)) >= engine.served, 30, "all samples")
        assert values(server) == [float(n + 1) for n in range(engine.served)]
        assert values(server, "up")[0] == 1.0
