# SPDX-License-Identifier: Apache-2.0
"""An engine is judged by its own answers and by no other engine's, also by a plugin that is new."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from harness import state_of, wait_until
from servers import free_port
from vllm_stub import EngineStub

from lmcache_plugin_adapter.gallery.engine_health.health import EngineHealth
from lmcache_plugin_adapter.gallery.engine_health.process import EngineProcess
from lmcache_plugin_adapter.gallery.engine_health.settings import HealthSettings
from lmcache_plugin_adapter.kit import Context

FAST: dict[str, Any] = {"timeout": 1.5, "failures": 2}


def replica(pid: int, config: dict[str, object]) -> Context:
    """Return the context of a second replica's plugin."""
    return Context(
        role="SCHEDULER",
        worker_id=-1,
        worker_count=1,
        dp_rank=1,
        dp_size=2,
        name="scheduler_heartbeat",
        engine_pid=pid,
        config=config,
    )


@pytest.fixture
def first() -> Iterator[EngineStub]:
    """The engine that has the port."""
    with EngineStub() as engine:
        yield engine


def test_an_engine_is_not_judged_by_the_one_that_has_its_port(
    first: EngineStub, capfd: pytest.CaptureFixture[str]
) -> None:
    """The other's answers are none, and its silence is no fault; that is said once."""
    with socket.create_server(("127.0.0.1", 0)):  # a process that listens, but elsewhere
        health = EngineHealth(replica(os.getpid(), first.config()), HealthSettings(**FAST))
        assert health.check() == (True, "", "ok")
        os.kill(first.pid, signal.SIGSTOP)
        wait_until(lambda: state_of(first.pid) == "T")
        for _ in range(3):
            assert health.check() == (True, "", "ok")
    said = capfd.readouterr().out
    assert said.count("LMCache's internal API is not checked") == 1
    assert f"another process listens at http://127.0.0.1:{first.port}, not" in said
    os.kill(first.pid, signal.SIGCONT)
    own = EngineHealth(replica(first.pid, first.config()), HealthSettings(**FAST))
    assert own.check() == (True, "", "ok")


def test_a_port_that_is_nobodys_yet_is_waited_for(first: EngineStub) -> None:
    """It is the engine that starts which will listen there."""
    config = {**first.config(), "internal_api_server_port_start": free_port()}
    assert EngineHealth(replica(first.pid, config), HealthSettings(**FAST)).check().state == (
        "starting"
    )


def test_an_old_engine_that_never_answers_is_unresponsive(first: EngineStub) -> None:
    """A reporter that was started again has seen no answer; a model is not loaded for ever."""
    url = f"http://127.0.0.1:{free_port()}/health"
    young = HealthSettings(health_url=url, startup_timeout=3600, **FAST)
    old = HealthSettings(health_url=url, startup_timeout=0, **FAST)
    for settings, states in ((young, ["starting"] * 3), (old, ["starting", *["unresponsive"] * 2])):
        health = EngineHealth(replica(first.pid, {}), settings)
        assert [health.check().state for _ in states] == states


def test_the_age_of_a_process_counts_from_its_own_start(first: EngineStub) -> None:
    """Not from when it was first looked at."""
    process = EngineProcess(first.pid, 1, 1)
    mine = EngineProcess(os.getpid(), 1, 1)
    assert 0 < process.age < mine.age < 3600
    first.process.kill()
    first.process.wait()
    assert EngineProcess(first.pid, 1, 1).age == 0
