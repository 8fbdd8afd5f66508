# SPDX-License-Identifier: Apache-2.0
"""Plugins beside real engines: which ones run, their variables, and their end.

Each test starts one or two servers, which takes most of a minute. Outcomes are
read from the files that plugins write and from ``/proc``.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from site_under_test import DAEMONISES, FLOODS, Seen, Site, wait_for
from vllm_server import Server, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(900)

WHO_TP2 = [("SCHEDULER", -1), ("WORKER", 0), ("WORKER", 1)]
WHO_TP1 = [("SCHEDULER", -1), ("WORKER", 0)]
# Seconds. Longer than the default: vLLM itself needs up to 9 s to end a worker in order, and
# the witnesses wait for that.
STOP_GRACE = 15


def who(seen: list[Seen]) -> list[tuple[str, int]]:
    """Return role and worker id of each."""
    return [(one.role, one.worker_id) for one in seen]


def wait_until_seen(site: Site, number: int) -> list[Seen]:
    """Return the plugins' notes once ``number`` have started and no more do."""
    wait_for(lambda: len(site.seen()) >= number, 30, lambda: who(site.seen()))
    time.sleep(0.5)  # a second copy would start right behind the first
    return site.seen()


def assert_goodbyes(seen: list[Seen]) -> None:
    """Check that each plugin got SIGTERM and said goodbye after its engine was gone."""
    for one in seen:
        assert [event["event"] for event in one.events] == ["start", "sigterm", "goodbye"], one
        assert one.goodbye is not None
        assert one.goodbye["engine_state"] in ("Z", "gone"), one.role


def terminate(site: Site, server: Server) -> int:
    """Send SIGTERM, check that each plugin ended in order and nothing is left; return the code."""
    server.process.send_signal(signal.SIGTERM)
    code = server.wait()
    site.wait_until_nothing_is_left()
    assert_goodbyes(site.seen())
    return code


def test_two_workers_then_ctrl_c_and_a_restart(tmp_path: Path, model: Path) -> None:
    """Each of scheduler and workers has its plugins once, also after a restart.

    LMCache's engine fails on the workers. The first run ends by a terminal's
    Ctrl-C, the second by SIGTERM to the server alone.
    """
    site = Site(tmp_path / "site", stop_grace=STOP_GRACE)
    site.add("worker_daemon.sh", DAEMONISES)
    with serving(site, model, "-tp", "2") as server:
        seen = wait_until_seen(site, 3)
        assert who(seen) == WHO_TP2
        engines = [server.engine_core, *server.pids("Worker_TP")]
        assert sorted(one.start["engine"] for one in seen) == sorted(engines)
        for one in seen:
            assert one.variable("WORKER_COUNT") == "2"
            assert (one.variable("DP_RANK"), one.variable("DP_SIZE")) == ("0", "1")
            assert one.start["lmcache"], "the plugin cannot import what the engine can"
            config = json.loads(one.variable("CONFIG"))
            assert config["runtime_plugin_locations"] == [str(site.plugins)]
            assert config["chunk_size"] == 16
        assert "Failed to initialize LMCacheManager components" in server.log
        assert "Launched runtime plugin" not in server.log  # LMCache's own launcher
        server.complete()
        server.signal_group(signal.SIGINT)
        assert server.wait() == 0
        assert site.wait_until_nothing_is_left() < STOP_GRACE + 5  # the daemon ignores SIGTERM
        assert_goodbyes(site.seen())
        assert "[all_witness] goodbye" in server.log

    site.forget()
    with serving(site, model, "-tp", "2") as server:
        assert who(wait_until_seen(site, 3)) == WHO_TP2
        server.complete()
        assert terminate(site, server) == 0


def test_a_graceful_shutdown_and_a_killed_worker(tmp_path: Path, model: Path) -> None:
    """With ``--shutdown-timeout 10``, connectors shut down in time.

    When a worker is killed, vLLM exits, and each plugin ends with its engine.
    """
    site = Site(tmp_path / "site", stop_grace=STOP_GRACE)
    with serving(site, model, "-tp", "2", "--shutdown-timeout", "10") as server:
        assert who(wait_until_seen(site, 3)) == WHO_TP2
        server.complete()
        assert terminate(site, server) == 0
        assert server.log.count("the engine closes") >= 2  # the connectors' shutdown was reached

    site.forget()
    with serving(site, model, "-tp", "2") as server:
        wait_until_seen(site, 3)
        (killed,) = server.pids("Worker_TP1")
        os.kill(killed, signal.SIGKILL)
        server.wait()
        site.wait_until_nothing_is_left()
        assert who(site.seen()) == WHO_TP2
        assert_goodbyes(site.seen())


def test_a_flood_while_completions_run_then_a_killed_engine_core(
    tmp_path: Path, model: Path
) -> None:
    """Completions get answers and the log stays bounded; then the engine core is killed."""
    site = Site(tmp_path / "site", stop_grace=STOP_GRACE)
    site.add("scheduler_flood.sh", FLOODS)
    with serving(site, model) as server:
        assert who(wait_until_seen(site, 2)) == WHO_TP1
        wait_for(lambda: "suppressed" in server.log, 60, lambda: server.log[-500:])
        size, began = len(server.log), time.monotonic()
        for _ in range(20):
            server.complete()
        # The default limit is 1,000 lines a second, of some 200 bytes with their prefix.
        assert len(server.log) - size < (time.monotonic() - began + 5) * 1000 * 250
        assert server.process.poll() is None
        os.kill(server.engine_core, signal.SIGKILL)
        server.wait()
        site.wait_until_nothing_is_left()
        assert_goodbyes(site.seen())


