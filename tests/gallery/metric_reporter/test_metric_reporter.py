# SPDX-License-Identifier: Apache-2.0
"""The metric reporter whatever its targets: what is read, what is set, what is said."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import wait_until
from metric_stubs import ENVIRONMENT, PLUGIN, EngineMetrics, Gate
from servers import free_port

from lmcache_plugin_adapter.gallery.metric_reporter.settings import MetricReporter
from lmcache_plugin_adapter.gallery.metric_reporter.source import choose, shared_with_worker
from lmcache_plugin_adapter.kit import Context

NAME = "all_metric_reporter"
KEY = f"extra_config.runtime_plugins.plugins.{NAME}.settings"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def run(run_plugin: Callable[..., Any], engine: EngineMetrics) -> Callable[..., Any]:
    """Run the reporter, on worker 0 if not told otherwise."""

    def begin(settings: dict[str, Any], **options: Any) -> Any:
        options = {"role": "worker", "config": engine.config, "stop_grace": 20, **options}
        options.setdefault("env", ENVIRONMENT)
        return run_plugin(PLUGIN, name=NAME, settings={"interval": 0.25, **settings}, **options)

    return begin


def push_to(gate: Gate) -> dict[str, Any]:
    """Return settings with a target whose requests can be read."""
    return {"pushgateway": {"url": gate.url}}


def text(gate: Gate) -> str:
    """Return the last push."""
    return next(r.body for r in reversed(gate.accepted) if r.method == "PUT").decode()


# --- what is read ----------------------------------------------------------------


def test_an_engine_that_hangs_is_down_and_holds_nothing_up(
    run: Any, engine: EngineMetrics, gate: Gate
) -> None:
    """Targets hear of it, and SIGTERM ends the reporter while a reading waits."""
    plugin = run({**push_to(gate), "scrape_timeout": 0.4})
    wait_until(lambda: gate.accepted and "looks_total" in text(gate), 20, "values")
    engine.silent.set()
    plugin.wait_for("Cannot read LMCache's internal API")
    wait_until(lambda: "\nup{" in text(gate) and "looks_total" not in text(gate), 20, "down")
    assert next(x for x in text(gate).splitlines() if x.startswith("up{")).endswith(" 0.0")
    begun = time.monotonic()
    assert plugin.stop() == 0
    assert time.monotonic() - begun < 15  # of the 20 s of its grace period
    assert any(r.method == "DELETE" for r in gate.accepted)


def test_a_reading_without_an_end_is_over_when_its_time_is(run: Any, gate: Gate) -> None:
    """An endpoint that sends a byte now and then."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    ending = threading.Event()

    def dribble() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not ending.wait(0.05):
                    connection.sendall(b"#")

    thread = threading.Thread(target=dribble, daemon=True)
    thread.start()
    try:
        plugin = run(
            {**push_to(gate), "scrape_timeout": 0.5},
            config={
                "internal_api_server_enabled": True,
                "internal_api_server_port_start": port - 1,
            },
        )
        plugin.wait_for("no answer in time")
        assert plugin.stop() == 0
    finally:
        ending.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        listener.close()


@pytest.mark.parametrize(
    ("padding", "said"),
    [(b"# " + b"x" * 5000 + b"\n", "over 4096 bytes"), (b"<html>\n", "no sample")],
)
def test_an_answer_that_is_too_long_or_no_metrics_is_not_taken(
    run: Any, engine: EngineMetrics, gate: Gate, padding: bytes, said: str
) -> None:
    """And said with what is wrong."""
    engine.padding = padding
    plugin = run({**push_to(gate), "max_bytes": 4096})
    assert said in plugin.wait_for("Cannot read").text
    assert plugin.stop() == 0


def test_an_engine_that_is_not_up_yet_is_no_warning(
    run: Any, engine: EngineMetrics, gate: Gate
) -> None:
    """Plugins are started before the internal API is."""
    engine.stop()
    plugin = run({**push_to(gate), "say_every": 0.5})
    plugin.wait_for("Connection refused; retrying (2 times)")
    engine.start()
    plugin.wait_for("Reads LMCache's internal API again")
    assert plugin.stop() == 0
    assert not [line for line in plugin.lines if line.level == "warning"]


def test_the_scheduler_reads_vllm_where_that_is_set(
    run: Any, engine: EngineMetrics, gate: Gate
) -> None:
    """Without LMCache's internal API."""
    settings = {**push_to(gate), "vllm_metrics_url": f"{engine.url}/metrics"}
    plugin = run(settings, role="scheduler", config={})
    plugin.wait_for(f"Reads vLLM's metrics ({engine.url}/metrics)")
    wait_until(lambda: gate.accepted and "looks_total" in text(gate), 20, "values")
    assert 'role="scheduler"' in text(gate)
    assert "rank=" not in text(gate).replace("dp_rank=", "")
    assert plugin.stop() == 0


@pytest.mark.parametrize(
    ("role", "settings", "said", "level"),
    [
        ("worker", {}, "internal_api_server_enabled: true", "warning"),
        ("scheduler", {}, "or vllm_metrics_url", "warning"),
        ("worker", {"vllm_metrics_url": "http://127.0.0.1:1/"}, "Nothing to report", "info"),
        ("server", {}, "the address of LMCache's server is unknown", "warning"),
    ],
)
def test_with_nothing_to_read_it_says_what_to_set_and_ends(
    run: Any, gate: Gate, role: str, settings: dict[str, Any], said: str, level: str
) -> None:
    """On a worker, vLLM's metrics are the scheduler's business."""
    plugin = run({**push_to(gate), **settings}, role=role, config={})
    line = plugin.wait_for(said)
    assert line.level == level
    assert plugin.wait_exit() == 0
    assert not gate.requests


