# SPDX-License-Identifier: Apache-2.0
"""A webhook hears of every end, also of what fired for a reporter that was killed."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from alerting import (
    FEWER_THREADS,
    MORE_THREADS,
    NAME,
    PLUGIN,
    THREADS,
    Receiver,
    Start,
    end_in_order,
    lines,
    settings_of,
    wait_started,
)
from harness import Engine, wait_until
from vllm_stub import VllmStub

from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert
from lmcache_plugin_adapter.gallery.alert_reporter.firing_file import FiringFile

SAME = {"engine_options": {"worker_id": 0}}
"""For a second engine that is the first one's successor."""

LABELS = {"engine": "blue", "role": "worker"}


def alert(name: str, ends_at: float | None = None) -> Alert:
    """Return one."""
    return Alert({"alertname": name, **LABELS}, {"summary": "x"}, 1e9, ends_at, value=1.0)


def kill_reporter(engine: Engine) -> None:
    """SIGKILL, and wait for its successor."""
    begun = lines(engine).count("Watching engine process")
    os.kill(engine.plugin_pid(NAME), signal.SIGKILL)
    engine.wait_for(
        lambda: lines(engine).count("Watching engine process") > begun, 30, "its successor"
    )


def kept(tmp_path: Path) -> list[Path]:
    """Return the files with what fires."""
    return list((tmp_path / "state-home" / "lmcache-plugins" / NAME).glob("*.json"))


def test_what_fired_for_a_killed_reporter_is_resolved(
    engine: Start, plugin: Callable[..., Path], hook: Receiver, tmp_path: Path
) -> None:
    """It was over before the next one came, or goes on and is over later."""
    plugin(f"{NAME}.py", PLUGIN)
    section = settings_of(webhooks=[{"url": hook.url}], rules=[THREADS])
    running = engine({**section, "restart": "on-failure"})
    wait_started(running)
    running.do(MORE_THREADS)
    fired = hook.wait_for("firing", "ManyThreads")
    (file,) = wait_until(lambda: kept(tmp_path))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    kill_reporter(running)
    wait_until(lambda: len(hook.documents) == 2)
    again = hook.documents[1]
    assert (again["status"], again["id"]) == ("firing", fired["id"])
    assert again["starts_at"] == fired["starts_at"]
    pid = running.plugin_pid(NAME)
    os.kill(pid, signal.SIGSTOP)
    running.do(FEWER_THREADS)
    kill_reporter(running)
    resolved = hook.wait_for("resolved", "ManyThreads")
    assert (resolved["id"], resolved["starts_at"]) == (fired["id"], fired["starts_at"])
    wait_until(lambda: not kept(tmp_path))
    running.close()
    statuses = [d["status"] for d in hook.documents]
    assert statuses.count("resolved") == 1
    assert statuses[-1] == "resolved"


def test_what_no_rule_looks_after_any_more_is_resolved_at_once(
    start_reporter: Start, hook: Receiver
) -> None:
    """The engine was killed, as was its successor's; its rules are others now."""
    engine = start_reporter(webhooks=[{"url": hook.url}], rules=[THREADS])
    wait_started(engine)
    engine.do(MORE_THREADS)
    hook.wait_for("firing", "ManyThreads")
    os.kill(engine.plugin_pid(NAME), signal.SIGKILL)
    engine.kill()
    again = start_reporter(webhooks=[{"url": hook.url}], rules=[], **SAME)
    hook.wait_for("resolved", "ManyThreads")
    again.close()


def test_what_a_webhook_was_not_told_at_the_end_it_is_told_later(
    start_reporter: Start, hook: Receiver, tmp_path: Path
) -> None:
    """It was away when the engine closed."""
    options = {"webhooks": [{"url": hook.url}], "rules": [THREADS]}
    engine = start_reporter(**options)
    wait_started(engine)
    engine.do(MORE_THREADS)
    hook.wait_for("firing", "ManyThreads")
    hook.status = 503
    assert "Not delivered to" in end_in_order(engine)
    assert kept(tmp_path)
    hook.status = 200
    again = start_reporter(**options, **SAME)
    resolved = hook.wait_for("resolved", "ManyThreads")
    assert resolved["ends_at"] < resolved["sent_at"]
    wait_until(lambda: not kept(tmp_path))
    end_in_order(again)


