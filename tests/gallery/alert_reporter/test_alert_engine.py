# SPDX-License-Identifier: Apache-2.0
"""What the alert reporter tells when its engine stops, stalls, closes or dies."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alerting import (
    MORE_THREADS,
    NAME,
    THREADS,
    RealAlertmanager,
    Receiver,
    Start,
    end_in_order,
    moment,
    wait_line,
    wait_started,
)
from harness import gone, wait_until
from vllm_stub import VllmStub


def test_an_orderly_end_resolves_what_fires_and_says_goodbye(
    start_reporter: Start, alertmanager: RealAlertmanager, notified: Receiver, hook: Receiver
) -> None:
    """The engine closes while an alert fires: it is resolved, and EngineDied does not fire."""
    engine = start_reporter(
        alertmanagers=[{"url": alertmanager.url}], webhooks=[{"url": hook.url}], rules=[THREADS]
    )
    wait_started(engine)
    engine.do(MORE_THREADS)
    alertmanager.wait_for("ManyThreads")
    notified.notified("firing", "ManyThreads")
    hook.wait_for("firing", "ManyThreads")
    text = end_in_order(engine)
    assert alertmanager.alerts() == {}
    notified.notified("resolved", "ManyThreads")
    assert [(d["name"], d["status"]) for d in hook.documents] == [
        ("ManyThreads", "firing"),
        ("ManyThreads", "resolved"),
    ]
    assert re.search(r"INFO: Stopping: engine process \d+ .*in order; 1 alert resolved", text), text


def test_an_alert_that_fires_at_the_last_moment_is_told_and_resolved(
    start_reporter: Start, hook: Receiver
) -> None:
    """SIGTERM in the middle of a slow request: what was under way and what follows arrive."""
    hook.delay = 0.7
    engine = start_reporter(webhooks=[{"url": hook.url}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    wait_until(lambda: hook.requests, 30)
    end_in_order(engine)
    assert [d["status"] for d in hook.documents] == ["firing", "resolved"]


def test_a_killed_engine_is_told_within_the_grace_period(
    start_reporter: Start, alertmanager: RealAlertmanager, notified: Receiver, hook: Receiver
) -> None:
    """SIGKILL: EngineDied fires, what fired for the engine resolves, the next engine clears it."""
    options = {
        "alertmanagers": [{"url": alertmanager.url}],
        "webhooks": [{"url": hook.url}],
        "rules": [THREADS],
    }
    engine = start_reporter(**options)
    wait_started(engine)
    engine.do(MORE_THREADS)
    alertmanager.wait_for("ManyThreads")
    begun = time.monotonic()
    engine.kill()
    alert = alertmanager.wait_for("EngineDied")
    assert time.monotonic() - begun < 5
    assert alert["labels"]["severity"] == "critical"
    assert f"engine process {engine.pid} (worker 0)" in alert["annotations"]["description"]
    lasts = moment(alert["endsAt"]) - moment(alert["startsAt"])
    assert lasts.total_seconds() == pytest.approx(3600, abs=1)
    alertmanager.wait_gone("ManyThreads")
    notified.notified("firing", "EngineDied")
    died = hook.wait_for("firing", "EngineDied")
    assert died["expires_at"] is not None
    hook.wait_for("resolved", "ManyThreads")
    wait_line(engine, "has died; 1 alert resolved")
    wait_line(engine, "exited with code 0")

    again = start_reporter(**options, engine_options={"worker_id": 0})
    wait_started(again)
    alertmanager.wait_gone("EngineDied")
    notified.notified("resolved", "EngineDied")
    end_in_order(again)
    assert alertmanager.alerts() == {}
    resolved = [d["name"] for d in hook.documents if d["status"] == "resolved"]
    assert resolved == ["ManyThreads", "EngineDied"]


def test_a_killed_engine_is_told_even_if_the_target_was_away_at_first(
    start_reporter: Start, tmp_path: Path
) -> None:
    """Alertmanager comes back in the middle of the grace period."""
    alertmanager = RealAlertmanager(tmp_path / "alertmanager")
    engine = start_reporter(alertmanagers=[{"url": alertmanager.url}], stop_grace=30)
    wait_started(engine)
    engine.kill()
    wait_line(engine, "Alert 'EngineDied' fires")
    with alertmanager:
        alertmanager.wait_for("EngineDied")


def test_a_stopped_engine_is_told_by_the_built_in_rules(
    start_reporter: Start, alertmanager: RealAlertmanager
) -> None:
    """SIGSTOP: EngineStopped fires without any rule of one's own, and resolves with SIGCONT."""
    engine = start_reporter(
        alertmanagers=[{"url": alertmanager.url}],
        built_in_rules=True,
        health={"stopped_after": 0.5},
    )
    wait_started(engine)
    os.kill(engine.pid, signal.SIGSTOP)
    alert = alertmanager.wait_for("EngineStopped")
    assert alert["labels"]["severity"] == "critical"
    assert f"{engine.pid} is stopped (state T)" in alert["annotations"]["description"]
    os.kill(engine.pid, signal.SIGCONT)
    alertmanager.wait_gone("EngineStopped")
    end_in_order(engine)


