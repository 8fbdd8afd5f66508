# SPDX-License-Identifier: Apache-2.0
"""A mistake in the configuration is logged in full by one process of a replica."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_under_test import Running

from lmcache_plugin_adapter.linux.procfs import Process
from lmcache_plugin_adapter.supervisor.planning import replica_reports
from lmcache_plugin_adapter.supervisor.planning.replica_reports import is_same_replica

MISTAKES = (
    "Unknown setting 'extra_config.runtime_plugins.restrat' has no effect",
    "Cannot use 'runtime_plugin_locations[1]': ",
    "/woker_x.sh' does not run",
    "Setting 'extra_config.runtime_plugins.plugins.nosuch' has no effect",
    "Plugin 'all_y': ",  # its interpreter is missing
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a mistake of each kind."""
    (tmp_path / "plugins").mkdir()
    for name in ("all_x.sh", "woker_x.sh"):
        (tmp_path / "plugins" / name).write_text("echo up; exec sleep 300\n")
    (tmp_path / "plugins" / "all_y.sh").write_text("#!/no/such/shell\nexec sleep 300\n")
    path = tmp_path / "lmcache.yaml"
    path.write_text(
        f"runtime_plugin_locations: [{tmp_path}/plugins, 7]\n"
        "extra_config: {runtime_plugins: {restrat: never, plugins: {nosuch: {enabled: true}}}}\n"
    )
    return path


def test_once_for_all_processes(config: Path, tmp_path: Path) -> None:
    """The others log how many problems they have left out."""
    with Running(tmp_path, "-c", config, "--tp", "3") as running:
        running.until_logged("[all_x] up", times=4)
        assert running.stop() == 0
        log = running.log
    for text in MISTAKES:
        assert log.count(text) == 1, text
    debug = re.findall(
        r"LMCache DEBUG: \[lmcache-plugins\] (\d+) problems? .*: see the log of (.*) \(", log
    )
    left_out = (4 - 1) * len(MISTAKES)  # each by all processes but one
    assert sum(int(number) for number, _ in debug) == left_out


def test_in_full_at_debug_level(config: Path, tmp_path: Path) -> None:
    """If debug records are requested, each process logs all texts."""
    env = {"LMCACHE_LOG_LEVEL": "debug"}
    with Running(tmp_path, "-c", config, env=env) as running:
        running.until_logged("[all_x] up", times=2)
        assert running.stop() == 0
        lines = running.log.splitlines()
    for text in MISTAKES:
        levels = [line.split()[3] for line in lines if text in line]
        urgent = "ERROR:" if text.startswith("Cannot") else "WARNING:"
        assert sorted(levels) == ["DEBUG:", urgent], text


def test_one_process_alone_logs_all(config: Path, tmp_path: Path) -> None:
    """Whichever it is."""
    with Running(
        tmp_path, "-c", config, "--role", "worker", "--worker-id", "2", "--tp", "4"
    ) as one:
        one.until_logged("[all_x] up")
        assert one.stop() == 0
        for text in MISTAKES:
            assert one.log.count(text) == 1, text


@pytest.mark.parametrize(
    ("name", "other", "same"),
    [
        ("1.10.5.aa.scheduler", "1.11.6.bb.worker-0", True),  # a child
        ("1.11.6.bb.worker-0", "1.12.6.cc.worker-1", True),  # of the same parent
        ("1.10.5.aa.scheduler", "1.10.5.dd.worker-0", True),  # in one process
        ("1.10.5.aa.scheduler", "1.20.5.aa.worker-0", False),  # of another engine
        ("1.11.6.bb.worker-0", "1.12.6.cc.worker-0", False),  # as no replica has it
        ("1.30.6.bb.worker-0", "1.31.6.cc.worker-1", False),  # orphans
        ("1.11.6.bb.dp-0-worker-0", "1.12.6.cc.dp-1-worker-1", False),
        ("1.11.6.bb.dp-1-worker-0", "1.12.6.cc.dp-1-worker-1", True),
        ("1.11.6.bb.worker-0", "reported", False),
    ],
)
def test_processes_of_one_replica(monkeypatch, name: str, other: str, same: bool) -> None:
    """By the parents of the engine processes."""
    parents = {10: 9, 11: 10, 12: 10, 20: 19, 30: 1, 31: 1}

    def read_process(pid: int) -> Process | None:
        return Process(pid, "S", parents[pid], pid, pid, 1, 5) if pid in parents else None

    monkeypatch.setattr(replica_reports, "read_process", read_process)
    assert is_same_replica(name, other) is same
    assert is_same_replica(other, name) is same