def test_it_is_there_for_the_next_one_and_gone_when_all_is_well(tmp_path: Path) -> None:
    """Whatever was killed in the middle."""
    directory = str(tmp_path / "a" / "b")
    first = FiringFile(directory, LABELS)
    assert first.load() == []
    found = [alert("A"), alert("B", ends_at=2e9)]
    first.save(found)
    assert FiringFile(directory, LABELS).load() == []  # it is another one's still
    first._file.close()
    second = FiringFile(directory, LABELS)
    assert second.load() == found
    assert FiringFile(directory, {"engine": "green"}).load() == []
    second.save([])
    assert not list(Path(directory).glob("*.json*[!k]"))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version": 1, "alerts": 3}', b"\xff" * 9, b"[" * 10**6]
)
def test_a_damaged_file_is_said_once_and_replaced(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no reason not to look after the engine."""
    stored = FiringFile(str(tmp_path), LABELS)
    Path(stored._file.path).write_bytes(content)
    assert stored.load() == []
    stored.save([alert("A")])
    out = capsys.readouterr().out
    assert out.count("Cannot store in") == 1
    stored._file.close()
    assert FiringFile(str(tmp_path), LABELS).load() == [alert("A")]


def test_where_nothing_can_be_written_it_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file is in the way of the directory."""
    (tmp_path / "file").write_text("")
    stored = FiringFile(str(tmp_path / "file" / "x"), LABELS)
    assert stored.load() == []
    stored.save([alert("A")])
    stored.save([alert("B")])
    out = capsys.readouterr().out
    assert out.count("<4>Cannot store in") == 1
    assert "Not a directory; if this reporter is killed" in out


def test_what_no_reporter_has_written_is_left_out(tmp_path: Path) -> None:
    """Times that are no dates would hold up every delivery."""
    stored = FiringFile(str(tmp_path), LABELS)
    stored.save([alert("A"), alert("B", ends_at=1e300), Alert({}, {}, 1.0)])
    stored._file.close()
    assert FiringFile(str(tmp_path), LABELS).load() == [alert("A")]


def test_a_stuck_engine_is_not_taken_for_well_by_the_next_reporter(
    engine: Start, plugin: Callable[..., Path], hook: Receiver
) -> None:
    """It has not answered this one yet, which is no answer."""
    with VllmStub() as vllm:
        plugin(f"{NAME}.py", PLUGIN)
        rule = {"name": "Stuck", "measure": "engine_unresponsive", "above": 0}
        health = {"health_url": vllm.url + "/health", "timeout": 1, "failures": 1}
        section = settings_of(webhooks=[{"url": hook.url}], rules=[rule], health=health)
        running = engine({**section, "restart": "on-failure"})
        wait_started(running)
        wait_until(lambda: vllm.asked > 1)
        vllm.status = 503
        hook.wait_for("firing", "Stuck")
        kill_reporter(running)
        wait_until(lambda: len(hook.documents) == 2)
        asked = vllm.asked
        wait_until(lambda: vllm.asked > asked + 5)
        assert [d["status"] for d in hook.documents] == ["firing", "firing"]
        vllm.status = 200
        hook.wait_for("resolved", "Stuck")
        running.close()


def test_that_no_engine_had_died_is_no_loss_where_it_is_not_told(
    start_reporter: Start, hook: Receiver
) -> None:
    """An Alertmanager that is away all the time: an ordinary stop is nothing to be alarmed by."""
    hook.status = 503
    engine = start_reporter(alertmanagers=[{"url": hook.url}])
    wait_started(engine)
    wait_until(lambda: hook.requests)
    assert "Not delivered to" not in end_in_order(engine)
