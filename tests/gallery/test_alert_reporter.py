"""The alert reporter beside real engines, Debian's Alertmanager and a webhook."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alerting import (
    FEWER_THREADS,
    MORE_THREADS,
    NAME,
    PLUGIN,
    THREADS,
    RealAlertmanager,
    Receiver,
    check_webhook,
    end_in_order,
    lines,
    moment,
    settings_of,
    wait_line,
    wait_started,
)
from harness import Engine, wait_until
from servers import free_port

Start = Callable[..., Engine]


@pytest.fixture
def hook() -> Iterator[Receiver]:
    """A strict webhook."""
    with Receiver(check_webhook) as receiver:
        yield receiver


@pytest.fixture
def notified() -> Iterator[Receiver]:
    """Whom Alertmanager notifies."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def alertmanager(tmp_path: Path, notified: Receiver) -> Iterator[RealAlertmanager]:
    """Debian's Alertmanager."""
    with RealAlertmanager(tmp_path / "alertmanager", notified.url) as server:
        assert isinstance(server, RealAlertmanager)
        yield server


@pytest.fixture
def start(engine: Start, plugin: Callable[..., Path]) -> Start:
    """Start an engine with the reporter; keywords are the reporter's settings."""
    plugin(f"{NAME}.py", PLUGIN)

    def begin(engine_options: dict[str, Any] | None = None, **settings: Any) -> Engine:
        return engine(settings_of(**settings), **(engine_options or {}))

    return begin


def test_an_alert_fires_and_resolves_at_both_targets(
    start: Start, alertmanager: RealAlertmanager, notified: Receiver, hook: Receiver
) -> None:
    """Threads of a real process grow and go; Alertmanager and the webhook follow."""
    engine = start(
        alertmanagers=[{"url": alertmanager.url}],
        webhooks=[{"url": hook.url + "/hook?key=secret"}],
        rules=[THREADS],
        labels={"cluster": "test"},
        engine="llama",
    )
    wait_started(engine)
    assert alertmanager.alerts() == {}
    before = time.time()
    engine.do(MORE_THREADS)

    alert = alertmanager.wait_for("ManyThreads")
    assert alert["labels"] == {
        "alertname": "ManyThreads",
        "cluster": "test",
        "dp_rank": "0",
        "engine": "llama",
        "host": os.uname().nodename,
        "rank": "0",
        "role": "worker",
        "severity": "warning",
        "team": "serving",
    }
    assert "above 50" in alert["annotations"]["description"]
    assert str(engine.pid) in alert["annotations"]["description"]
    starts = moment(alert["startsAt"]).timestamp()
    assert before - 0.01 <= starts <= time.time()
    # Three periods of 60 s and a little.
    assert 180 < moment(alert["endsAt"]).timestamp() - starts < 240
    fired = hook.wait_for("firing", "ManyThreads")
    assert fired["measure"] == "threads"
    assert fired["limit"] == 50.0
    assert fired["value"] > 50
    assert fired["labels"] == alert["labels"]
    notified.notified("firing", "ManyThreads")

    engine.do(FEWER_THREADS)
    alertmanager.wait_gone("ManyThreads")
    resolved = hook.wait_for("resolved", "ManyThreads")
    assert resolved["id"] == fired["id"]
    assert resolved["starts_at"] == fired["starts_at"]
    notified.notified("resolved", "ManyThreads")
    assert {path for path, _ in hook.requests} == {"/hook?key=secret"}
    text = end_in_order(engine)
    assert "secret" not in text
    assert len(hook.documents) == 2, hook.documents


