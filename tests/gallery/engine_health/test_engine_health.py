# SPDX-License-Identifier: Apache-2.0
"""Faults of an engine are seen, whatever holds it up, and nothing holds up the one who looks."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from harness import state_of, wait_until
from servers import free_port
from vllm_stub import METRICS, EngineStub, VllmStub

from lmcache_plugin_adapter.gallery.engine_health import process
from lmcache_plugin_adapter.gallery.engine_health.health import EngineHealth
from lmcache_plugin_adapter.gallery.engine_health.progress import (
    MARKS,
    RUNNING,
    Progress,
    read_samples,
)
from lmcache_plugin_adapter.gallery.engine_health.settings import HealthSettings, ProbeRequest
from lmcache_plugin_adapter.gallery.engine_health.verdict import Verdict
from lmcache_plugin_adapter.kit import Context
from lmcache_plugin_adapter.linux.procfs import Process, read_process

FAST: dict[str, Any] = {"timeout": 1.5, "failures": 2, "stopped_after": 0.1, "stalled_after": 0.5}
"""The time for an answer is what a busy machine may need for a good one."""


def of(pid: int | None, config: dict[str, object] | None = None) -> Context:
    """Return the context of a scheduler's plugin."""
    return Context(
        role="SCHEDULER",
        worker_id=-1,
        worker_count=1,
        name="scheduler_heartbeat",
        engine_pid=pid,
        config=config or {},
    )


def api_at(port: int) -> dict[str, object]:
    """Return LMCache's configuration with the scheduler's internal API at a port."""
    return {
        "internal_api_server_enabled": True,
        "internal_api_server_host": "127.0.0.1",
        "internal_api_server_port_start": port,
    }


def reach(health: EngineHealth, state: str, seconds: float = 10.0) -> Verdict:
    """Check until the verdict is ``state``."""
    return wait_until(
        lambda: found if (found := health.check()).state == state else None, seconds, state
    )


@pytest.fixture
def engine() -> Iterator[EngineStub]:
    """An engine process with an internal API."""
    with EngineStub() as engine:
        yield engine


@pytest.fixture
def vllm() -> Iterator[VllmStub]:
    """The HTTP server of vLLM."""
    with VllmStub() as vllm:
        yield vllm


def test_a_working_engine_is_ok(engine: EngineStub, vllm: VllmStub) -> None:
    """Process, internal API, health and metrics are all there."""
    settings = HealthSettings(health_url=vllm.url + "/health", metrics_url=vllm.url + "/metrics")
    health = EngineHealth(of(engine.pid, engine.config()), settings)
    assert health.check() == Verdict(True, "", "ok")
    assert vllm.asked == 2


def test_a_killed_engine_is_dead(engine: EngineStub) -> None:
    """As a zombie, and when it is reaped."""
    health = EngineHealth(of(engine.pid), HealthSettings(**FAST))
    assert health.check().healthy
    os.kill(engine.pid, signal.SIGKILL)
    wait_until(lambda: state_of(engine.pid) == "Z")
    assert health.check() == Verdict(
        False, f"engine process {engine.pid} has ended (state Z)", "dead"
    )
    engine.process.wait()
    assert health.check() == Verdict(False, f"engine process {engine.pid} is gone", "dead")


def test_an_engine_that_was_gone_before_is_dead() -> None:
    """A plugin that was started again may come too late, and must not trust a new process."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert EngineHealth(of(process.pid), HealthSettings()).check().state == "dead"


def test_another_process_with_its_pid_is_not_the_engine(
    engine: EngineStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of its start tells."""
    health = EngineHealth(of(engine.pid), HealthSettings())
    found = read_process(engine.pid)
    assert found is not None
    found.start += 1
    monkeypatch.setattr(process, "read_process", lambda _: found)
    verdict = health.check()
    assert verdict.state == "dead"
    assert "another has this pid now" in verdict.reason


def test_a_stopped_engine_is_stopped_after_a_moment_and_recovers(engine: EngineStub) -> None:
    """It accepts connections all the while."""
    health = EngineHealth(of(engine.pid, engine.config()), HealthSettings(**FAST))
    assert health.check().healthy
    os.kill(engine.pid, signal.SIGSTOP)
    wait_until(lambda: state_of(engine.pid) == "T")
    socket.create_connection(("127.0.0.1", engine.port), 1).close()
    first = health.check()
    assert first.healthy
    assert "is stopped (state T)" in first.reason
    assert not reach(health, "stopped").healthy
    os.kill(engine.pid, signal.SIGCONT)
    assert reach(health, "ok").reason == ""


