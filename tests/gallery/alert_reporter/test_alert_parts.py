# SPDX-License-Identifier: Apache-2.0
"""Pieces of the alert reporter that need no engine: memory limits, NVML, outbox, documents."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert, timestamp, worded
from lmcache_plugin_adapter.gallery.alert_reporter.measuring.cgroup import (
    ContainerOomKills,
    Memory,
    container_memory,
)
from lmcache_plugin_adapter.gallery.alert_reporter.measuring.measures import MEASURES, Meter
from lmcache_plugin_adapter.gallery.alert_reporter.targets.pending import PendingAlerts


def write(root: Path, path: str, text: str) -> None:
    """Write a file below a made-up root."""
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def group(root: Path, path: str, limit: str, used: int, inactive: int = 0) -> None:
    """Write what version 2 has of a group's memory."""
    write(root, f"{path}/memory.max", f"{limit}\n")
    write(root, f"{path}/memory.current", f"{used}\n")
    write(root, f"{path}/memory.stat", f"anon 1\ninactive_file {inactive}\n")


def test_the_tightest_limit_above_a_process_counts(tmp_path: Path) -> None:
    """Version 2: its own group has none, the one above has."""
    write(tmp_path, "proc/7/cgroup", "0::/kubepods/pod1/engine\n")
    group(tmp_path, "sys/fs/cgroup/kubepods/pod1/engine", "max", 10)
    group(tmp_path, "sys/fs/cgroup/kubepods/pod1", "1000", 600, 100)
    group(tmp_path, "sys/fs/cgroup/kubepods", "5000", 900)
    assert container_memory(7, str(tmp_path)) == Memory(1000, 500)


def test_a_container_that_sees_only_its_own_group(tmp_path: Path) -> None:
    """The path is the host's, the mount shows the container's group at its root."""
    write(tmp_path, "proc/7/cgroup", "0::/../../docker/abc\n")
    group(tmp_path, "sys/fs/cgroup", "2000", 300)
    assert container_memory(7, str(tmp_path)) == Memory(2000, 300)


def test_version_1_and_its_number_for_no_limit(tmp_path: Path) -> None:
    """The same of the older kind."""
    base = "sys/fs/cgroup/memory/docker/abc"
    write(tmp_path, "proc/7/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n")
    write(tmp_path, f"{base}/memory.limit_in_bytes", "9223372036854771712\n")
    write(tmp_path, f"{base}/memory.usage_in_bytes", "700\n")
    assert container_memory(7, str(tmp_path)) is None
    write(tmp_path, f"{base}/memory.limit_in_bytes", "1000\n")
    write(tmp_path, f"{base}/memory.stat", "cache 5\ntotal_inactive_file 200\n")
    assert container_memory(7, str(tmp_path)) == Memory(1000, 500)


@pytest.mark.parametrize("text", ["", "nonsense", "0::/x\n"])
def test_without_a_limit_there_is_none(tmp_path: Path, text: str) -> None:
    """Whatever stands there."""
    write(tmp_path, "proc/7/cgroup", text)
    assert container_memory(7, str(tmp_path)) is None
    assert container_memory(8, str(tmp_path)) is None


def test_kills_for_lack_of_memory_are_counted(tmp_path: Path) -> None:
    """Only those that come later."""
    write(tmp_path, "proc/7/cgroup", "0::/pod\n")
    write(tmp_path, "sys/fs/cgroup/pod/memory.events", "oom 3\noom_kill 2\n")
    kills = ContainerOomKills(7, str(tmp_path))
    assert kills.since() == 0
    write(tmp_path, "sys/fs/cgroup/pod/memory.events", "oom 4\noom_kill 3\n")
    assert kills.since() == 1


