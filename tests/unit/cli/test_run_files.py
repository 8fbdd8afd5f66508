# SPDX-License-Identifier: Apache-2.0
"""A trial of single files: which stand-ins run them, and with which configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmcache_plugin_adapter.cli.inputs import UsageError
from lmcache_plugin_adapter.cli.lmcache_yaml import StandInConfig
from lmcache_plugin_adapter.cli.run.stand_ins import StandIns
from lmcache_plugin_adapter.cli.run.trial import empty_config, empty_server_config, read_trial
from lmcache_plugin_adapter.contract.identity import Role

ONE = StandIns(1)


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch) -> Path:
    """A directory with plugins of all kinds, which is the working directory."""
    programs = "all_x.sh worker_3_x.py scheduler_x.sh server_x.sh scheduler_0_x.sh x.py x"
    for name in (*programs.split(), "x.md"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def processes(*names: str, chosen: StandIns = ONE) -> list[str]:
    """Return the processes that would run."""
    trial = read_trial(names)
    return [one.label for one in trial.identities(trial.stand_ins(chosen).identities())]


def test_only_processes_that_run_one_of_the_files() -> None:
    """A worker's id makes the engine large enough."""
    assert processes("all_x.sh") == ["scheduler", "worker 0"]
    assert processes("all_x.sh", chosen=StandIns(2)) == ["scheduler", "worker 0", "worker 1"]
    assert processes("worker_3_x.py") == ["worker 3"]
    assert processes("worker_3_x.py", "scheduler_x.sh") == ["scheduler", "worker 3"]
    assert processes(".") == ["scheduler", "worker 0"]
    assert read_trial(["server_x.sh"]).stand_ins(StandIns(1)).for_server


def test_a_file_without_a_role_runs_once(files) -> None:
    """A note gives the name with which an engine runs it."""
    assert processes("x.py") == ["worker 0"]
    trial = read_trial(["x.py"])
    config = trial.apply_to(empty_config(["x.py"]))
    assert config.runtime_plugin_locations == [str(files / "x.py")]
    assert config.extra_config == {"runtime_plugins": {"filter_by_role": False}}
    (problem,) = config.problems
    assert problem.level == "note"
    assert "'x.py' runs in this trial only: " in problem.text
    assert "name it 'all_x.py'" in problem.text


def test_settings_of_a_configuration_stay(files) -> None:
    """Only its locations are replaced."""
    given = {"runtime_plugins": {"restart": "never", "locations": ["/a"]}, "mine": 1}
    config = StandInConfig("c", {"chunk_size": 1, "extra_config": given}, ())
    changed = read_trial(["all_x.sh"]).apply_to(config)
    assert isinstance(changed, StandInConfig)
    assert changed.values["chunk_size"] == 1
    assert changed.extra_config == {"runtime_plugins": {"restart": "never"}, "mine": 1}
    assert changed.runtime_plugin_locations == [str(files / "all_x.sh")]


def test_server(files) -> None:
    """Roles apply, as in a location of the adapter's own."""
    config = read_trial(["server_x.sh"]).apply_to(empty_server_config(["server_x.sh"]))
    assert config.runtime_plugin_locations == [str(files / "server_x.sh")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nosuch.py", "no such file: 'nosuch.py'"),
        ("x.md", "cannot run 'x.md': '.md' is documentation or data"),
        ("x", "cannot run 'x': its name starts with no role"),
    ],
)
def test_files_that_cannot_run(name, text) -> None:
    """One line tells why."""
    with pytest.raises(UsageError, match=text.replace("(", r"\(")):
        read_trial([name])


def test_a_process_that_runs_none() -> None:
    """It was chosen on the command line, so it is an error."""
    with pytest.raises(UsageError, match=r"nothing to run on worker 0: 'scheduler_x.sh' runs on"):
        processes("scheduler_x.sh", chosen=StandIns(1, role=Role.WORKER))
    with pytest.raises(UsageError, match=r"'scheduler_0_x.sh': .* name it 'scheduler_x.sh'"):
        processes("scheduler_0_x.sh")