def test_a_silent_internal_api_is_unresponsive(vllm: VllmStub) -> None:
    """The process that is examined runs; what holds the API up does not show in /proc."""
    health = EngineHealth(of(os.getpid(), api_at(vllm.port)), HealthSettings(**FAST))
    assert health.check().healthy
    vllm.silent.set()
    first = health.check()
    assert first == Verdict(
        True, "LMCache's internal API: nothing within 1.5 s (1 of 2)", "ok"
    ) or first == Verdict(True, "LMCache's internal API: no answer in time (1 of 2)", "ok")
    verdict = health.check()
    assert (verdict.healthy, verdict.state) == (False, "unresponsive")
    vllm.silent.clear()
    reach(health, "ok")


def test_a_dead_http_server_is_unresponsive(vllm: VllmStub) -> None:
    """It answers 503 when its engine is dead."""
    health = EngineHealth(of(os.getpid()), HealthSettings(health_url=vllm.url + "/health", **FAST))
    assert health.check().healthy
    vllm.status = 503
    assert health.check().healthy
    assert health.check() == Verdict(
        False, f"GET {vllm.url}/health: HTTP 503 (2 in a row)", "unresponsive"
    )
    vllm.status = 200
    assert health.check() == Verdict(True, "", "ok")


def test_what_never_answered_is_starting(engine: EngineStub) -> None:
    """A model is loaded for minutes before it listens; that is no fault, and not health."""
    url = f"http://127.0.0.1:{free_port()}/health"
    health = EngineHealth(of(engine.pid), HealthSettings(health_url=url, **FAST))
    for _ in range(4):
        verdict = health.check()
        assert (verdict.healthy, verdict.state) == (False, "starting")
        assert verdict.reason.startswith(f"has not answered yet: GET {url}: ConnectError")


def test_secrets_in_an_address_are_not_said(engine: EngineStub) -> None:
    """Of a proxy before the engine, for instance."""
    url = "http://me:s3cret@127.0.0.1:1/health?key=s3cret"
    settings = HealthSettings(health_url=url, metrics_url=url, **FAST)
    reason = EngineHealth(of(engine.pid), settings).check().reason
    assert reason.startswith("has not answered yet: GET http://127.0.0.1:1/health: ")
    assert "s3cret" not in reason


def test_no_internal_api_is_asked_where_it_is_off_or_not_wanted(engine: EngineStub) -> None:
    """Two ways."""
    assert EngineHealth(of(engine.pid), HealthSettings()).check().healthy
    config = {**engine.config(), "internal_api_server_port_start": free_port()}
    settings = HealthSettings(internal_api=False)
    assert EngineHealth(of(engine.pid, config), settings).check().healthy


def test_requests_without_progress_are_stalled(vllm: VllmStub) -> None:
    """Tokens, or the use of the KV cache, must move as long as there are requests."""
    settings = HealthSettings(metrics_url=vllm.url + "/metrics", **FAST)
    health = EngineHealth(of(os.getpid()), settings)
    assert health.check().healthy
    vllm.values["running"] = 3.0
    assert health.check().healthy
    verdict = reach(health, "stalled")
    assert re.match(r"no progress of engine 0 for \d+ s with 3 requests", verdict.reason)
    vllm.values["usage"] = 0.25
    assert health.check().healthy
    reach(health, "stalled")
    vllm.values["generation"] = 5.0
    assert health.check().healthy
    reach(health, "stalled")
    vllm.values["running"] = 0.0
    assert health.check().healthy


def test_an_idle_engine_that_hangs_shows_by_a_probe(vllm: VllmStub) -> None:
    """It says that it has no requests, and answers those who ask how it is."""
    probe = ProbeRequest(url=vllm.url + "/v1/completions", body={"n": 1}, interval=0.2, timeout=0.5)
    settings = HealthSettings(
        health_url=vllm.url + "/health", metrics_url=vllm.url + "/metrics", probe=probe, **FAST
    )
    health = EngineHealth(of(os.getpid()), settings)
    wait_until(lambda: health.check().healthy and len(vllm.posted) >= 2)
    assert vllm.posted[0] == b'{"n": 1}'
    vllm.hanging.set()
    verdict = reach(health, "stalled")
    assert verdict.reason == "an idle engine did not answer a request: nothing within 0.5 s"
    vllm.hanging.clear()
    reach(health, "ok")


