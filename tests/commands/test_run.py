# SPDX-License-Identifier: Apache-2.0
"""``lmcache-plugins run``, as a real process with real plugins."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from cli_under_test import ROOT, Running, command, until

from lmcache_plugin_adapter.cli.console import listed
from lmcache_plugin_adapter.cli.inputs import UsageError
from lmcache_plugin_adapter.cli.run.stand_ins import StandIns
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.hosts import standin

if TYPE_CHECKING:
    from pathlib import Path

TELLS = """#!/bin/sh
trap 'echo goodbye; kill "$sleeper"; exit 0' TERM
sleep 300 & sleeper=$!
echo "I am $LMCACHE_RUNTIME_PLUGIN_ROLE $LMCACHE_RUNTIME_PLUGIN_WORKER_ID" \
    "of $LMCACHE_RUNTIME_PLUGIN_WORKER_COUNT"
wait
"""
IGNORES_TERM = "#!/bin/sh\ntrap '' TERM\necho deaf\nwhile :; do sleep 300; done\n"


def configuration(directory: Path, plugin: str, **settings: object) -> Path:
    """Write a plugin for every process and a configuration that names it."""
    plugins = directory / "plugins"
    plugins.mkdir()
    (plugins / "all_x.sh").write_text(plugin)
    path = directory / "lmcache.yaml"
    content = {
        "runtime_plugin_locations": [str(plugins)],
        "extra_config": {"runtime_plugins": settings},
    }
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def stand_in(running: Running, label: str) -> int:
    """Return the pid of one stand-in engine."""
    end = f"standin.py {label} "
    (pid,) = [pid for pid, line in running.processes().items() if line.endswith(end)]
    return pid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_with_a_goodbye_each_and_is_a_success(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C reaches the foreground process group, which is ``run`` alone."""
    with Running(tmp_path, "-c", configuration(tmp_path, TELLS), "--tp", "2") as running:
        for who in ("SCHEDULER -1 of 2", "WORKER 0 of 2", "WORKER 1 of 2"):
            running.until_logged(f"[all_x] I am {who}")
        os.killpg(running.process.pid, number)
        assert running.wait() == 0
        assert running.log.count("[all_x] goodbye") == 3
        assert not running.processes()
        assert "running scheduler, worker 0 and worker 1" in running.stdout.lower()
        assert "no process is left" in running.stdout


def test_ctrl_c_reaches_no_plugin_and_no_stand_in(tmp_path: Path) -> None:
    """Only ``run`` is in the terminal's foreground group: only it decides."""
    with Running(tmp_path, "-c", configuration(tmp_path, TELLS)) as running:
        running.until_logged("I am", times=2)
        others = [pid for pid in running.processes() if pid != running.process.pid]
        seen = set()
        for pid in others:
            with contextlib.suppress(ProcessLookupError):  # a search that has ended meanwhile
                seen.add((os.getpgid(pid), os.getsid(pid)))
        assert len(seen) >= 2 + 2
        assert running.process.pid not in {number for pair in seen for number in pair}


def test_a_second_ctrl_c_does_not_wait_for_the_grace_period(tmp_path: Path) -> None:
    """A plugin that ignores SIGTERM for ten minutes is gone at once, and so is all else."""
    config = configuration(tmp_path, IGNORES_TERM, stop_grace=600)
    with Running(tmp_path, "-c", config) as running:
        running.until_logged("deaf", times=2)
        running.process.send_signal(signal.SIGINT)
        until(lambda: "a second Ctrl-C" in running.stdout, "the first Ctrl-C is answered")
        running.until_logged("Stopping 1 plugin", times=2)
        running.process.send_signal(signal.SIGINT)
        assert running.wait() == 0
        assert not running.processes()
        # The supervisors were left to end in order: they have said what became of the plugins.
        assert running.log.count("[all_x] Stopped: killed by SIGKILL") == 2


def test_sigkill_of_run_takes_everything_along_after_a_warning(tmp_path: Path) -> None:
    """Nothing can be caught; the plugins have their SIGTERM all the same."""
    with Running(tmp_path, "-c", configuration(tmp_path, TELLS), "--tp", "2") as running:
        running.until_logged("I am", times=3)
        running.process.kill()
        running.until_nothing_is_left()
        assert running.log.count("[all_x] goodbye") == 3


