# SPDX-License-Identifier: Apache-2.0
"""Metrics of plugins, as prometheus_client's multiprocess collector reads them (vLLM's way)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Engine, gone, wait_until
from prometheus_client import CollectorRegistry, generate_latest, mmap_dict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from lmcache_plugin_adapter.contract.planned_plugin import PlannedMetrics
from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.contract.run_token import new_run_id
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.supervisor.metrics import multiprocess_files, series
from lmcache_plugin_adapter.supervisor.metrics.plan import clear_dead

UP = "echo up; exec sleep 60"
ON = {"metrics": True}

Samples = dict[tuple[str, ...], float]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """``PROMETHEUS_MULTIPROC_DIR``."""
    path = tmp_path / "prometheus"
    path.mkdir()
    return path


@pytest.fixture
def measured(engine, directory) -> Callable[..., Engine]:
    """Start engines that export metrics."""
    env = {"PROMETHEUS_MULTIPROC_DIR": str(directory)}
    return lambda settings=None, **options: engine({**ON, **(settings or {})}, env=env, **options)


def scrape(directory: Path) -> str:
    """Return what vLLM would answer."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))
    return generate_latest(registry).decode()


def samples(directory: Path, name: str, *labels: str) -> Samples:
    """Return the samples of a metric by the values of some labels."""
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in text_string_to_metric_families(scrape(directory))
        for sample in family.samples
        if sample.name == name
    }


def state(directory: Path, plugin: str, worker: int = 0) -> str | None:
    """Return the state that is 1; exactly one may be."""
    found = samples(directory, series.STATE, "plugin", "worker_id", "state")
    (one,) = [
        key[2] for key, value in found.items() if key[:2] == (plugin, str(worker)) and value == 1
    ] or [None]
    return one


def test_state_restarts_and_exit(plugin, measured, directory) -> None:
    """States come at once; each series says role, rank and replica."""
    plugin("all_up.sh", UP)
    plugin("all_crash.sh", "exit 3")
    one = measured({"backoff": {"initial": 0.05, "max": 60}})
    one.wait_for(lambda: state(directory, "all_up") == "running")
    one.wait_log(r"starting again .*restart 2\)")
    key = ("all_crash", "worker", "0", "0")
    labels = ("plugin", "role", "worker_id", "dp_rank")
    restarts = f"{series.RESTARTS}_total"
    one.wait_for(lambda: samples(directory, restarts, *labels).get(key, 0) >= 1)
    assert samples(directory, series.LAST_EXIT, *labels)[key] == 3
    assert ("all_up", "worker", "0", "0") not in samples(directory, series.LAST_EXIT, *labels)
    assert samples(directory, series.MEMORY, *labels[1:])["worker", "0", "0"] > 1_000_000
    states = samples(directory, series.STATE, "plugin", "state")
    assert {key[1] for key in states if key[0] == "all_up"} == {one.value for one in State}
    one.ask("stop", names=["all_up"], wait=True)
    assert state(directory, "all_up") == "stopped"


def test_types_and_help(plugin, measured, directory) -> None:
    """Names follow the conventions: counters end in _total, units are in the name."""
    plugin("all_up.sh", UP)
    measured()
    wait_until(lambda: samples(directory, series.MEMORY))  # written last
    text = scrape(directory)
    for name, help_text in series.HELP.items():
        if name not in (series.LAST_EXIT, series.READY, series.SUCCESS):
            assert help_text in text
    for name in (series.RESTARTS, series.LINES, series.DROPPED):
        assert f"# TYPE {name}_total counter" in text
    for name in (series.STATE, series.MEMORY):
        assert f"# TYPE {name} gauge" in text


def test_lines_and_drops(plugin, measured, directory) -> None:
    """Counts of lines are at most a tick behind; what the rate limit held back is in drops."""
    plugin("all_x.sh", "seq 100; exec sleep 60")
    one = measured({"rate_limit": {"lines": 1, "burst": 10, "per": 3600}})
    name = f"{series.LINES}_total"
    one.wait_for(lambda: samples(directory, name, "plugin").get(("all_x",)) == 100, 15)
    one.ask("restart", names=["all_x"], wait=True)
    assert one.ask("status")["plugins"][0]["lines"] >= 100


def test_several_engines_and_their_end(plugin, measured, directory) -> None:
    """Each process has series of its own; the files go with it, a killed engine's too."""
    plugin("all_x.sh", UP)
    engines = [measured(worker_count=2) for _ in range(2)]
    for number, one in enumerate(engines):
        one.wait_for(lambda number=number: state(directory, "all_x", number) == "running")
    assert len(os.listdir(directory)) == 4
    engines[0].kill(signal.SIGKILL)
    wait_until(lambda: len(os.listdir(directory)) == 2)
    engines[1].close()
    wait_until(lambda: os.listdir(directory) == [])


