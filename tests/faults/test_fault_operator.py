# SPDX-License-Identifier: Apache-2.0
"""What an operator asks for holds, whatever happens to the supervisor and the files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import connect, gone
from world import STUBBORN, FaultEngine, World

pytestmark = pytest.mark.ours_only("LMCache's launcher takes no requests")


def state(engine: FaultEngine, name: str = "all_x") -> str:
    """Return the state of a plugin; empty as long as there is none."""
    return str(engine.status(name).get("state", ""))


def reload(world: World, engine: FaultEngine) -> None:
    """Have the supervisor search again."""
    assert engine.ask("reload")["ok"]


def change(world: World, engine: FaultEngine) -> None:
    """Change the plugin's file, and search again."""
    world.python("all_x.py", "polite(); note('up')  # another version\nstay()")
    reload(world, engine)


def remove_and_add(world: World, engine: FaultEngine) -> None:
    """Take the file away, search, put it back, and search."""
    file = world.plugins / "all_x.py"
    text = file.read_text()
    file.unlink()
    reload(world, engine)
    world.file("all_x.py", text)
    reload(world, engine)


def kill(world: World, engine: FaultEngine) -> None:
    """Kill the supervisor; another takes its place."""
    os.kill(world.supervisor_of(engine), signal.SIGKILL)
    world.wait_logged(engine, "was killed")


def kill_twice(world: World, engine: FaultEngine) -> None:
    """Kill two supervisors in a row."""
    kill(world, engine)
    world.wait(lambda: state(engine, "all_y") == "running", "the other one back")
    os.kill(world.supervisor_of(engine), signal.SIGKILL)
    world.wait(lambda: engine.log().count("was killed") == 2, "killed again")


def change_and_kill(world: World, engine: FaultEngine) -> None:
    """Do both."""
    change(world, engine)
    kill(world, engine)


EVENTS = {
    "reload": reload,
    "its file changed, reload": change,
    "its file removed and added again": remove_and_add,
    "the supervisor killed": kill,
    "two supervisors killed": kill_twice,
    "its file changed, the supervisor killed": change_and_kill,
}


@pytest.mark.fault("G2", "stopped by an operator, {}: stays stopped until it is started")
@pytest.mark.parametrize("case", EVENTS.values(), ids=EVENTS)
def test_stopped(world: World, case: Any) -> None:
    """The others come back and run."""
    world.python("all_x.py")
    world.python("all_y.py", "polite(); note('up_y'); stay()")
    engine, (pid,) = world.up()
    world.wait_noted("up_y")
    assert engine.ask("stop", names=["all_x"], wait=True)["ok"]
    assert gone(pid)
    case(world, engine)
    world.wait(lambda: state(engine, "all_y") == "running", "the other one runs")
    assert state(engine) == "stopped"
    assert len(world.noted("up")) == 1
    engine.ask("start", names=["all_x"])
    world.wait_noted("up", 2)
    kill(world, engine)
    world.wait_noted("up", 3)  # started is started


@pytest.mark.fault("G2", "stopped by an operator while it is replaced: stays stopped")
def test_stopped_while_replaced(world: World) -> None:
    """The stop comes while the reload ends the previous version."""
    world.python("all_x.py", STUBBORN)
    engine, (pid,) = world.up(settings={"stop_grace": 2})
    world.python("all_x.py", "polite(); note('new'); stay()")
    assert engine.ask("reload")["restarted"] == ["all_x"]
    engine.ask("stop", names=["all_x"])
    world.wait(lambda: gone(pid), "the previous one killed")
    world.wait(lambda: state(engine) == "stopped", "stopped")
    world.wait_logged(engine, "Not started: it was stopped by request")
    assert not world.noted("new")