def test_a_stand_in_that_is_killed_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    """Its plugins go, as an engine's would; the exit status tells."""
    with Running(tmp_path, "-c", configuration(tmp_path, TELLS)) as running:
        running.until_logged("I am", times=2)
        victim = stand_in(running, "worker 0")
        os.kill(victim, signal.SIGKILL)
        running.until_logged("error: stand-in engine of worker 0 exited on its own")
        running.until_logged("goodbye")
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGINT)
        assert running.wait() == 1
        assert running.log.count("goodbye") == 2
        assert not running.processes()


def test_run_ends_when_every_stand_in_has_failed(tmp_path: Path) -> None:
    """With no engine there is nothing to wait for."""
    with Running(tmp_path, "-c", configuration(tmp_path, TELLS), "--role", "scheduler") as running:
        running.until_logged("I am")
        assert "Running scheduler; Ctrl-C stops it.\n" in running.stdout
        victim = stand_in(running, "scheduler")
        os.kill(victim, signal.SIGKILL)
        assert running.wait() == 1
        assert not running.processes()


def test_one_role_alone(tmp_path: Path) -> None:
    """``--role`` stands in for one process of an engine of any size."""
    config = configuration(tmp_path, TELLS)
    options = ("--role", "worker", "--worker-id", "3", "--worker-count", "8")
    with Running(tmp_path, "-c", config, *options) as running:
        running.until_logged("I am WORKER 3 of 8")
        assert running.stop() == 0
        assert "SCHEDULER" not in running.log


def test_for_ends_by_itself(tmp_path: Path) -> None:
    """``--for`` is what tests and scripts use in the place of Ctrl-C."""
    with Running(tmp_path, "-c", configuration(tmp_path, TELLS), "--for", "8") as running:
        running.until_logged("I am", times=2)
        assert running.wait() == 0
        assert running.log.count("goodbye") == 2


def test_for_nothing_is_harmless(tmp_path: Path) -> None:
    """Stopping while everything is still starting leaves nothing behind either."""
    with Running(tmp_path, "-c", configuration(tmp_path, TELLS), "--for", "0") as running:
        assert running.wait() == 0
        assert not running.processes()


def test_nohup_and_background_jobs_ignore_what_their_shell_ignores(tmp_path: Path) -> None:
    """A signal that was ignored from the start is for somebody else."""
    config = configuration(tmp_path, TELLS)
    ignoring = ("sh", "-c", 'trap "" INT HUP; exec "$@"', "sh")
    with Running(tmp_path, "-c", config, prefix=ignoring) as running:
        running.until_logged("I am", times=2)
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGHUP)
        running.process.send_signal(signal.SIGTERM)
        assert running.wait() == 0
        assert "goodbye" in running.log
        assert running.stdout.count("Stopping") == 1


def test_it_ends_where_its_starter_ignores_the_end_of_children(tmp_path: Path) -> None:
    """The kernel would reap them unseen, and nothing would tell that the last one is gone."""
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    config = configuration(tmp_path, TELLS)
    ignoring = (sys.executable, "-c", code)
    with Running(tmp_path, "-c", config, "--for", "1", prefix=ignoring) as running:
        assert running.wait() == 0
        assert "no process is left" in running.stdout


def test_a_reader_of_stdout_that_went_away_changes_nothing(tmp_path: Path) -> None:
    """``run | head -1`` must not end in a traceback, nor leave plugins behind."""
    config = configuration(tmp_path, TELLS)
    closing = ("sh", "-c", 'set -o pipefail; "$@" | :', "sh")
    with Running(tmp_path, "-c", config, prefix=("bash", *closing[1:])) as running:
        running.until_logged("I am", times=2)
        assert running.stop() == 0
        assert running.log.count("goodbye") == 2
        assert "Traceback" not in running.log
        assert "Broken" not in running.log


def test_plugins_see_the_configuration_that_run_was_given(tmp_path: Path) -> None:
    """A real engine has it in this variable, which a plugin may use."""
    config = configuration(tmp_path, '#!/bin/sh\necho "file $LMCACHE_CONFIG_FILE"\n')
    with Running(tmp_path, "-c", "lmcache.yaml", cwd=tmp_path) as running:
        running.until_logged(f"file {config}")
        assert running.stop() == 0


def test_the_configuration_may_come_from_the_environment(tmp_path: Path) -> None:
    """As LMCache finds it."""
    config = configuration(tmp_path, TELLS)
    with Running(tmp_path, env={"LMCACHE_CONFIG_FILE": str(config)}) as running:
        running.until_logged("I am WORKER 0 of 1")
        assert running.stop() == 0