def test_counters_go_on_after_a_killed_supervisor(plugin, measured, directory) -> None:
    """A counter never falls while the engine lives."""
    plugin("all_x.sh", "seq 50")
    one = measured({"restart": "never"})
    name = f"{series.LINES}_total"
    one.wait_for(lambda: samples(directory, name, "plugin").get(("all_x",)) == 50, 15)
    supervisor = one.supervisor()
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: gone(supervisor))
    one.wait_for(lambda: samples(directory, name, "plugin").get(("all_x",)) == 100, 15)
    assert len(os.listdir(directory)) == 2


def test_reload_ends_and_continues_series(plugin, plugins, measured, directory) -> None:
    """A removed plugin is in no state any more; a changed one goes on counting."""
    plugin("all_x.sh", "seq 50")
    plugin("all_y.sh", UP)
    one = measured({"restart": "never"})
    name = f"{series.LINES}_total"
    one.wait_for(lambda: samples(directory, name, "plugin").get(("all_x",)) == 50, 15)
    plugin("all_x.sh", "seq 7")
    (plugins / "all_y.sh").unlink()
    one.ask("reload")
    one.wait_for(lambda: samples(directory, name, "plugin").get(("all_x",)) == 57, 15)
    one.wait_for(lambda: state(directory, "all_y") is None, 15)
    one.wait_for(lambda: state(directory, "all_x") == "exited")


def test_odd_names_do_not_break_the_page(plugin, plugins, measured, directory) -> None:
    """Bytes that are no text are escaped: vLLM's page must be encodable."""
    os.rename(plugin("all_x.sh", UP), os.fsencode(plugins) + b'/all_\xff"\n.sh')
    measured().wait_log(r"\] up ")
    wait_until(lambda: samples(directory, series.STATE, "plugin"))
    ((name,), *_) = samples(directory, series.STATE, "plugin")
    assert "\\xff" in name


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({}, "PROMETHEUS_MULTIPROC_DIR is not set"),
        ({"PROMETHEUS_MULTIPROC_DIR": "/nowhere"}, "is no directory: '/nowhere'"),
    ],
)
def test_where_it_cannot_be(plugin, engine, env, reason) -> None:
    """One warning with the mend; the plugins run."""
    plugin("all_x.sh", UP)
    one = engine(ON, env={"PROMETHEUS_MULTIPROC_DIR": None, **env})
    one.wait_log(rf"No metrics of plugins: .*{reason}")
    one.wait_log(r"\] up ")


def test_without_prometheus_client(plugin, measured, directory) -> None:
    """The engine has none: one warning; the plugins run."""
    plugin("all_x.sh", UP)
    one = measured(prelude="import sys; sys.modules['prometheus_client'] = None")
    one.wait_log("No metrics of plugins: the engine's Python has no prometheus_client")
    one.wait_log(r"\] up ")


def test_full_disk_costs_metrics_only(plugin, measured, directory) -> None:
    """Room is taken before anything is written through memory, which would kill."""
    plugin("all_x.sh", UP)
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"  # < 64 KiB
    )
    one = measured(prelude=program)
    one.wait_log("No metrics of plugins: .*File too large")
    one.wait_log(r"\] up ")


def test_off_means_no_trace(plugin, engine, directory) -> None:
    """By default nothing is written, and nothing of it is loaded."""
    plugin("all_x.sh", UP)
    one = engine(env={"PROMETHEUS_MULTIPROC_DIR": str(directory)})
    one.wait_log(r"\] up ")
    one.ask("status")
    assert os.listdir(directory) == []
    maps = Path(f"/proc/{one.supervisor()}/maps").read_text()
    assert "prometheus" not in maps
    program = "import sys, lmcache_plugin_adapter.supervisor.supervisor; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "lmcache_plugin_adapter.supervisor.metrics.multiprocess_files" not in done.stdout.split()


class Moving:
    """A plugin whose state is set by hand."""

    name = "all_x"
    state = State.STARTING
    last_exit = None
    last_success = None
    ready = None
    restarts = types.SimpleNamespace(count=0)
    output = types.SimpleNamespace(lines=0, dropped=0)