@pytest.mark.parametrize(
    "python",
    [
        "",
        "import sys; sys.exit(3)",
        "raise KeyboardInterrupt",
        "import os; launcher.stop_plugins(wait=False); os._exit(0)",
        "import os; launcher.stop_plugins(wait=False); os.kill(os.getpid(), 9)",
    ],
)
def test_an_engine_that_closes_and_is_gone_at_once_has_not_died(
    start_reporter: Start, hook: Receiver, python: str
) -> None:
    """It told the supervisor before it ended, and that tells the reporter."""
    engine = start_reporter(webhooks=[{"url": hook.url}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    hook.wait_for("firing", "ManyThreads")
    if python:
        with contextlib.suppress(AssertionError):
            engine.do(f"exec({python!r}, globals())")
    else:
        engine.close()
    engine.process.wait(10)
    hook.wait_for("resolved", "ManyThreads")
    wait_line(engine, r"in order; 1 alert resolved[^$]*xited with code 0")
    assert {document["name"] for document in hook.documents} == {"ManyThreads"}


@pytest.mark.parametrize(
    ("python", "how"),
    [
        ("import os; os._exit(0)", "has ended without closing."),
        ("import os; os.abort()", "has ended without closing."),
        ("import os; os.close(0)", "was ended by an exception."),  # as it cannot read any more
    ],
)
def test_an_engine_that_ends_without_a_word_or_by_an_exception_has_died(
    start_reporter: Start, hook: Receiver, python: str, how: str
) -> None:
    """Whatever its exit code is: nobody but its parent knows that."""
    engine = start_reporter(webhooks=[{"url": hook.url}])
    wait_started(engine)
    with contextlib.suppress(AssertionError):
        engine.do(f"exec({python!r}, globals())")
    died = hook.wait_for("firing", "EngineDied")
    assert died["annotations"]["description"].endswith(how)
    wait_line(engine, "xited with code 0")


def test_without_the_word_of_a_supervisor_a_process_that_is_gone_has_died(
    start_reporter: Start, hook: Receiver
) -> None:
    """As where there is no runtime directory to say it in."""
    engine = start_reporter(webhooks=[{"url": hook.url}])
    wait_started(engine)
    instance = Path(engine.control).parent
    (instance / "ending").mkdir()  # in the way of the word
    supervisor = engine.supervisor()
    engine.kill()
    hook.wait_for("firing", "EngineDied")
    wait_line(engine, "xited with code 0")
    wait_until(lambda: gone(supervisor))
    assert not instance.exists()  # what was in the way goes with it


def test_a_plugin_that_is_stopped_alone_resolves_its_alerts(
    start_reporter: Start, hook: Receiver
) -> None:
    """``lmcache-plugins stop``: the engine lives, so it has not died."""
    engine = start_reporter(webhooks=[{"url": hook.url}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    hook.wait_for("firing", "ManyThreads")
    engine.ask("stop", names=[NAME])
    hook.wait_for("resolved", "ManyThreads")
    wait_line(engine, "goes on, only this plugin stops; 1 alert resolved")
    end = [document["name"] for document in hook.documents]
    assert end == ["ManyThreads", "ManyThreads"]


def test_a_request_that_hangs_does_not_take_the_end_with_it(
    start_reporter: Start, hook: Receiver
) -> None:
    """SIGTERM while a request never ends: another connection brings the last state in time."""
    hook.delay = 30
    engine = start_reporter(webhooks=[{"url": hook.url, "timeout": 60}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    wait_until(lambda: hook.requests, 30)
    hook.delay = 0
    end_in_order(engine)
    assert [document["status"] for document in hook.documents] == ["resolved"]


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Path]:
    """A group of processes that may use 300 MiB of memory, as a container is."""
    place = next(
        (
            path
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            for _, controllers, own in [line.split(":", 2)]
            for path in [
                Path("/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup") / own.strip("/")
            ]
            if controllers in ("", "memory") and list(path.glob("memory.limit_in_bytes"))
        ),
        None,
    )
    if place is None:
        pytest.skip("no memory controller of version 1 to make a group in")
    group = place / f"alert-reporter-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(300 << 20))
    except OSError as error:
        pytest.skip(f"cannot make a group with a memory limit: {error}")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text(), 30)
    group.rmdir()


def test_a_full_container_and_the_kernels_kill_are_told(
    start_reporter: Start, hook: Receiver, container: Path
) -> None:
    """A real limit: an alert when it is near, and the cause of death when it is reached."""
    rule = {"name": "Full", "measure": "container_memory_percent", "above": 70}
    share = {"name": "Share", "measure": "memory_percent", "above": 60}
    enter = f"import os; open('{container}/cgroup.procs', 'w').write(str(os.getpid()))"
    engine = start_reporter(
        webhooks=[{"url": hook.url}], rules=[rule, share], engine_options={"prelude": enter}
    )
    wait_started(engine)
    engine.do("memory = bytearray(b'x') * (200 << 20)")
    assert 70 < hook.wait_for("firing", "Full")["value"] < 100
    assert 60 < hook.wait_for("firing", "Share")["value"] < 100
    with contextlib.suppress(AssertionError):
        engine.do("more = bytearray(b'x') * (200 << 20)")
    died = hook.wait_for("firing", "EngineDied")
    assert died["annotations"]["description"].endswith(
        "Meanwhile the kernel killed 1 process of its container for lack of memory."
    )
    hook.wait_for("resolved", "Full")
    wait_line(engine, "xited with code 0")


def test_an_engine_that_does_not_answer_or_stalls_is_told(
    start_reporter: Start, hook: Receiver
) -> None:
    """VLLM's health check and metrics: both built-in rules fire and resolve."""
    with VllmStub() as vllm:
        health = {
            "health_url": f"{vllm.url}/health",
            "metrics_url": f"{vllm.url}/metrics",
            "timeout": 5,
            "failures": 1,
            "stalled_after": 1,
        }
        unresponsive = {"name": "EngineUnresponsive", "measure": "engine_unresponsive", "above": 0}
        stalled = {"name": "EngineStalled", "measure": "engine_stalled", "above": 0}
        engine = start_reporter(
            webhooks=[{"url": hook.url}], rules=[unresponsive, stalled], health=health
        )
        wait_started(engine)
        wait_until(lambda: vllm.asked > 4, 30)
        vllm.values["running"] = 3.0
        told = hook.wait_for("firing", "EngineStalled")
        assert "with 3 requests" in told["annotations"]["description"]
        vllm.values["generation"] += 1
        hook.wait_for("resolved", "EngineStalled")
        vllm.values["running"] = 0.0
        vllm.status = 503
        told = hook.wait_for("firing", "EngineUnresponsive")
        assert "HTTP 503" in told["annotations"]["description"]
        vllm.status = 200
        hook.wait_for("resolved", "EngineUnresponsive")
        end_in_order(engine)