def test_a_probe_that_waits_among_others_is_no_stall(vllm: VllmStub) -> None:
    """A busy engine may be slow; it does get on."""
    probe = ProbeRequest(url=vllm.url + "/v1/completions", body={}, interval=0.1, timeout=0.3)
    settings = HealthSettings(metrics_url=vllm.url + "/metrics", probe=probe, **FAST)
    health = EngineHealth(of(os.getpid()), settings)
    wait_until(lambda: health.check().healthy and vllm.posted)
    vllm.hanging.set()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        vllm.values["generation"] += 1
        assert health.check().healthy
    asked = len(vllm.posted)
    vllm.values["generation"] += 1
    for _ in range(3):
        vllm.values["generation"] += 1
        health.check()
    assert len(vllm.posted) <= asked + 1  # who gets on is not asked


def test_a_probe_that_is_refused_is_odd_and_no_stall(vllm: VllmStub) -> None:
    """The model's name is wrong: that is not the engine's fault."""
    probe = ProbeRequest(url=vllm.url + "/v1/completions", body={}, interval=0.1)
    health = EngineHealth(of(os.getpid()), HealthSettings(probe=probe, **FAST))
    vllm.status = 404
    wait_until(lambda: "the probe request was refused: HTTP 404" in health.check().reason)
    assert health.check().healthy