def test_metrics_that_cannot_be_written_cost_no_output(plugin, engine, directory, tmp_path) -> None:
    """A plugin whose start cannot be written is read, said to have started, and waited for."""
    plugin("all_x.sh", UP)
    full = tmp_path / "full"
    package = tmp_path / "site" / "prometheus_client"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "mmap_dict.py").write_text(
        f"import os\nexec(open({mmap_dict.__file__!r}).read())\n"
        "class Full(MmapedDict):\n"
        "    def write_value(self, key, value, timestamp):\n"
        f"        if '\"running\"' in key and value and os.path.exists({str(full)!r}):\n"
        "            raise OSError(28, 'No space left on device')\n"
        "        Written.write_value(self, key, value, timestamp)\n"
        "Written, MmapedDict = MmapedDict, Full\n"
    )
    one = engine(
        ON,
        env={"PROMETHEUS_MULTIPROC_DIR": str(directory)},
        prelude=f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})",
    )
    one.wait_log(r"\] up ")
    wait_until(lambda: list(directory.iterdir()))
    full.touch()
    assert one.ask("restart", names=["all_x"], wait=True)["ok"]
    one.wait_for(lambda: one.log().count("[all_x] Started") == 2)
    one.wait_for(lambda: one.log().count("[all_x] up ") == 2)
    assert "No space left on device" in one.log()


def test_never_in_two_states(directory) -> None:
    """Whoever reads between two writes finds a plugin in one state, or in none."""
    plugin: Any = Moving()
    plan = PlannedMetrics(str(directory), mmap_dict.__file__, {"role": "worker"})
    kept: Any = multiprocess_files.Metrics(
        Loop(print), [plugin], plan, mmap_dict.__file__, "run.worker-0"
    )
    write = kept._gauges.write_value
    found = []

    def read_too(*written: object) -> None:
        write(*written)
        found.append(sum(samples(directory, series.STATE, "state").values()))

    kept._gauges.write_value = read_too
    for plugin.state in (State.RUNNING, State.BACKING_OFF, State.STARTING, State.RUNNING):
        kept.changed(plugin)
        assert found[-1] == 1
    assert set(found) == {0, 1}
    for file in (kept, kept._gauges, kept._counters):
        file.close()


def test_an_error_is_reported_once_and_ends_no_updates(directory, mocker) -> None:
    """The next update that succeeds has all values."""
    mocker.patch.object(multiprocess_files, "TICK_SECONDS", 0.01)
    errors: list[BaseException] = []
    loop = Loop(errors.append)
    plan = PlannedMetrics(str(directory), mmap_dict.__file__, {"role": "worker"})
    kept: Any = multiprocess_files.Metrics(loop, [], plan, mmap_dict.__file__, "run.worker-0")
    write = mocker.spy(kept._gauges, "write_value")
    write.side_effect = [OSError(28, "full")] * 3 + [None] * 1000
    loop.call_later(20, loop.stop)

    def stop_after_success() -> None:
        loop.call_later(0.01, stop_after_success)
        if write.call_count > 5:
            loop.stop()

    stop_after_success()
    loop.run()
    assert write.call_count > 5
    assert [str(error) for error in errors] == ["[Errno 28] full"]
    for file in (kept, kept._gauges, kept._counters):
        file.close()


def test_what_dead_engines_left_is_cleared(directory) -> None:
    """Only ours, and only of engines that are gone."""
    namespace, _, _, chance = new_run_id().split(".")
    dead = f"{namespace}.4194304.1.{chance}"
    left = [f"{kind}_{series.MARK}.{dead}.worker-0.db" for kind in ("counter", "gauge_livemax")]
    kept = [f"counter_{series.MARK}.{new_run_id()}.worker-0.db", "counter_4194304.db", "x.db"]
    for name in (*left, *kept):
        (directory / name).touch()
    clear_dead(str(directory))
    assert sorted(os.listdir(directory)) == sorted(kept)


def test_the_last_success_of_scheduled_runs_is_counted(plugin, measured, directory) -> None:
    """A plugin whose runs fail has no series; others have none, either."""
    plugin("all_good.sh", "exit 0")
    plugin("all_bad.sh", "exit 3")
    plugin("all_once.sh", "exit 0")
    every = {"every": "300ms"}
    since = time.time()
    one = measured({"plugins": {"all_good": every, "all_bad": every}})
    one.wait_log(r"\[all_bad\] Exited with code 3")
    one.wait_log(r"\[all_once\] Exited with code 0")

    def seen() -> Samples:
        name = "lmcache_plugin_last_success_timestamp_seconds"
        return samples(directory, name, "plugin")

    first = wait_until(seen, 20)[("all_good",)]
    assert since <= first <= time.time()
    wait_until(lambda: seen()["all_good",] > first, 20)
    assert list(seen()) == [("all_good",)]