def test_malformed_settings_then_a_killed_server(tmp_path: Path, model: Path) -> None:
    """Each mistake is logged, and the plugins run.

    An orphaned engine core keeps its plugins until it exits.
    """
    site = Site(
        tmp_path / "site",
        backoff="soon",
        stop_grace=STOP_GRACE,
        restart="sometimes",
        data_parallel=7,
        locatons=["/typo"],
        enabled="perhaps",
    )
    with serving(site, model) as server:
        seen = wait_until_seen(site, 2)
        assert who(seen) == WHO_TP1
        for key in ("backoff", "restart", "data_parallel", "locatons", "enabled"):
            wait_for(
                lambda key=key: f"runtime_plugins.{key}" in server.log, 20, lambda key=key: key
            )
        server.complete()
        engine = server.engine_core
        server.process.kill()
        server.wait()
        time.sleep(2)
        if engine in site.processes():  # vLLM leaves it, and so its plugins stay
            assert all(one.goodbye is None for one in site.seen())
            os.kill(engine, signal.SIGKILL)
        site.wait_until_nothing_is_left()
        assert who(site.seen()) == WHO_TP1
        assert_goodbyes(site.seen())


@pytest.mark.parametrize(("policy", "replicas"), [("local-rank-0", ["0"]), ("all", ["0", "1"])])
def test_two_replicas(tmp_path: Path, model: Path, policy: str, replicas: list[str]) -> None:
    """Plugins run in the first one, or in both with their rank."""
    site = Site(tmp_path / "site", data_parallel=policy, stop_grace=STOP_GRACE)
    with serving(site, model, "-dp", "2") as server:
        seen = wait_until_seen(site, 2 * len(replicas))
        assert who(seen) == WHO_TP1 * len(replicas)
        assert sorted({one.variable("DP_RANK") for one in seen}) == replicas
        assert {one.variable("DP_SIZE") for one in seen} == {"2"}
        said = "Runtime plugins run in this node's replica 0, not in replica 1" in server.log
        assert said is (policy != "all")
        assert "Launched runtime plugin" not in server.log
        server.complete()
        terminate(site, server)


def lmcaches_own(site: Site, server: Server) -> list[dict[str, Any]]:
    """Return the first notes of plugins that LMCache's launcher started."""
    wait_for(lambda: "Launched runtime plugin" in server.log, 30)
    wait_for(lambda: any("\n" in path.read_text() for path in site.notes.iterdir()), 30)
    return [json.loads(path.read_text().splitlines()[0]) for path in site.notes.iterdir()]


def test_disabled_is_lmcache_untouched(tmp_path: Path, model: Path) -> None:
    """LMCache's launcher runs them with its variables, only where it makes a launcher."""
    site = Site(tmp_path / "site", enabled=False)
    (site.plugins / "utils.py").unlink()  # LMCache runs it, too
    with serving(site, model) as server:
        (note,) = lmcaches_own(site, server)
        assert note["env"]["LMCACHE_RUNTIME_PLUGIN_ROLE"] == "scheduler"
        assert "LMCACHE_RUNTIME_PLUGIN_RUN_ID" not in note["env"]
        assert "bootstrap.py" not in " ".join(site.processes().values())
        print(f"a completion beside LMCache's launcher: {server.completion_milliseconds():.1f} ms")


def test_explicit_class_where_plugins_of_vllm_are_locked_down(tmp_path: Path, model: Path) -> None:
    """``VLLM_PLUGINS`` excludes the hook; the configuration names the connector class."""
    site = Site(tmp_path / "site", stop_grace=STOP_GRACE)
    connector = {
        "kv_connector": "LMCacheAdapterConnector",
        "kv_connector_module_path": "lmcache_plugin_adapter.connector",
    }
    with serving(site, model, connector=connector, VLLM_PLUGINS="none") as server:
        assert who(wait_until_seen(site, 2)) == WHO_TP1
        assert "Launched runtime plugin" not in server.log
        print(f"a completion beside this launcher: {server.completion_milliseconds():.1f} ms")
        terminate(site, server)


def test_inside_a_multi_connector(tmp_path: Path, model: Path) -> None:
    """LMCache is one of several connectors, and vLLM's arguments give the locations."""
    site = Site(tmp_path / "site")
    values = {
        "max_local_cpu_size": 0.1,
        "extra_config": {"runtime_plugins": {"stop_grace": STOP_GRACE}},
    }
    (tmp_path / "site" / "lmcache.yaml").write_text(json.dumps(values))
    child = {
        "kv_connector": "LMCacheConnectorV1",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"lmcache.runtime_plugin_locations": [str(site.plugins)]},
    }
    connector = {
        "kv_connector": "MultiConnector",
        "kv_connector_extra_config": {"connectors": [child]},
    }
    with serving(site, model, "--shutdown-timeout", "10", connector=connector) as server:
        assert who(wait_until_seen(site, 2)) == WHO_TP1
        server.complete()
        terminate(site, server)