def test_real_memory_descriptors_cpu_and_bytes_written_are_measured(
    start: Start, hook: Receiver, tmp_path: Path
) -> None:
    """Each measure follows what the engine really does."""
    mebibytes = 200
    engine = start(
        webhooks=[{"url": hook.url}],
        rules=[
            {"name": "Memory", "measure": "memory_bytes", "above": mebibytes << 20},
            {"name": "Descriptors", "measure": "descriptors", "above": 300},
            {"name": "Share", "measure": "descriptors_percent", "above": 50},
            {"name": "Busy", "measure": "cpu_percent", "above": 10},
            {"name": "Writes", "measure": "write_bytes_per_second", "above": 1000},
        ],
    )
    wait_started(engine)
    engine.do("memory = bytearray(b'x') * (200 << 20)")
    assert hook.wait_for("firing", "Memory")["value"] > mebibytes << 20
    engine.do("memory = None")
    hook.wait_for("resolved", "Memory")

    engine.do("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (600, 600))")
    engine.do("import os; files = [os.open('/dev/null', 0) for _ in range(400)]")
    assert hook.wait_for("firing", "Descriptors")["value"] >= 400
    assert 60 < hook.wait_for("firing", "Share")["value"] < 100
    engine.do("[os.close(fd) for fd in files]")
    hook.wait_for("resolved", "Descriptors")
    hook.wait_for("resolved", "Share")

    # Direct to the file system's device, as tmpfs counts no bytes.
    place = str(tmp_path / "written")
    engine.do(
        f"import threading, time\n"
        f"done = threading.Event()\n"
        f"def work():\n"
        f"    while not done.is_set():\n"
        f"        sum(range(200_000))\n"
        f"def write():\n"
        f"    with open({place!r}, 'wb') as file:\n"
        f"        while not done.is_set():\n"
        f"            file.write(bytes(1 << 20)); file.flush(); os.fsync(file.fileno())\n"
        f"            file.seek(0)\n"
        f"threads = [threading.Thread(target=one) for one in (work, write)]\n"
        f"[thread.start() for thread in threads]"
    )
    try:
        assert hook.wait_for("firing", "Busy", 30)["value"] > 10
        assert hook.wait_for("firing", "Writes", 30)["value"] > 1000
    finally:
        engine.do("done.set()")
    engine.do("[thread.join() for thread in threads]")
    hook.wait_for("resolved", "Busy")
    end_in_order(engine)


def test_for_and_clear_after_hold_an_alert_back(start: Start, hook: Receiver) -> None:
    """It fires after ``for`` and resolves after ``clear_after``, measured at the other end."""
    rule = {**THREADS, "for": 1.0, "clear_after": 1.5}
    engine = start(webhooks=[{"url": hook.url}], rules=[rule])
    wait_started(engine)
    begun = time.time()
    engine.do(MORE_THREADS)
    fired = hook.wait_for("firing", "ManyThreads")
    assert moment(fired["starts_at"]).timestamp() - begun >= 0.99
    ended = time.time()
    engine.do(FEWER_THREADS)
    resolved = hook.wait_for("resolved", "ManyThreads")
    assert moment(resolved["ends_at"]).timestamp() - ended >= 1.49
    end_in_order(engine)


