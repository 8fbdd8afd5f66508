# SPDX-License-Identifier: Apache-2.0
"""The metric reporter and a real Pushgateway."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import wait_until
from metric_servers import LOOKS, get, pushgateway
from metric_stubs import EngineMetrics, Gate
from servers import Server, serving

from lmcache_plugin_adapter.gallery.metric_reporter.labelling import own_labels
from lmcache_plugin_adapter.gallery.metric_reporter.settings import Pushgateway
from lmcache_plugin_adapter.gallery.metric_reporter.targets.pushgateway import group_path
from lmcache_plugin_adapter.kit import Context

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def run(report: Callable[..., Any]) -> Callable[..., Any]:
    """Run the reporter with a Pushgateway; keywords are settings of the target."""
    return lambda url, grace=20, **target: report("pushgateway", url, grace, target)


def groups(server: Server) -> list[Any]:
    """Return the groups that a Pushgateway has."""
    return list(get(f"{server.url}/api/v1/metrics")["data"])


def looks(server: Server) -> float:
    """Return the readings that the one group has; 0 where there is none."""
    found = groups(server)
    if not found or LOOKS not in found[0]:
        return 0.0
    (group,) = found
    (metric,) = group[LOOKS]["metrics"]
    return float(metric["value"])


def test_the_group_has_the_last_reading_and_goes_with_the_engine(
    tmp_path: Path, run: Any, engine: EngineMetrics
) -> None:
    """Key, labels, types, and no group left that nobody would ever change again."""
    with pushgateway(tmp_path / "server") as server:
        plugin = run(server.url)
        wait_until(lambda: looks(server) >= 3, 20, "readings")
        (group,) = groups(server)
        key = {
            "job": "lmcache",
            "instance": f"{os.uname().nodename}:{engine.port}",
            "host": os.uname().nodename,
            "role": "worker",
            "rank": "0",
            "dp_rank": "0",
        }
        assert group["labels"] == key
        assert group["last_push_successful"] is True
        assert group[LOOKS]["type"] == "COUNTER"
        assert group[LOOKS]["metrics"][0]["labels"] == {
            **key,
            "model_name": "m",
            "worker_id": "0",
            "exported_role": "scheduler",
        }
        (histogram,) = group["lmcache:seconds"]["metrics"]
        assert set(histogram["buckets"]) == {"0.1", "1", "+Inf"}
        assert group["up"]["metrics"][0]["value"] == "1"
        assert plugin.stop() == 0
        wait_until(lambda: groups(server) == [], 10, "no group")
        assert not [line for line in plugin.lines if line.level in ("warning", "error")]


def test_the_last_values_stay_where_that_is_wanted(
    tmp_path: Path, run: Any, engine: EngineMetrics
) -> None:
    """The last reading is after SIGTERM."""
    with pushgateway(tmp_path / "server") as server:
        plugin = run(server.url, delete_on_stop=False)
        wait_until(lambda: looks(server) >= 1, 20, "readings")
        assert plugin.stop() == 0
        assert looks(server) == engine.served


def test_down_at_the_start_and_for_a_while_only_the_latest_is_pushed(
    tmp_path: Path, run: Any, engine: EngineMetrics
) -> None:
    """A Pushgateway keeps no history, so nothing older than the latest is sent."""
    server = pushgateway(tmp_path / "server")
    with Gate(server.url) as gate:
        plugin = run(gate.url)
        plugin.wait_for("Cannot send to pushgateway")
        wait_until(lambda: engine.served >= 4, 20, "readings while it is down")
        with serving(server):
            plugin.wait_for("answers again", 40)
            wait_until(lambda: looks(server) > 4, 20, "the latest")
            assert b"looks_total{" in gate.accepted[0].body
            assert LOOKS.encode() in gate.accepted[0].body
            first = next(
                line
                for line in gate.accepted[0].body.decode().splitlines()
                if line.startswith(LOOKS)
            )
            assert float(first.split()[-1]) > 1
            before = len(plugin.lines)
            server.stop()
            plugin.wait_for("Cannot send to pushgateway", since=before)
            server.start()
            wait_until(lambda: looks(server) >= 1, 40, "the group again")
            assert plugin.stop() == 0
            wait_until(lambda: groups(server) == [], 10, "no group")


def test_a_group_without_an_engine_says_so(tmp_path: Path, run: Any, engine: EngineMetrics) -> None:
    """Values of an engine that does not answer do not stay as if it did."""
    with pushgateway(tmp_path / "server") as server:
        plugin = run(server.url)
        wait_until(lambda: looks(server) >= 1, 20, "readings")
        engine.status = 500
        wait_until(lambda: not looks(server), 20, "no values")
        assert groups(server)[0]["up"]["metrics"][0]["value"] == "0"
        assert plugin.wait_for("Cannot read LMCache's internal API").level == "warning"
        engine.status = 200
        plugin.wait_for("Reads LMCache's internal API again")
        wait_until(lambda: looks(server) >= 2, 20, "readings again")
        assert plugin.stop() == 0


def test_a_killed_engine_takes_its_group_along(
    tmp_path: Path, run: Any, engine: EngineMetrics
) -> None:
    """SIGKILL: the grace period is enough to delete it."""
    with pushgateway(tmp_path / "server") as server:
        plugin = run(server.url)
        wait_until(lambda: looks(server) >= 1, 20, "readings")
        engine.stop()
        plugin.engine.kill()
        assert plugin.wait_exit() == 0
        wait_until(lambda: groups(server) == [], 10, "no group")


def test_bad_credentials_are_said(tmp_path: Path, run: Any) -> None:
    """The newest values wait."""
    with Gate(authorization="Bearer right-token") as gate:
        plugin = run(gate.url, bearer_token="wrong-token")
        line = plugin.wait_for("HTTP 401")
        assert "Cannot send to pushgateway" in line.text
        assert plugin.stop() == 0
        assert "wrong-token" not in plugin.log


def test_a_target_that_never_answers_does_not_hold_the_exit(run: Any) -> None:
    """SIGTERM in the middle of a push."""
    with Gate() as gate:
        gate.delay = 60
        plugin = run(gate.url, grace=4)
        wait_until(lambda: gate.requests, 20, "a push")
        assert plugin.stop() == 0


def test_engines_that_share_an_instance_have_groups_of_their_own(tmp_path: Path) -> None:
    """On several hosts, and on one; none must overwrite another."""
    with pushgateway(tmp_path / "server") as server:
        for host, port in (("a", 1), ("b", 1), ("b", 2)):
            ctx = Context(role="SCHEDULER", worker_id=-1, worker_count=1, name="x", host=host)
            own = own_labels(ctx, "lmcache", "vllm:8000", f"{host}:{port}", {})
            answer = httpx.put(server.url + group_path(own), content=b"x 1\n", timeout=30)
            assert answer.status_code == 200
        sources = sorted(group["labels"]["source"] for group in groups(server))
        assert sources == ["a:1", "b:1", "b:2"]


def test_the_address_of_a_group_is_refused() -> None:
    """The settings determine the group."""
    with pytest.raises(ValueError, match="http://pushgateway:9091"):
        Pushgateway(url="http://h:9091/metrics/job/x")