def test_kills_are_counted_by_version_1_too(tmp_path: Path) -> None:
    """Where both versions are mounted, the one that has the memory controller counts."""
    write(tmp_path, "proc/7/cgroup", "4:memory:/docker/abc\n0::/\n")
    place = "sys/fs/cgroup/memory/docker/abc/memory.oom_control"
    write(tmp_path, place, "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    kills = ContainerOomKills(7, str(tmp_path))
    write(tmp_path, place, "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert kills.since() == 2


class Nvml(types.ModuleType):
    """An NVML with two GPUs: the process is on the second."""

    pid = 0
    broken = ""

    def nvmlInit(self) -> None:  # noqa: N802
        """As NVML names it."""
        if self.broken:
            raise RuntimeError(self.broken)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """As NVML names it."""
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        """As NVML names it."""
        return index

    def nvmlDeviceGetMemoryInfo(self, device: int) -> Any:  # noqa: N802
        """As NVML names it."""
        return types.SimpleNamespace(used=[900, 400][device], total=1000)

    def nvmlDeviceGetComputeRunningProcesses(self, device: int) -> list[Any]:  # noqa: N802
        """As NVML names it."""
        return [types.SimpleNamespace(pid=[1, self.pid][device], usedGpuMemory=300)]

    def nvmlDeviceGetGraphicsRunningProcesses(self, device: int) -> list[Any]:  # noqa: N802
        """As NVML names it."""
        return []


GPU = ("gpu_memory_bytes", "gpu_memory_percent")


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    """A made-up NVML in the place of ``pynvml``."""
    module = Nvml("pynvml")
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_gpu_memory_is_that_of_the_engine(nvml: Nvml) -> None:
    """The engine's bytes, and the use of the GPU that it is on."""
    nvml.pid = os.getpid()
    notes: list[str] = []
    meter = Meter(os.getpid(), GPU, lambda: "ok", notes.append)
    assert meter.read() == {"gpu_memory_bytes": 300.0, "gpu_memory_percent": 40.0}
    assert not notes


def test_where_nvml_does_not_know_the_process_the_fullest_gpu_counts(nvml: Nvml) -> None:
    """As between PID namespaces."""
    meter = Meter(os.getpid(), GPU, lambda: "ok", lambda _: None)
    assert meter.read() == {"gpu_memory_percent": 90.0}


def test_without_nvml_one_note_is_said_and_only_if_a_rule_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No rule, no note."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    notes: list[str] = []
    Meter(os.getpid(), ("threads",), lambda: "ok", notes.append).read()
    assert not notes
    meter = Meter(os.getpid(), GPU, lambda: "ok", notes.append)
    assert meter.read() == meter.read() == {}
    assert len(notes) == 1
    assert "pip install nvidia-ml-py" in notes[0]


def test_a_driver_that_fails_is_said_once(nvml: Nvml) -> None:
    """And the rules stay quiet."""
    nvml.broken = "Driver Not Loaded"
    notes: list[str] = []
    meter = Meter(os.getpid(), GPU, lambda: "ok", notes.append)
    assert meter.read() == meter.read() == {}
    assert notes == ["Cannot measure the GPUs: Driver Not Loaded; rules on them stay quiet"]


@pytest.mark.parametrize("state", ["ok", "stopped", "unresponsive", "stalled", "dead"])
def test_the_engine_state_is_one_measure_for_each_fault(state: str) -> None:
    """One of them is 1, and ``engine_unhealthy`` with it."""
    names = [name for name in MEASURES if name.startswith("engine_")]
    values = Meter(os.getpid(), names, lambda: state, print).read()
    assert values == {name: float(name == f"engine_{state}") for name in names} | {
        "engine_unhealthy": float(state != "ok")
    }


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this test's own."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_alive_is_not_fooled_by_a_zombie(child: subprocess.Popen[bytes]) -> None:
    """A killed process that nobody has waited for is dead."""
    meter = Meter(child.pid, ("threads",), lambda: "ok", print)
    assert meter.alive
    assert meter.read() == {"threads": 1.0}
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not meter.alive
    child.wait()
    assert not meter.alive
    assert meter.read() == {}
    assert not Meter(child.pid, ("threads",), lambda: "ok", print).alive


def test_a_process_that_ends_is_told_from_one_that_lives(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no zombie yet, and its memory is gone."""
    meter = Meter(child.pid, ("threads",), lambda: "ok", print)
    assert not meter.ends
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    monkeypatch.setattr(psutil.Process, "status", lambda _: psutil.STATUS_RUNNING)
    assert meter.alive
    assert meter.ends


def alert(name: str, ends_at: float | None = None) -> Alert:
    """Return an alert."""
    return Alert({"alertname": name}, {}, 0.0, ends_at=ends_at)


def test_an_outbox_holds_the_latest_state_of_each_alert() -> None:
    """Not a queue: what has been overtaken is not sent."""
    box = PendingAlerts(60, 0, 100)
    box.put(alert("a"), 0)
    box.put(alert("b"), 1)
    box.put(alert("a", 2.0), 2)
    due = box.due(2)
    assert [(one.name, one.firing) for one in due.alerts] == [("b", True), ("a", False)]
    box.delivered(due.alerts, 2)
    assert box.due(3).alerts == []
    assert box.next_due(3) == 59
    assert [one.name for one in box.due(62).alerts] == ["b"]
    assert box.due(62).again == {alert("b").id}


def test_resolved_alerts_are_kept_for_a_target_that_is_away_but_not_for_ever() -> None:
    """Firing ones are kept as long as they fire."""
    box = PendingAlerts(60, 0, 100)
    box.put(alert("a"), 0)
    box.put(alert("b", 0.0), 0)
    box.drop_old(99)
    assert len(box.undelivered) == 2
    box.drop_old(100)
    assert [one.name for one in box.undelivered] == ["a"]
    assert box.dropped == 1


def test_resolved_alerts_may_be_told_again_for_a_while() -> None:
    """Alertmanager may forget them in between."""
    box = PendingAlerts(60, 900, 100)
    box.put(alert("a", 0.0), 0)
    box.delivered(box.due(0).alerts, 0)
    box.drop_old(899)
    assert [one.name for one in box.due(899).alerts] == ["a"]
    box.drop_old(900)
    assert box.due(900).alerts == []
    assert box.next_due(900) is None
    assert box.dropped == 0


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["fire", "resolve", "send", "lose"]), st.sampled_from("abc")),
    max_size=60,
)


@given(OPERATIONS)
def test_whatever_gets_lost_a_target_that_answers_knows_the_present_state(
    operations: list[tuple[str, str]],
) -> None:
    """Alerts come and go, requests are lost: after one that is not, all states agree."""
    box = PendingAlerts(60, 0, 1e9)
    real: dict[str, Alert] = {}
    known: dict[str, Alert] = {}
    for now, (what, name) in enumerate([*operations, ("send", "a")]):
        if what in ("fire", "resolve"):
            if what == "resolve" and name not in real:
                continue
            real[name] = alert(name, None if what == "fire" else float(now))
            box.put(real[name], now)
            continue
        due = box.due(now)
        if what == "send":
            known.update({one.name: one for one in due.alerts})
            box.delivered(due.alerts, now)
    assert known == real
    assert box.undelivered == []


def test_moments_are_rfc_3339_and_values_have_units() -> None:
    """As people and Alertmanager read them."""
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1784000000.25) == "2026-07-14T03:33:20.250Z"
    assert worded(3 * 1024**3, "bytes") == "3 GiB"
    assert worded(2048, "bytes/s") == "2 KiB/s"
    assert worded(91.23456, "%") == "91.23 %"
    assert worded(51, "") == "51"


def test_what_changes_while_it_is_being_sent_is_sent_again() -> None:
    """The answer is about the state that was sent, not about the one that is."""
    box = PendingAlerts(60, 0, 100)
    box.put(alert("a"), 0)
    sent = box.due(0).alerts
    box.put(alert("a", 1.0), 1)
    box.delivered(sent, 2)
    assert [one.firing for one in box.undelivered] == [False]
