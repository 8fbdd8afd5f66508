# SPDX-License-Identifier: Apache-2.0
"""What ``run`` and ``logs`` show on a terminal, and a trial of single files."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_under_test import OnTerminal, Running, until

PLUGIN = "trap 'echo goodbye; exit' TERM\necho up\necho '<3>bad'\nsleep 300 & wait\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A plugin of worker 0."""
    path = tmp_path / "worker_0_x.sh"
    path.write_text(PLUGIN)
    return path


def test_run_on_a_terminal(file: Path) -> None:
    """Process, plugin and text; the plugin's colour; the level's colour; nothing is lost."""
    with OnTerminal("run", file) as running:
        until(lambda: "bad" in running.stdout, "the plugin's lines")
        assert running.stop() == 0
    lines = running.stdout.splitlines()
    assert lines[0].endswith(f": stand-in engines for '{file}'")
    assert "worker 0 | worker_0_x | up" in lines
    assert "worker 0 | worker_0_x | bad" in lines
    assert any(line.startswith("worker 0 | worker_0_x      | Stopped: ") for line in lines)
    assert any(line.startswith("worker 0 | worker_0_x      | goodbye") for line in lines)
    assert lines[-1].startswith("Stopped after ")
    assert "LMCache" not in running.log
    assert "\x1b[36mworker 0 | worker_0_x |\x1b[0m up\n" in running.log
    assert "|\x1b[0m \x1b[31mbad\x1b[0m\n" in running.log
    assert not running.processes()


def test_run_on_a_terminal_without_colours(file: Path) -> None:
    """``NO_COLOR`` is respected."""
    with OnTerminal("run", file, "--for", "1", env={"NO_COLOR": "1"}) as running:
        assert running.wait() == 0
    assert "\x1b" not in running.log
    assert "worker 0 | worker_0_x | up\n" in running.log


def test_lmcaches_form_on_a_terminal(file: Path) -> None:
    """As in an engine's log, with LMCache's colours."""
    with OnTerminal("run", file, "--for", "1", "--format", "lmcache") as running:
        assert running.wait() == 0
    assert "LMCache INFO: [worker_0_x] up (worker_0_x.sh:" in running.stdout
    assert "worker 0 |" not in running.stdout


def test_lmcaches_form_is_that_of_files_and_pipes(file: Path, tmp_path: Path) -> None:
    """Unless the short form is chosen."""
    with Running(tmp_path, file, "--for", "1") as running:
        assert running.wait() == 0
        assert "LMCache INFO: [worker_0_x] up (worker_0_x.sh:" in running.log
    with Running(tmp_path, file, "--for", "1", "--format", "short") as running:
        assert running.wait() == 0
        assert "worker 0 | worker_0_x | up\n" in running.log
        assert "LMCache INFO" not in running.log


def test_killed_with_a_terminal(file: Path) -> None:
    """The reader of the log is gone, too: the plugins end all the same."""
    with OnTerminal("run", file) as running:
        until(lambda: "bad" in running.stdout, "the plugin's lines")
        running.process.kill()
        running.until_nothing_is_left()


def test_logs_on_a_terminal(file: Path, tmp_path: Path) -> None:
    """Followed lines are in the short form, stored lines have their time."""
    env = {"LMCACHE_PLUGINS_RUNTIME_DIR": str(tmp_path / "run")}
    (tmp_path / "run").mkdir(mode=0o700)
    with Running(tmp_path, file, env=env) as running:
        running.until_logged("bad")
        with OnTerminal("logs", "-f", env=env) as follower:
            until(lambda: "bad" in follower.stdout, "the plugin's lines")
            assert follower.stdout == "worker 0 | worker_0_x | up\nworker 0 | worker_0_x | bad\n"
            assert follower.log.startswith("\x1b[36mworker 0 | worker_0_x |\x1b[0m up\n")
            assert follower.stop() == 130
        with OnTerminal("logs", env=env) as once:
            assert once.wait() == 0
        assert [line[23:] for line in once.stdout.splitlines()] == [
            " [worker_0_x] up",
            " [worker_0_x] bad",
        ]
        assert running.stop() == 0


def test_a_trial_of_one_file(tmp_path: Path) -> None:
    """Without a configuration, and without a role in its name."""
    (tmp_path / "mine.py").write_text(
        "import os\n"
        "print('role', os.environ['LMCACHE_RUNTIME_PLUGIN_ROLE'], flush=True)\n"
        "print('file', os.environ.get('LMCACHE_CONFIG_FILE'), flush=True)\n"
    )
    with Running(tmp_path, "mine.py", cwd=tmp_path) as running:
        running.until_logged("[mine] role WORKER")
        running.until_logged("[mine] file None")
        assert "note: 'mine.py' runs in this trial only: " in running.log
        assert "Running worker 0; Ctrl-C stops it.\n" in running.stdout
        assert running.stop() == 0


def test_a_trial_with_the_settings_of_a_configuration(file: Path, tmp_path: Path) -> None:
    """The plugins of its locations do not run."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "all_y.sh").write_text(PLUGIN)
    config = tmp_path / "lmcache.yaml"
    config.write_text(
        f"runtime_plugin_locations: [{tmp_path}/other]\n"
        "extra_config: {runtime_plugins: {plugins: {worker_0_x: {env: {A: b}}}}}\n"
    )
    file.write_text("echo A is $A; exec sleep 300\n")
    with Running(tmp_path, "-c", config, file) as running:
        running.until_logged("[worker_0_x] A is b")
        assert running.stop() == 0
        assert "all_y" not in running.log


def test_a_trial_of_a_servers_plugin(tmp_path: Path) -> None:
    """Its stand-in is LMCache's server."""
    (tmp_path / "server_x.sh").write_text(PLUGIN)
    with Running(tmp_path, tmp_path / "server_x.sh") as running:
        running.until_logged("[server_x] up")
        assert "Running server; " in running.stdout
        assert running.stop() == 0