def context(engine: EngineMetrics, pid: int, **config: Any) -> Context:
    """Return the context of a scheduler with one worker."""
    api = {**engine.config, "internal_api_server_port_start": engine.port - 1, **config}
    return Context(
        role="SCHEDULER",
        worker_id=-1,
        worker_count=1,
        name=NAME,
        host="node",
        engine_pid=pid,
        config=api,
    )


def test_a_scheduler_that_is_worker_0_too_leaves_its_metrics_to_that_reporter(
    engine: EngineMetrics,
) -> None:
    """Both internal API servers answer with the same; this one would count everything twice."""
    ctx = context(engine, os.getpid())
    (where,) = choose(ctx, MetricReporter())
    assert shared_with_worker(ctx, where)  # this process listens at worker 0's port
    assert not shared_with_worker(context(engine, os.getppid()), where)
    other = context(engine, os.getpid(), internal_api_server_port_start=free_port())
    assert not shared_with_worker(other, where)
    ctx.worker_count = 2
    assert not shared_with_worker(ctx, where)


def test_a_unix_socket_is_read_and_told_in_the_instance(
    run: Any, gate: Gate, tmp_path: Any
) -> None:
    """``internal_api_server_socket_path_prefix``."""
    path = tmp_path / "api_7000"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                body = b"over_unix 1\n"
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                connection.sendall(head + body)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    config = {
        "internal_api_server_enabled": True,
        "internal_api_server_socket_path_prefix": str(tmp_path / "api"),
    }
    plugin = run(push_to(gate), config=config)
    wait_until(lambda: gate.accepted and "over_unix" in text(gate), 20, "values")
    assert ":api_7000" in text(gate)
    assert plugin.stop() == 0
    listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    listener.close()


def test_it_runs_as_an_installed_plugin(
    run_plugin: Callable[..., Any], engine: EngineMetrics, gate: Gate
) -> None:
    """``pkg:all_metric_reporter``."""
    plugin = run_plugin(
        f"pkg:{NAME}",
        settings={"interval": 1, "vllm_metrics_url": f"{engine.url}/metrics", **push_to(gate)},
    )
    wait_until(lambda: gate.accepted and "looks_total" in text(gate), 20, "values")
    assert plugin.stop() == 0


# --- what is set -----------------------------------------------------------------


def test_without_a_target_it_says_so_and_is_not_started_again(run: Any) -> None:
    """Exit code 125."""
    plugin = run({})
    assert KEY in plugin.wait_for("There is no target").text
    assert plugin.wait_exit() == 125


def test_wrong_settings_are_said_with_their_full_key_and_the_rest_goes_on(
    run: Any, gate: Gate
) -> None:
    """Each in a line of its own, secrets not shown."""
    settings: dict[str, Any] = {
        "pushgateway": {"url": gate.url, "timeout": "soon"},
        "scrape_timeout": 0,
        "intervall": 5,
        "labels": {"le": "1", "cluster": "eu"},
    }
    plugin = run(settings)
    for key in ("pushgateway.timeout", "scrape_timeout", "intervall", "labels"):
        plugin.wait_for(f"{KEY}.{key}")
    wait_until(lambda: gate.accepted and "looks_total" in text(gate), 20, "values")
    assert plugin.stop() == 0


def test_one_bad_target_does_not_take_the_others_along(run: Any, gate: Gate) -> None:
    """Its address is missing; or it is down; or its certificates are not there."""
    plugin = run(
        {
            **push_to(gate),
            "remote_write": {"url": "https://127.0.0.1:1/", "ca_file": "/no/such/file"},
            "otlp": {"url": f"http://127.0.0.1:{free_port()}/v1/metrics"},
        },
        stop_grace=4,
    )
    assert (
        "cannot use ca_file '/no/such/file'" in plugin.wait_for("Cannot send to remote_write").text
    )
    plugin.wait_for("Cannot send to otlp")
    wait_until(lambda: len(gate.accepted) >= 4, 20, "pushes")
    assert plugin.stop() == 0


def test_a_slow_target_does_not_slow_the_others(run: Any, gate: Gate) -> None:
    """Each has a thread and a buffer of its own."""
    with Gate() as slow:
        slow.delay = 60
        plugin = run(
            {**push_to(gate), "remote_write": {"url": slow.url, "timeout": 30}}, stop_grace=4
        )
        wait_until(lambda: len(gate.accepted) >= 6, 20, "pushes")
        assert len(slow.requests) == 1
        assert plugin.stop() == 0
        assert gate.accepted[-1].method == "DELETE"


def test_dropped_metrics_are_not_sent(run: Any, gate: Gate) -> None:
    """By name, with ``*``."""
    plugin = run({**push_to(gate), "drop": ["lmcache:sec*"]})
    wait_until(lambda: gate.accepted and "looks_total" in text(gate), 20, "values")
    assert "lmcache:seconds" not in text(gate)
    assert plugin.stop() == 0