def test_a_target_that_is_down_at_the_start_gets_what_is_now(
    start: Start, tmp_path: Path, notified: Receiver
) -> None:
    """One line says that nobody is there; when it comes it is told, and one line says so."""
    alertmanager = RealAlertmanager(tmp_path / "alertmanager", notified.url)
    engine = start(alertmanagers=[{"url": alertmanager.url}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    wait_line(engine, "WARNING: Cannot send alerts to .*ConnectError.*tried again")
    with alertmanager:
        alertmanager.wait_for("ManyThreads", 20)
        notified.notified("firing", "ManyThreads")
        wait_line(engine, r"INFO: Alerts reach '.*' again after \d+ s")
        end_in_order(engine)
    assert len(re.findall("Cannot send alerts", lines(engine))) == 1, lines(engine)


def test_what_happens_while_a_target_is_away_is_told_later(
    start: Start, alertmanager: RealAlertmanager, hook: Receiver
) -> None:
    """Resolved while Alertmanager and webhook are away: both are told once they are back."""
    port = free_port()
    away = Receiver(check_webhook, port)
    engine = start(
        alertmanagers=[{"url": alertmanager.url}],
        webhooks=[{"url": away.url}],
        rules=[THREADS, {**THREADS, "name": "Other", "measure": "descriptors"}],
    )
    wait_started(engine)
    engine.do(MORE_THREADS)
    alertmanager.wait_for("ManyThreads")
    away.wait_for("firing", "ManyThreads")

    alertmanager.stop(signal.SIGTERM)
    away.close()
    engine.do(FEWER_THREADS)
    engine.do("import os; files = [os.open('/dev/null', 0) for _ in range(100)]")
    wait_line(engine, "Alert 'ManyThreads' resolved")
    wait_line(engine, "Alert 'Other' fires")
    wait_until(lambda: len(re.findall("Cannot send alerts", lines(engine))) == 2)

    alertmanager.start()
    with Receiver(check_webhook, port) as back:
        alertmanager.wait_for("Other", 40)
        assert set(alertmanager.alerts()) == {"Other"}
        back.wait_for("resolved", "ManyThreads", 40)
        back.wait_for("firing", "Other", 40)
        wait_until(lambda: len(back.documents) == 2)
        end_in_order(engine)
        assert [(d["name"], d["status"]) for d in back.documents] == [
            ("ManyThreads", "resolved"),
            ("Other", "firing"),
            ("Other", "resolved"),
        ]


def test_a_restarted_alertmanager_is_told_again_what_fires(
    start: Start, alertmanager: RealAlertmanager
) -> None:
    """It keeps no alerts over a restart: what fires is sent again and again."""
    engine = start(alertmanagers=[{"url": alertmanager.url, "resend": 1}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    first = alertmanager.wait_for("ManyThreads")
    wait_until(lambda: alertmanager.wait_for("ManyThreads")["endsAt"] > first["endsAt"])
    alertmanager.stop()
    shutil.rmtree(alertmanager.data / "state")
    alertmanager.start()
    again = alertmanager.wait_for("ManyThreads")
    assert again["startsAt"] == first["startsAt"]
    end_in_order(engine)
    assert alertmanager.alerts() == {}


def test_a_slow_target_holds_up_nobody(
    start: Start, alertmanager: RealAlertmanager, hook: Receiver
) -> None:
    """One target that does not answer: measuring and the other target go on, the end is prompt."""
    alertmanager.pause()
    engine = start(
        alertmanagers=[{"url": alertmanager.url, "timeout": 3}],
        webhooks=[{"url": hook.url}],
        rules=[THREADS],
    )
    wait_started(engine)
    engine.do(MORE_THREADS)
    hook.wait_for("firing", "ManyThreads", 2.5)
    engine.do(FEWER_THREADS)
    hook.wait_for("resolved", "ManyThreads", 2.5)
    wait_line(engine, "Cannot send alerts to .*no answer in time")
    engine.do(MORE_THREADS)
    wait_line(engine, "fires: .*[^$]*fires: ")
    begun = time.monotonic()
    engine.do("launcher.stop_plugins()")
    assert time.monotonic() - begun < 5.3
    text = lines(engine)
    assert re.search("ERROR: Not told to .*ManyThreads: ", text), text
    assert "exited with code 0" in text, text
    alertmanager.resume()


def test_answers_that_are_slow_but_in_time_are_waited_for(start: Start, hook: Receiver) -> None:
    """A webhook that takes a second for each alert gets each of them once."""
    hook.delay = 1.0
    engine = start(webhooks=[{"url": hook.url}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    hook.wait_for("firing", "ManyThreads")
    engine.do(FEWER_THREADS)
    hook.wait_for("resolved", "ManyThreads")
    end_in_order(engine)
    assert len(hook.documents) == 2


def test_an_orderly_end_resolves_what_fires_and_says_goodbye(
    start: Start, alertmanager: RealAlertmanager, notified: Receiver, hook: Receiver
) -> None:
    """The engine closes while an alert fires: it is resolved, and EngineDied does not fire."""
    engine = start(
        alertmanagers=[{"url": alertmanager.url}], webhooks=[{"url": hook.url}], rules=[THREADS]
    )
    wait_started(engine)
    engine.do(MORE_THREADS)
    alertmanager.wait_for("ManyThreads")
    notified.notified("firing", "ManyThreads")
    text = end_in_order(engine)
    assert alertmanager.alerts() == {}
    notified.notified("resolved", "ManyThreads")
    assert [(d["name"], d["status"]) for d in hook.documents] == [
        ("ManyThreads", "firing"),
        ("ManyThreads", "resolved"),
    ]
    assert re.search(r"INFO: Ending: engine process \d+ .*in order; 1 alert resolved", text), text


def test_an_alert_that_fires_at_the_last_moment_is_told_and_resolved(
    start: Start, hook: Receiver
) -> None:
    """SIGTERM in the middle of a slow request: what was under way and what follows arrive."""
    hook.delay = 0.7
    engine = start(webhooks=[{"url": hook.url}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    wait_until(lambda: hook.requests)
    end_in_order(engine)
    assert [d["status"] for d in hook.documents] == ["firing", "resolved"]


def test_a_killed_engine_is_told_within_the_grace_period(
    start: Start, alertmanager: RealAlertmanager, notified: Receiver, hook: Receiver
) -> None:
    """SIGKILL: EngineDied fires, what fired for the engine resolves, the next engine clears it."""
    options = {
        "alertmanagers": [{"url": alertmanager.url}],
        "webhooks": [{"url": hook.url}],
        "rules": [THREADS],
    }
    engine = start(**options)
    wait_started(engine)
    engine.do(MORE_THREADS)
    alertmanager.wait_for("ManyThreads")
    begun = time.monotonic()
    engine.kill()
    alert = alertmanager.wait_for("EngineDied", 5)
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

    again = start(**options, engine_options={"worker_id": 0})
    wait_started(again)
    alertmanager.wait_gone("EngineDied")
    notified.notified("resolved", "EngineDied")
    end_in_order(again)
    assert alertmanager.alerts() == {}
    assert [d["name"] for d in hook.documents if d["status"] == "resolved"] == ["ManyThreads"]


def test_a_killed_engine_is_told_even_if_the_target_was_away_at_first(
    start: Start, tmp_path: Path
) -> None:
    """Alertmanager comes back in the middle of the grace period."""
    alertmanager = RealAlertmanager(tmp_path / "alertmanager")
    engine = start(alertmanagers=[{"url": alertmanager.url}])
    wait_started(engine)
    engine.kill()
    wait_line(engine, "Alert 'EngineDied' fires")
    with alertmanager:
        alertmanager.wait_for("EngineDied", 6)


def test_a_stopped_engine_is_told_by_the_built_in_rules(
    start: Start, alertmanager: RealAlertmanager
) -> None:
    """SIGSTOP: EngineStopped fires without any rule of one's own, and resolves with SIGCONT."""
    engine = start(
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
    start: Start, hook: Receiver, python: str
) -> None:
    """It told the supervisor before it ended, and that tells the reporter."""
    engine = start(webhooks=[{"url": hook.url}], rules=[THREADS])
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
    start: Start, hook: Receiver, python: str, how: str
) -> None:
    """Whatever its exit code is: nobody but its parent knows that."""
    engine = start(webhooks=[{"url": hook.url}])
    wait_started(engine)
    with contextlib.suppress(AssertionError):
        engine.do(f"exec({python!r}, globals())")
    died = hook.wait_for("firing", "EngineDied")
    assert died["annotations"]["description"].endswith(how)
    wait_line(engine, "xited with code 0")


def test_without_the_word_of_a_supervisor_a_process_that_is_gone_has_died(
    start: Start, hook: Receiver
) -> None:
    """As where there is no runtime directory to say it in."""
    engine = start(webhooks=[{"url": hook.url}])
    pid = wait_started(engine)
    os.kill(pid, signal.SIGSTOP)
    engine.kill()
    run = engine.log_path.parent / "run"
    [word] = wait_until(lambda: list(run.glob("*/ending")))
    assert word.read_text() == "died\n"
    word.unlink()
    os.kill(pid, signal.SIGCONT)
    hook.wait_for("firing", "EngineDied")


def test_a_plugin_that_is_stopped_alone_resolves_its_alerts(start: Start, hook: Receiver) -> None:
    """``lmcache-plugins stop``: the engine lives, so it has not died."""
    engine = start(webhooks=[{"url": hook.url}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    hook.wait_for("firing", "ManyThreads")
    engine.ask("stop", names=[NAME])
    hook.wait_for("resolved", "ManyThreads")
    wait_line(engine, "goes on, only this plugin ends; 1 alert resolved")
    end = [document["name"] for document in hook.documents]
    assert end == ["ManyThreads", "ManyThreads"]


def test_a_request_that_hangs_does_not_take_the_end_with_it(start: Start, hook: Receiver) -> None:
    """SIGTERM while a request never ends: another connection brings the last state in time."""
    hook.delay = 30
    engine = start(webhooks=[{"url": hook.url, "timeout": 60}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    wait_until(lambda: hook.requests)
    hook.delay = 0
    end_in_order(engine)
    assert [document["status"] for document in hook.documents] == ["resolved"]


def test_two_targets_of_a_kind_are_both_told(
    start: Start, alertmanager: RealAlertmanager, tmp_path: Path
) -> None:
    """As the members of a cluster want it."""
    with RealAlertmanager(tmp_path / "second") as second:
        assert isinstance(second, RealAlertmanager)
        engine = start(
            alertmanagers=[{"url": alertmanager.url}, {"url": second.url + "/"}], rules=[THREADS]
        )
        wait_started(engine)
        engine.do(MORE_THREADS)
        first = alertmanager.wait_for("ManyThreads")
        assert second.wait_for("ManyThreads")["fingerprint"] == first["fingerprint"]
        end_in_order(engine)
        assert alertmanager.alerts() == second.alerts() == {}


def test_what_has_resolved_is_told_to_an_alertmanager_again(start: Start) -> None:
    """It may have been restarted before it notified anybody; the end stays what it was."""
    ends: list[tuple[bool, str]] = []

    def take(alerts: list[dict[str, Any]]) -> None:
        for alert in alerts:
            assert set(alert) == {"labels", "annotations", "startsAt", "endsAt"}
            if alert["labels"]["alertname"] == "ManyThreads":
                resolved = moment(alert["endsAt"]).timestamp() <= time.time()
                ends.append((resolved, alert["endsAt"]))

    with Receiver(take) as receiver:
        engine = start(alertmanagers=[{"url": receiver.url, "resend": 1}], rules=[THREADS])
        wait_started(engine)
        engine.do(MORE_THREADS)
        wait_until(lambda: len(ends) >= 2)
        engine.do(FEWER_THREADS)
        wait_until(lambda: [resolved for resolved, _ in ends].count(True) >= 3)
        end_in_order(engine)
        assert {path for path, _ in receiver.requests} == {"/api/v2/alerts"}
    fired = [end for resolved, end in ends if not resolved]
    assert fired == sorted(set(fired))  # each time further ahead
    assert len({end for resolved, end in ends if resolved}) == 1


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
    wait_until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_a_full_container_and_the_kernels_kill_are_told(
    start: Start, hook: Receiver, container: Path
) -> None:
    """A real limit: an alert when it is near, and the cause of death when it is reached."""
    rule = {"name": "Full", "measure": "container_memory_percent", "above": 70}
    share = {"name": "Share", "measure": "memory_percent", "above": 60}
    enter = f"import os; open('{container}/cgroup.procs', 'w').write(str(os.getpid()))"
    engine = start(
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