def test_a_module_in_the_working_directory_is_not_imported(tmp_path: Path) -> None:
    """Plugin authors have files of every name around."""
    config = configuration(tmp_path, TELLS)
    for name in ("json", "signal", "yaml", "settings", "loop"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported by mistake')\n")
    # As the installed command does it: without the working directory in front of the path.
    start = "import sys; del sys.path[0]; from lmcache_plugin_adapter.cli.main import main; main()"
    with Running(
        tmp_path, "-c", config, cwd=tmp_path, program=(sys.executable, "-c", start)
    ) as running:
        running.until_logged("I am WORKER 0 of 1")
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("chunk_size: 256\nextra_config: {a: [1, 2}\n", "2:"),
        ("a: b: c\n", "1:5"),
        ("\tchunk_size: 1\n", "1:1"),
    ],
)
def test_malformed_yaml_is_one_line_with_file_line_and_column(
    tmp_path: Path, content: str, where: str
) -> None:
    """Editors and people jump to ``FILE:LINE:COLUMN``."""
    path = tmp_path / "lmcache.yaml"
    path.write_text(content)
    result = command("run", "-c", path)
    assert result.returncode == 2
    assert f"{path}:{where}" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no 'runtime_plugin_locations'"),
        ("runtime_plugin_locations: []", "no 'runtime_plugin_locations'"),
        (
            "runtime_plugin_locations: [x]\nextra_config: {runtime_plugins: {enabled: false}}",
            "'extra_config.runtime_plugins.enabled' is false",
        ),
    ],
)
def test_nothing_to_run_is_said_at_once(tmp_path: Path, content: str, said: str) -> None:
    """Stand-ins that wait for nothing would help nobody."""
    path = tmp_path / "lmcache.yaml"
    path.write_text(content)
    result = command("run", "-c", path)
    assert result.returncode == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name one with -c FILE or in LMCACHE_CONFIG_FILE"),
        (("-c", "missing.yaml"), "missing.yaml"),
        (("-c", "/"), "/: cannot read the file"),
        (("-c", "configs/lmcache.yaml", "--worker-id", "0"), "--role"),
        (("-c", "configs/lmcache.yaml", "--worker-count", "2"), "--role"),
        (
            ("-c", "configs/lmcache.yaml", "--role", "worker", "--worker-id", "2", "--tp", "2"),
            "no worker 2 among 2: ranks are 0 to 1",
        ),
        (
            ("-c", "configs/lmcache.yaml", "--role", "scheduler", "--worker-id", "0"),
            "found --role scheduler",
        ),
        (("-c", "configs/lmcache.yaml", "--role", "woker"), "woker"),
        (("-c", "configs/lmcache.yaml", "--tp", "0"), "--tp"),
        (("--tp", "many"), "'many'"),
        (("--worker-id=-2",), "-2"),
        (("--role", "workers"), "--role': 'workers' is not one of 'scheduler'"),
        (("configs/lmcache.yaml",), "a configuration is given as '-c configs/lmcache.yaml'"),
        (("-c", "configs/lmcache.yaml", "--for", "-1"), "--for"),
    ],
)
def test_a_wrong_command_line_says_why_with_status_2(arguments: tuple[str, ...], said: str) -> None:
    """Nothing is started, and no traceback is shown."""
    result = command("run", *arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_who_the_stand_ins_are() -> None:
    """A scheduler and TP x PP workers, or the one that was named."""
    everyone = StandIns(world_size=2).identities()
    assert everyone == [
        ProcessIdentity(Role.SCHEDULER, -1, 2),
        ProcessIdentity(Role.WORKER, 0, 2),
        ProcessIdentity(Role.WORKER, 1, 2),
    ]
    assert StandIns(4, role=Role.WORKER).identities() == [ProcessIdentity(Role.WORKER, 0, 4)]
    assert StandIns(4, role=Role.SCHEDULER).identities() == [ProcessIdentity(Role.SCHEDULER, -1, 4)]
    with pytest.raises(UsageError):
        StandIns(4, role=Role.WORKER, worker_id=4).identities()


def test_an_assignment_survives_the_pipe() -> None:
    """Also a configuration that no encoding can hold."""
    identity = ProcessIdentity(Role.WORKER, 1, 2, dp_rank=1, dp_size=2)
    sent = standin.Assignment(identity, ["a", "b"], {"c": None}, '{"x": "é\udcff"}')
    assert standin.Assignment.from_line(sent.to_line()) == sent


def test_listed() -> None:
    """Words as people list them."""
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    """A stand-in is started by its file: its directory is first in the path for a moment."""
    names = {path.stem for path in (ROOT / "lmcache_plugin_adapter" / "hosts").glob("*.py")}
    assert not names & set(sys.stdlib_module_names)
