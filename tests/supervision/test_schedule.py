# SPDX-License-Identifier: Apache-2.0
"""Scheduled runs (``every``): their times, their limit, and what is logged."""

from __future__ import annotations

import errno
import os
import re
import signal
import time

import pytest
from harness import gone, wait_until

from lmcache_plugin_adapter.contract.runtime_dir import InstanceDir
from lmcache_plugin_adapter.supervisor import restart_delays
from lmcache_plugin_adapter.supervisor.restart_delays import Schedule
from lmcache_plugin_adapter.supervisor.run_watchers import last_success


@pytest.fixture
def clock(mocker):
    """The monotonic clock, to be set."""
    return mocker.patch.object(restart_delays.time, "monotonic", return_value=1000.0)


def test_runs_come_at_a_fixed_rate(clock) -> None:
    """The interval counts from start to start."""
    schedule = Schedule(60, 0)
    clock.return_value = 1045.0
    assert schedule.plan_next() == "next run in 15.0 s"
    clock.return_value = 1060.5
    assert schedule.plan_next() == "next run in 59.5 s"


def test_runs_that_came_due_meanwhile_are_skipped(clock) -> None:
    """There are never two at a time, and no run is made up for."""
    schedule = Schedule(60, 0)
    clock.return_value = 1200.0
    assert schedule.plan_next() == "next run in 40.0 s (3 runs skipped)"
    assert schedule.due == 1240.0


def test_jitter_spreads_runs_and_does_not_add_up(clock) -> None:
    """Each run is late by less than the jitter, measured from its own time."""
    schedule = Schedule(60, 10)
    for number in range(1, 50):
        schedule.plan_next()
        assert 0 <= schedule.due - (1000 + 60 * number) < 10
        clock.return_value = schedule.due


def test_a_requested_start_begins_the_schedule_anew(clock) -> None:
    """The interval counts from the start."""
    schedule = Schedule(60, 0)
    clock.return_value = 1030.0
    schedule.begin()
    assert schedule.plan_next() == "next run in 60.0 s"


def test_a_plugin_runs_at_once_and_then_on_schedule(plugin, engine, tmp_path) -> None:
    """A failed run is logged as such, and the next one comes all the same."""
    runs = tmp_path / "runs"
    plugin("all_x.sh", f"echo run >> {runs}; [ $(wc -l < {runs}) != 2 ]")
    since = time.time()
    one = engine({"every": "300ms", "plugins": {"all_x": {"jitter": "10ms"}}})
    one.wait_for(lambda: runs.exists() and runs.read_text().count("run") >= 4, 20)
    assert time.time() - since >= 0.9, "runs did not wait for their time"
    one.wait_log(r"INFO: \[all_x\] Exited with code 0 after \S+ m?s; next run in ")
    one.wait_log(
        r"WARNING: \[all_x\] Exited with code 1 after \S+ m?s; next run in .*it printed nothing"
    )
    status = one.wait_for(lambda: (s := one.status())["state"] == "waiting" and s, 20)
    assert status["restarts"] == 0
    assert status["last_success"] > since
    assert 0 <= status["next_start_in"] <= 0.31
    assert "starting again" not in one.log()


def test_a_long_run_delays_the_next_and_there_are_never_two(plugin, engine, tmp_path) -> None:
    """A run that comes due meanwhile is skipped."""
    runs = tmp_path / "runs"
    plugin("all_x.sh", f"echo begin >> {runs}; sleep 0.5; echo end >> {runs}")
    one = engine({"every": 0.2})
    one.wait_for(lambda: runs.exists() and runs.read_text().count("end") >= 3, 20)
    assert re.fullmatch(r"(begin\nend\n)+(begin\n)?", runs.read_text())
    one.wait_log(r"next run in .* \(\d runs? skipped\)")


