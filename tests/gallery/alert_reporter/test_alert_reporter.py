# SPDX-License-Identifier: Apache-2.0
"""The alert reporter beside real engines, Debian's Alertmanager and a webhook."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from alerting import (
    FEWER_THREADS,
    MORE_THREADS,
    THREADS,
    RealAlertmanager,
    Receiver,
    Start,
    check_webhook,
    end_in_order,
    lines,
    moment,
    wait_line,
    wait_started,
)
from harness import wait_until
from servers import free_port


def test_an_alert_fires_and_resolves_at_both_targets(
    start_reporter: Start, alertmanager: RealAlertmanager, notified: Receiver, hook: Receiver
) -> None:
    """Threads of a real process grow and go; Alertmanager and the webhook follow."""
    engine = start_reporter(
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
    start_reporter: Start, hook: Receiver, tmp_path: Path
) -> None:
    """Each measure follows what the engine really does."""
    mebibytes = 200
    engine = start_reporter(
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


def test_for_and_clear_after_hold_an_alert_back(start_reporter: Start, hook: Receiver) -> None:
    """It fires after ``for`` and resolves after ``clear_after``, measured at the other end."""
    rule = {**THREADS, "for": 1.0, "clear_after": 1.5}
    engine = start_reporter(webhooks=[{"url": hook.url}], rules=[rule])
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
    start_reporter: Start, tmp_path: Path, notified: Receiver
) -> None:
    """One line says that nobody is there; when it comes it is told, and one line says so."""
    alertmanager = RealAlertmanager(tmp_path / "alertmanager", notified.url)
    engine = start_reporter(alertmanagers=[{"url": alertmanager.url}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    wait_line(engine, "WARNING: Cannot send alerts to .*ConnectError.*retrying")
    with alertmanager:
        alertmanager.wait_for("ManyThreads", 20)
        notified.notified("firing", "ManyThreads")
        wait_line(engine, r"INFO: Alerts reach '.*' again after \d+ s")
        end_in_order(engine)
    assert len(re.findall("Cannot send alerts", lines(engine))) == 1, lines(engine)


def test_what_happens_while_a_target_is_away_is_told_later(
    start_reporter: Start, alertmanager: RealAlertmanager, hook: Receiver
) -> None:
    """Resolved while Alertmanager and webhook are away: both are told once they are back."""
    port = free_port()
    away = Receiver(check_webhook, port)
    engine = start_reporter(
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
    wait_until(lambda: len(re.findall("Cannot send alerts", lines(engine))) == 2, 30)

    alertmanager.start()
    with Receiver(check_webhook, port) as back:
        alertmanager.wait_for("Other", 40)
        assert set(alertmanager.alerts()) == {"Other"}
        back.wait_for("resolved", "ManyThreads", 40)
        back.wait_for("firing", "Other", 40)
        wait_until(lambda: len(back.documents) == 2, 30)
        end_in_order(engine)
        assert [(d["name"], d["status"]) for d in back.documents] == [
            ("ManyThreads", "resolved"),
            ("Other", "firing"),
            ("Other", "resolved"),
        ]


def test_a_restarted_alertmanager_is_told_again_what_fires(
    start_reporter: Start, alertmanager: RealAlertmanager
) -> None:
    """It keeps no alerts over a restart: what fires is sent again and again."""
    engine = start_reporter(alertmanagers=[{"url": alertmanager.url, "resend": 1}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    first = alertmanager.wait_for("ManyThreads")
    wait_until(lambda: alertmanager.wait_for("ManyThreads")["endsAt"] > first["endsAt"], 30)
    alertmanager.stop()
    shutil.rmtree(alertmanager.data / "state")
    alertmanager.start()
    again = alertmanager.wait_for("ManyThreads")
    assert again["startsAt"] == first["startsAt"]
    end_in_order(engine)
    assert alertmanager.alerts() == {}


def test_a_slow_target_holds_up_nobody(
    start_reporter: Start, alertmanager: RealAlertmanager, hook: Receiver
) -> None:
    """One target that does not answer: measuring and the other target go on, the end is prompt."""
    alertmanager.pause()
    engine = start_reporter(
        alertmanagers=[{"url": alertmanager.url, "timeout": 8}],
        webhooks=[{"url": hook.url}],
        rules=[THREADS],
    )
    wait_started(engine)
    engine.do(MORE_THREADS)
    hook.wait_for("firing", "ManyThreads", 7)
    engine.do(FEWER_THREADS)
    hook.wait_for("resolved", "ManyThreads", 7)
    wait_line(engine, "Cannot send alerts to .*no answer in time")
    engine.do(MORE_THREADS)
    wait_line(engine, "fires: .*[^$]*fires: ")
    begun = time.monotonic()
    engine.do("launcher.stop_plugins()")
    assert time.monotonic() - begun < 5 + 2  # and it was not killed when its 5 s were over
    text = lines(engine)
    assert re.search(r"ERROR: Not delivered to .*ManyThreads \(resolved\): ", text), text
    assert "exited with code 0" in text, text
    alertmanager.resume()


def test_answers_that_are_slow_but_in_time_are_waited_for(
    start_reporter: Start, hook: Receiver
) -> None:
    """A webhook that takes a second for each alert gets each of them once."""
    hook.delay = 1.0
    engine = start_reporter(webhooks=[{"url": hook.url}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    hook.wait_for("firing", "ManyThreads")
    engine.do(FEWER_THREADS)
    hook.wait_for("resolved", "ManyThreads")
    end_in_order(engine)
    assert len(hook.documents) == 2


def test_two_targets_of_a_kind_are_both_told(
    start_reporter: Start, alertmanager: RealAlertmanager, tmp_path: Path
) -> None:
    """As the members of a cluster want it."""
    with RealAlertmanager(tmp_path / "second") as second:
        assert isinstance(second, RealAlertmanager)
        engine = start_reporter(
            alertmanagers=[{"url": alertmanager.url}, {"url": second.url + "/"}], rules=[THREADS]
        )
        wait_started(engine)
        engine.do(MORE_THREADS)
        first = alertmanager.wait_for("ManyThreads")
        assert second.wait_for("ManyThreads")["fingerprint"] == first["fingerprint"]
        end_in_order(engine)
        assert alertmanager.alerts() == second.alerts() == {}


def test_what_has_resolved_is_told_to_an_alertmanager_again(start_reporter: Start) -> None:
    """It may have been restarted before it notified anybody; the end stays what it was."""
    ends: list[tuple[bool, str]] = []

    def take(alerts: list[dict[str, Any]]) -> None:
        for alert in alerts:
            assert set(alert) == {"labels", "annotations", "startsAt", "endsAt"}
            if alert["labels"]["alertname"] == "ManyThreads":
                resolved = moment(alert["endsAt"]).timestamp() <= time.time()
                ends.append((resolved, alert["endsAt"]))

    with Receiver(take) as receiver:
        engine = start_reporter(alertmanagers=[{"url": receiver.url, "resend": 1}], rules=[THREADS])
        wait_started(engine)
        engine.do(MORE_THREADS)
        wait_until(lambda: len(ends) >= 2, 30)
        engine.do(FEWER_THREADS)
        wait_until(lambda: [resolved for resolved, _ in list(ends)].count(True) >= 3, 30)
        end_in_order(engine)
        assert {path for path, _ in receiver.requests} == {"/api/v2/alerts"}
    fired = [end for resolved, end in ends if not resolved]
    assert fired == sorted(set(fired))  # each time further ahead
    assert len({end for resolved, end in ends if resolved}) == 1