@pytest.mark.fault("G9", "more followers of its output than it serves: other requests are answered")
def test_followers(world: World) -> None:
    """Followers never take the last places; a place that is given up is free."""
    world.python("all_x.py")
    engine, (pid,) = world.up()
    request = json.dumps({"op": "logs", "all": True, "follow": True}).encode() + b"\n"
    followers = []
    answers = []
    try:
        for _ in range(60):
            followers.append(connect(engine.control))
            followers[-1].sendall(request)
            answers.append(json.loads(followers[-1].recv(65536).splitlines()[0]))
        assert 8 < sum(answer["ok"] for answer in answers) < 32
        assert "clients follow this supervisor's output already" in answers[-1]["error"]
        assert engine.ask("status")["ok"]
        assert state(engine) == "running"
        assert engine.ask("stop", all=True, wait=True)["ok"]
        assert gone(pid)
    finally:
        for follower in followers:
            follower.close()

    def follows() -> bool:
        with connect(engine.control) as one:
            one.sendall(request)
            return bool(json.loads(one.recv(65536).splitlines()[0])["ok"])

    world.wait(follows, "a place for a follower")


def commands(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as the engine's user."""
    return subprocess.run(
        [sys.executable, "-m", "lmcache_plugin_adapter", *words],
        env={**os.environ, "LMCACHE_PLUGINS_RUNTIME_DIR": str(world.directory / "run")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def remove_root(run: Path) -> None:
    """Remove the runtime directory."""
    shutil.rmtree(run)


def remove_instance(run: Path) -> None:
    """Remove the supervisor's directory."""
    for path in run.iterdir():
        shutil.rmtree(path)


def remove_files(run: Path) -> None:
    """Remove the files, as cleaners do that go by age."""
    for path in run.glob("*/*"):
        path.unlink()


def move_root(run: Path) -> None:
    """Move the runtime directory away."""
    run.rename(run.with_name("moved"))


REMOVALS = {
    "removed": remove_root,
    "emptied": remove_instance,
    "emptied of files": remove_files,
    "moved away": move_root,
}


@pytest.mark.fault("G6 G9", "the runtime directory is {}: made again, commands find all")
@pytest.mark.parametrize("case", REMOVALS.values(), ids=REMOVALS)
def test_runtime_directory_removed(world: World, case: Callable[[Path], None]) -> None:
    """Socket, configuration, what is stopped, and the reason for the end."""
    ending = 'open(os.environ["NOTES"], "a").write(open(ENDING).read().strip() + " 1\\n")'
    world.python(
        "all_x.py",
        "def told(*_):\n"
        f"    ENDING = os.environ['LMCACHE_RUNTIME_PLUGIN_ENDING_FILE']; {ending}; os._exit(0)\n"
        "signal.signal(signal.SIGTERM, told); note('up'); stay()",
    )
    world.python("all_y.py", "polite(); note('up_y'); stay()")
    engine, _ = world.up()
    world.wait_noted("up_y")
    engine.ask("stop", names=["all_y"], wait=True)
    run = world.directory / "run"
    (config,) = run.glob("*/config.json")
    before = config.read_bytes()
    case(run)
    world.wait_logged(engine, "made again")
    assert config.read_bytes() == before
    assert config.stat().st_mode & 0o777 == 0o600
    shown = commands(world, "status")
    assert "all_x   running" in shown.stdout, shown
    kill(world, engine)
    world.wait_noted("up", 2)
    assert state(engine, "all_y") == "stopped"
    case_again = remove_root if run.exists() else case
    case_again(run)
    world.wait(lambda: engine.log().count("made again") == 2, "made again")
    engine.do("launcher.stop_plugins()")
    world.wait_noted("closing")
    shutil.rmtree(world.directory / "moved", ignore_errors=True)


@pytest.mark.fault("G9", "no control socket can be found: a stop of all does not report success")
def test_hidden_supervisor(world: World) -> None:
    """It is found in /proc, and named."""
    world.python("all_x.py")
    engine, _ = world.up()
    supervisor = world.supervisor_of(engine)
    os.kill(supervisor, signal.SIGSTOP)  # it cannot make anything again
    shutil.rmtree(world.directory / "run")
    try:
        stopped = commands(world, "stop", "--all", "--wait")
        shown = commands(world, "status")
    finally:
        os.kill(supervisor, signal.SIGCONT)
    for done in stopped, shown:
        assert done.returncode == 1, done
        assert f"supervisor {supervisor} (worker 0 of engine {engine.pid}) runs, but" in done.stderr
    world.wait_logged(engine, "made again")
    assert commands(world, "stop", "--all", "--wait").returncode == 0
    engine.close()
    world.wait(lambda: commands(world, "stop", "--all").returncode == 0, "nothing to stop")