def test_a_run_over_its_timeout_is_ended_as_a_failure(plugin, engine) -> None:
    """SIGTERM, the grace period, SIGKILL; the next run comes on schedule."""
    plugin("all_x.sh", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    one = engine({"every": "500ms", "timeout": "400ms", "stop_grace": 0.2, "leftovers": "keep"})
    one.wait_log(r"WARNING: \[all_x\] Did not finish within 0.4 s \(timeout\): ending it")
    one.wait_log(r"\[all_x\] Did not end within 0.2 s of SIGTERM \(stop_grace\): killing")
    one.wait_log(r"WARNING: \[all_x\] Killed by SIGKILL after .*; next run in .*; last output: up")
    status = one.wait_for(lambda: (s := one.status())["state"] == "waiting" and s, 20)
    assert status["reason"] == "did not finish within 0.4 s (timeout)"
    assert status["last_success"] is None
    one.wait_for(lambda: one.texts("all_x").count("up") >= 2, 20)


def test_a_run_over_its_timeout_may_exit_by_itself(plugin, engine) -> None:
    """Also an exit with code 0 is a failure then, and leftover processes end as well."""
    plugin("all_x.sh", "trap 'exit 0' TERM; setsid sleep 60 & while :; do sleep 0.1; done")
    one = engine({"every": "1h", "timeout": "2s", "nice": 0})
    one.wait_log(r"WARNING: \[all_x\] Exited with code 0 after .*; next run in", 20)
    one.wait_for(lambda: one.status()["state"] == "waiting", 20)
    assert one.status()["last_success"] is None


def test_an_operator_stops_and_starts_a_schedule(plugin, engine, tmp_path) -> None:
    """``start`` runs a waiting plugin at once; a stopped one runs no more until it is started."""
    runs = tmp_path / "runs"
    plugin("all_x.sh", f"echo run >> {runs}")

    def waits_after(count: int) -> bool:
        ran = runs.exists() and runs.read_text().count("run") == count
        return ran and one.status()["state"] == "waiting"

    one = engine({"every": "1h"})
    one.wait_for(lambda: waits_after(1), 20)
    one.ask("start", names=["all_x"], wait=True)
    one.wait_for(lambda: waits_after(2), 20)
    assert one.ask("stop", names=["all_x"], wait=True)["plugins"][0]["state"] == "stopped"
    one.ask("restart", names=["all_x"], wait=True)
    one.wait_for(lambda: waits_after(3), 20)
    assert one.status()["next_start_in"] > 3500


def test_the_last_success_survives_reloads_and_supervisors(plugin, engine, tmp_path) -> None:
    """It is that of the plugin, whichever version of it and whichever supervisor ran it."""
    fails = tmp_path / "fails"
    plugin("all_x.sh", f"[ ! -e {fails} ]")

    def success(pid: int) -> float | None:
        status = one.ask("status")
        (found,) = status["plugins"]
        return found["last_success"] if status["supervisor_pid"] == pid else None

    one = engine({"every": "1h"})
    first = one.supervisor()
    before = one.wait_for(lambda: success(first), 20)
    fails.touch()
    plugin("all_x.sh", f"[ ! -e {fails} ] # changed")
    assert one.ask("reload")["restarted"] == ["all_x"]
    one.wait_log("Exited with code 1", 20)
    assert success(first) == pytest.approx(before)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: gone(first))
    one.wait_for(lambda: one.log().count("Exited with code 1") == 2, 20)
    assert one.status()["last_success"] == pytest.approx(before)


def test_a_success_that_cannot_be_recorded(mocker, tmp_path) -> None:
    """The run counts all the same, and no descriptor stays open."""
    instance = mocker.create_autospec(InstanceDir, instance=True)
    instance.file.side_effect = lambda name: str(tmp_path / name)
    mocker.patch.object(last_success.os, "utime", side_effect=OSError(errno.ENOSPC, "full"))
    before = os.listdir("/proc/self/fd")
    assert last_success.record_success(instance, "all_x") > 0
    assert os.listdir("/proc/self/fd") == before


def test_exit_code_125_ends_the_schedule(plugin, engine) -> None:
    """The plugin asks not to be run again."""
    plugin("all_x.sh", "exit 125")
    one = engine({"every": 0.2})
    one.wait_log("not restarted: it asked for that")
    assert one.status()["state"] == "failed"
