# SPDX-License-Identifier: Apache-2.0
"""Metrics of plugins as a text file, for node_exporter's textfile collector."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Engine, dead_run_id, gone, wait_until
from prometheus_client.parser import text_string_to_metric_families

from lmcache_plugin_adapter.contract.planned_plugin import PlannedMetrics
from lmcache_plugin_adapter.contract.run_token import new_run_id
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.supervisor.metrics import plan, series, text_file

UP = "echo up; exec sleep 60"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The collector's directory."""
    path = tmp_path / "textfile"
    path.mkdir()
    return path


@pytest.fixture
def measured(engine, directory) -> Callable[..., Engine]:
    """Start engines that write there."""
    on = {"metrics": {"textfile": str(directory)}}
    return lambda settings=None, **options: engine({**on, **(settings or {})}, **options)


def files(directory: Path) -> list[Path]:
    """Return the files that the collector reads."""
    return sorted(directory.glob("*.prom"))


def samples(directory: Path, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a metric in all files, by the values of some labels."""
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for file in files(directory)
        for family in text_string_to_metric_families(file.read_text())
        for sample in family.samples
        if sample.name == name
    }


def states(directory: Path) -> dict[str, str]:
    """Return the state of each plugin."""
    found = samples(directory, series.STATE, "plugin", "state")
    return {plugin: state for (plugin, state), value in found.items() if value == 1}


def test_states_counts_and_labels(plugin, measured, directory) -> None:
    """Series tell role, rank, replica and engine; everybody may read the file."""
    plugin("all_up.sh", UP)
    plugin("all_crash.sh", "echo broken; exit 3")
    one = measured({"backoff": {"initial": 0.05, "max": 60}})
    one.wait_for(lambda: states(directory).get("all_up") == "running", 20)
    one.wait_log(r"starting again .*restart 2\)", 20)
    restarts = f"{series.RESTARTS}_total"
    labels = ("plugin", "role", "worker_id", "dp_rank", "engine_pid", "pid_namespace")
    namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    key = ("all_crash", "worker", "0", "0", str(one.pid), namespace)
    one.wait_for(lambda: samples(directory, restarts, *labels).get(key, 0) >= 1, 20)
    one.wait_for(lambda: samples(directory, series.LAST_EXIT, *labels).get(key) == 3, 20)
    assert samples(directory, series.MEMORY, "role")[("worker",)] > 1_000_000
    (file,) = files(directory)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert one.ask("stop", names=["all_up"], wait=True)["ok"]
    one.wait_for(lambda: states(directory)["all_up"] == "stopped", 20)


@pytest.mark.parametrize("ends", ["close", "SIGTERM", "SIGKILL"])
def test_the_file_goes_with_the_engine(plugin, measured, directory, ends) -> None:
    """Whatever ends the engine; nothing else is left in the directory."""
    plugin("all_x.sh", UP)
    one = measured()
    one.wait_for(lambda: states(directory).get("all_x") == "running", 20)
    if ends == "close":
        one.close()
    else:
        one.kill(signal.Signals[ends])
    wait_until(lambda: os.listdir(directory) == [], 20)


def test_a_killed_supervisor_is_continued(plugin, measured, directory) -> None:
    """By the next one, in the same file; a counter never falls while the engine lives."""
    plugin("all_x.sh", "seq 50")
    one = measured({"restart": "never"})
    name = f"{series.LINES}_total"
    one.wait_for(lambda: samples(directory, name, "plugin").get(("all_x",)) == 50, 20)
    supervisor = one.supervisor()
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: gone(supervisor), 20)
    one.wait_for(lambda: samples(directory, name, "plugin").get(("all_x",)) == 100, 20)
    assert len(files(directory)) == 1
    one.close()
    wait_until(lambda: os.listdir(directory) == [], 20)


def test_engine_and_supervisor_killed_together(plugin, measured, directory) -> None:
    """The next engine that writes there removes what they left."""
    plugin("all_x.sh", UP)
    first = measured()
    first.wait_for(lambda: states(directory).get("all_x") == "running", 20)
    (left,) = files(directory)
    supervisor = first.supervisor()
    os.kill(supervisor, signal.SIGSTOP)
    first.kill()
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: gone(supervisor), 20)
    assert files(directory) == [left]
    second = measured(worker_id=1, worker_count=2)
    second.wait_for(lambda: files(directory) and left not in files(directory), 20)


def test_reload(plugin, plugins, measured, directory) -> None:
    """The series of a removed plugin end; those of a changed one continue."""
    plugin("all_x.sh", "seq 50")
    plugin("all_y.sh", UP)
    one = measured({"restart": "never"})
    name = f"{series.LINES}_total"
    one.wait_for(lambda: samples(directory, name, "plugin").get(("all_x",)) == 50, 20)
    plugin("all_x.sh", "seq 7")
    (plugins / "all_y.sh").unlink()
    one.ask("reload")
    one.wait_for(lambda: samples(directory, name, "plugin").get(("all_x",)) == 57, 20)
    one.wait_for(lambda: states(directory) == {"all_x": "exited"}, 20)


def test_odd_names(plugin, plugins, measured, directory) -> None:
    """Quotes, backslashes and bytes that are no text do not break the file."""
    os.rename(plugin("all_x.sh", UP), os.fsencode(plugins) + b'/all_\xff"\\\n.sh')
    one = measured()
    one.wait_for(lambda: "running" in states(directory).values(), 20)
    (name,) = states(directory)
    assert "\\xff" in name
    assert '"' in name


def test_a_directory_that_comes_later(plugin, measured, directory) -> None:
    """One warning, and the plugins run; the file is there once it can be written."""
    plugin("all_x.sh", UP)
    directory.rmdir()
    one = measured()
    one.wait_log(r"\] up ", 20)
    one.wait_log(
        f"Cannot write metrics of plugins to '{directory}': No such file or directory; "
        "the next attempt is in 15 s",
        20,
    )
    assert one.ask("restart", names=["all_x"], wait=True)["ok"]
    assert one.log().count("Cannot write metrics") == 1
    directory.mkdir()
    assert one.ask("restart", names=["all_x"], wait=True)["ok"]
    one.wait_for(lambda: states(directory).get("all_x") == "running", 20)


def test_what_others_left(directory) -> None:
    """Files of dead engines are removed, and those that nobody has written for ten minutes."""
    other = "1.2.3.ab"  # of another container
    names = [f"{series.MARK}.{run}.worker-0.prom" for run in (dead_run_id(), new_run_id(), other)]
    old = f"{series.MARK}.1.2.4.ab.worker-0.prom"
    for name in (*names, old, "node.prom"):
        (directory / name).touch()
    for name in (old, "node.prom"):
        os.utime(directory / name, (0, time.time() - 700))
    plan.clear_dead(str(directory))
    assert sorted(os.listdir(directory)) == sorted([*names[1:], "node.prom"])


def test_a_file_that_cannot_be_written_is_tried_again(directory, mocker) -> None:
    """Also if no descriptor is left to read the supervisor's memory."""
    mocker.patch.object(text_file, "resident", side_effect=[OSError(24, "too many"), 1, 1])
    warnings: list[str] = []
    planned = PlannedMetrics(str(directory), None, {})
    file = text_file.TextFile(Loop(print), [], planned, "run.worker-0", warnings.append)
    assert files(directory) == []
    assert "too many; the next attempt is in 15 s" in warnings[0]
    file._tick()
    assert len(files(directory)) == 1
    file.close()