def test_metrics_that_are_not_vllms_are_said(
    engine: EngineStub, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a wrong address would mean that stalls are never seen; it is no fault of the engine."""
    url = f"http://127.0.0.1:{engine.port}/version"
    health = EngineHealth(of(engine.pid), HealthSettings(metrics_url=url, **FAST))
    verdict = health.check()
    assert verdict.state == "ok"
    assert f"no {RUNNING} (not vLLM's metrics" in verdict.reason
    health.check()
    printed = capsys.readouterr().out
    assert printed.count("Stalls are not visible in vLLM's metrics") == 1


@pytest.mark.parametrize("with_health", [True, False])
def test_missing_statistics_are_no_verdict(vllm: VllmStub, with_health: bool) -> None:
    """``--disable-log-stats`` from the start, then HTTP 500, also in the midst of requests."""
    health_url = vllm.url + "/health" if with_health else None
    settings = HealthSettings(health_url=health_url, metrics_url=vllm.url + "/metrics", **FAST)
    health = EngineHealth(of(os.getpid()), settings)
    vllm.statistics = False
    for _ in range(4):
        assert health.check().state == "ok"
    vllm.statistics = True
    vllm.values["running"] = 1.0
    assert health.check().state == "ok"
    vllm.metrics_status = 500
    end = time.monotonic() + 1.5  # three times what would be a stall
    while time.monotonic() < end:
        verdict = health.check()
        assert verdict.state == "ok"
        assert "/metrics: HTTP 500" in verdict.reason
    vllm.metrics_status = None
    reach(health, "stalled")


def test_metrics_without_an_answer_are_no_verdict_beside_health(vllm: VllmStub) -> None:
    """``/health`` shows whether vLLM answers; alone, the metrics must answer."""
    nobody = f"http://127.0.0.1:{free_port()}/metrics"
    settings = HealthSettings(health_url=vllm.url + "/health", metrics_url=nobody, **FAST)
    health = EngineHealth(of(os.getpid()), settings)
    for _ in range(4):
        assert health.check().state == "ok"
    alone = EngineHealth(of(os.getpid()), HealthSettings(metrics_url=nobody, **FAST))
    assert alone.check().state == "starting"


def test_a_hang_in_the_kernel_shows_and_is_stalled_at_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """State D in one and the same wait; a process that is only often seen in D does work."""
    now, state, switches = [0.0], ["R"], [b"1"]
    monkeypatch.setattr(process, "read_process", lambda pid: Process(pid, state[0], 0, 0, 0, 1, 1))
    monkeypatch.setattr(process, "read_switches", lambda pid: switches[0])
    health = EngineHealth(of(1), HealthSettings(stopped_after=2, stalled_after=60), lambda: now[0])
    state[0] = "D"
    for now[0] in range(5, 200, 5):
        switches[0] = b"%d" % now[0]
        assert health.check() == Verdict(True, "", "ok")
    now[0] = 201
    assert health.check() == Verdict(
        True, "engine process 1 hangs in the kernel (state D) for 6.0 s", "ok"
    )
    now[0] = 256
    assert health.check().state == "stalled"
    state[0] = "S"
    assert health.check() == Verdict(True, "", "ok")


def test_a_check_ends_in_time_whatever_the_engine_does() -> None:
    """Three addresses: one accepts only, one drips its headers, one drips its body."""
    with socket.create_server(("127.0.0.1", 0)) as mute, DrippingServer() as dripping:
        config = api_at(mute.getsockname()[1])
        settings = HealthSettings(
            health_url=dripping.url + "/headers",
            metrics_url=dripping.url + "/body",
            timeout=1.5,
        )
        health = EngineHealth(of(os.getpid(), config), settings)
        threads = threading.active_count()
        for _ in range(3):
            begun = time.monotonic()
            assert not health.check().healthy
            assert time.monotonic() - begun < 1.5 + 1  # one after the other: three times that
        assert threading.active_count() <= threads + 3 + 3  # of the plugin's, and the server's


class DrippingServer:
    """Sends a byte now and then, for ever."""

    def __enter__(self) -> DrippingServer:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._drip, args=(connection,)))
            self._threads[-1].start()

    def _drip(self, connection: socket.socket) -> None:
        with connection:
            asked = connection.recv(4096)
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                if b"/body" in asked:
                    connection.sendall(b"Content-Length: 100000\r\n\r\n")
                while not self._end.wait(0.05):
                    connection.sendall(b"x")
            except OSError:
                pass


def test_the_promised_times_hold(engine: EngineStub) -> None:
    """What is documented as the longest time to a verdict is one."""
    settings = HealthSettings(**FAST)
    health = EngineHealth(of(engine.pid, engine.config()), settings)
    interval = 0.4
    assert health.check().healthy
    begun = time.monotonic()
    os.kill(engine.pid, signal.SIGSTOP)
    while (verdict := health.check()).healthy:
        time.sleep(interval)  # the interval of the one who checks
    assert verdict.state == "stopped"
    late = 1.0  # what a busy machine may add
    assert time.monotonic() - begun < settings.detection(interval)["stopped"] + late


def test_detection_counts_what_a_check_may_take() -> None:
    """A check that is longer than the interval makes the next one miss its time."""
    settings = HealthSettings(timeout=2, failures=3, stopped_after=2, stalled_after=60)
    assert settings.detection(3) == {
        "dead": 5,
        "stopped": 10,
        "unresponsive": 14,
        "stalled": 68,
    }
    assert settings.detection(2)["dead"] == 2 + 2 + 2


def test_progress_is_told_apart_by_engine() -> None:
    """One stalled replica is not hidden by the others' tokens."""
    progress = Progress()
    text = METRICS.format(running=1, waiting=0, usage=0, prompt=5, generation=5)

    def both(tokens: int) -> str:
        other = text.replace('engine="0"', 'engine="1"')
        return text + other.replace("} 5", f"}} {tokens}")

    assert progress.take(both(0), 0.0) == ""
    progress.take(both(1), 10.0)
    assert sorted(progress.standing(20.0)) == [("0", 20.0, 1.0), ("1", 10.0, 1.0)]
    progress.take(text, 30.0)
    assert [engine for engine, _, _ in progress.standing(30.0)] == ["0"]


def test_waiting_requests_count() -> None:
    """Those whose KV cache is on its way, and never comes, are counted as waiting."""
    progress = Progress()
    text = METRICS.format(running=0, waiting=2, usage=0, prompt=5, generation=5)
    progress.take(text, 0.0)
    progress.take(text, 7.0)
    assert list(progress.standing(7.0)) == [("0", 7.0, 2.0)]


def test_samples_are_read_as_prometheus_writes_them() -> None:
    """Without labels, with a time stamp, with names that only begin alike, with odd labels."""
    text = "\n".join(
        [
            f"# TYPE {RUNNING} gauge",
            f"{RUNNING} 1.0",
            f'{RUNNING}{{engine="3",model_name="a}} b"}} 2.0 1763737200000',
            f'{RUNNING}_other{{engine="1"}} 5.0',
            f'{RUNNING}{{model_name="m",engine="4"}} 1e+03',
            f'{MARKS[0]}{{my_engine="9"}} NaN_',
        ]
    )
    assert list(read_samples(text)) == [
        (RUNNING, "", 1.0),
        (RUNNING, "3", 2.0),
        (RUNNING, "4", 1000.0),
    ]
