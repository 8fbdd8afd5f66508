# SPDX-License-Identifier: Apache-2.0
"""An engine that is root runs a plugin as another user, who can do less and ends as all do."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import time
from pathlib import Path

import pytest
from harness import alive
from world import GRACE, FaultEngine, World

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user"),
    pytest.mark.ours_only("has no users"),
]

USER = 54_000 + os.getpid() % 10_000
"""A user without a name; one for each worker."""

SH = "#!/bin/sh\n"
NOTE_UP = 'echo "up $$" >> "$NOTES"\n'
STAY = "while :; do sleep 1000; done\n"

SHOW = """\
echo "ids $(id -u) $(id -g) $(id -G)"
echo "names $HOME $USER $LOGNAME"
grep NoNewPrivs /proc/self/status
echo "config $(stat -c '%a %u %g' "$LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE")"
grep -o runtime_plugin_locations "$LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE"
echo "opened" > /dev/stdout
cat "$SECRET" 2>/dev/null || echo "no secret"
"""


def notes_of_all(world: World) -> None:
    """Let any user note something."""
    world.notes.touch()
    world.notes.chmod(0o666)


def owner(pid: int) -> int:
    """Return the user of a process."""
    return os.stat(f"/proc/{pid}").st_uid


def wait_texts(world: World, engine: FaultEngine, *texts: str) -> None:
    """Wait until the plugin has printed these lines."""
    for text in texts:
        world.wait(
            lambda text=text: text in engine.texts("all_x"), f"'{text}': {engine.texts('all_x')}"
        )


@pytest.mark.fault("G7 G10", "a plugin of another user: groups, variables, configuration, output")
def test_user(world: World) -> None:
    """It can read its copy of the configuration, and not what only root can."""
    secret = world.directory / "secret"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    world.file("all_x.sh", SH + SHOW + STAY)
    engine = world.engine(settings={"user": USER}, env={"SECRET": str(secret)})
    wait_texts(
        world,
        engine,
        f"ids {USER} {USER} {USER}",
        f"names / {USER} {USER}",
        "NoNewPrivs:\t1",
        f"config 600 {USER} {USER}",
        "runtime_plugin_locations",
        "opened",
        "no secret",
    )
    users = world.directory / "run.users"
    assert users.stat().st_mode & 0o777 == 0o711
    engine.close()
    world.wait(lambda: not users.exists(), "no copy of the configuration is left")


@pytest.mark.fault("G6 G9", "files for a plugin of another user are removed: made again")
def test_files_removed(world: World) -> None:
    """The configuration as it was, and the reason for the end."""
    world.file(
        "all_x.sh",
        f"{SH}trap 'cat \"$LMCACHE_RUNTIME_PLUGIN_ENDING_FILE\"; exit' TERM\n"
        "echo up; while :; do sleep 0.05; done\n",
    )
    engine = world.engine(settings={"user": USER})
    wait_texts(world, engine, "up")
    users = world.directory / "run.users"
    (config,) = users.glob("*.json")
    before = config.read_bytes()
    shutil.rmtree(users)
    shutil.rmtree(world.directory / "run")
    world.wait_logged(engine, "made again")
    world.wait(config.exists, "the configuration is written again")
    assert config.read_bytes() == before
    found = config.stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o600, USER, USER)
    assert users.stat().st_mode & 0o777 == 0o711
    engine.do("launcher.stop_plugins()")
    wait_texts(world, engine, "closing")
    engine.close()
    world.wait(lambda: not users.exists(), "nothing is left")


@pytest.mark.fault("G7 G10", "user, group and no_new_privs by name, each by itself")
def test_names(world: World) -> None:
    """A user's variables and groups come from the system's tables."""
    world.file("all_x.sh", SH + 'echo "ids $(id -u) $(id -g)"\n' + SHOW + STAY)
    settings = {"user": "daemon", "group": "root", "no_new_privs": False}
    engine = world.engine(settings={"plugins": {"all_x": settings}}, env={"SECRET": "/none"})
    wait_texts(world, engine, f"ids {pwd.getpwnam('daemon').pw_uid} 0", "NoNewPrivs:\t0")
    assert any(text.endswith(" daemon daemon") for text in engine.texts("all_x"))


@pytest.mark.fault("G2 G3 G10", "a plugin of another user ends with an engine that is killed")
def test_engine_killed(world: World) -> None:
    """It is deaf, and so is its daemon in a session of its own."""
    notes_of_all(world)
    world.file("all_x.sh", f"{SH}trap '' TERM\n(setsid sh -c '{NOTE_UP}{STAY}') &\n{NOTE_UP}{STAY}")
    engine, pids = world.up(2, settings={"user": USER})
    assert {owner(pid) for pid in pids} == {USER}
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, GRACE + 1, since)
    world.expect_nothing(1.5)


@pytest.mark.fault("G2 G10", "a plugin of another user, and its supervisor is killed")
def test_supervisor_killed(world: World) -> None:
    """The kernel ends it, though it changed its user; the next one has the same user."""
    notes_of_all(world)
    world.file("all_x.sh", f"{SH}trap '' TERM\n{NOTE_UP}{STAY}")
    engine, pids = world.up(settings={"user": USER})
    supervisor = world.supervisor_of(engine)
    os.kill(engine.pid, signal.SIGSTOP)  # so that no next supervisor ends it
    os.kill(supervisor, signal.SIGKILL)
    world.wait(lambda: not alive(pids[0]), "ended by the kernel")
    os.kill(engine.pid, signal.SIGCONT)
    (again,) = world.wait_noted("up", 2)[1:]
    assert owner(again) == USER


@pytest.mark.fault("G6 G10", "a plugin of another user is killed: restarted as the same user")
def test_restart(world: World) -> None:
    """What it left behind is ended first."""
    notes_of_all(world)
    world.file("all_x.sh", f"{SH}(setsid sh -c '{NOTE_UP}{STAY}') &\n{NOTE_UP}exec sleep 1000\n")
    engine, _ = world.up(2, settings={"user": USER})
    first, left = engine.plugin_pid("all_x"), set(world.noted("up"))
    os.kill(first, signal.SIGKILL)
    again = set(world.wait_noted("up", 4)) - left
    assert {owner(pid) for pid in again} == {USER}
    assert not any(map(alive, left))


@pytest.mark.fault("G6 G7 G10", "{} that does not exist: refused, never run as root instead")
@pytest.mark.parametrize("case", ["user", "group"], ids=["a user", "a group"])
def test_unknown(world: World, case: str) -> None:
    """Its line names the setting."""
    notes_of_all(world)
    world.file("all_x.sh", SH + NOTE_UP + STAY)
    engine = world.engine(settings={"plugins": {"all_x": {case: "no-such-name"}}})
    key = f"extra_config.runtime_plugins.plugins.all_x.{case}"
    world.wait_logged(engine, f"Refused: there is no {case} 'no-such-name' ('{key}: no-such-name')")
    assert engine.status()["state"] == "refused"
    assert not world.noted("up")


@pytest.mark.fault("G7 G10", "a plugin of another user: permissions are those of that user")
def test_permissions(world: World) -> None:
    """The user's own file runs, though it belongs to somebody else than the engine."""
    notes_of_all(world)
    path: Path = world.file("all_x.sh", SH + NOTE_UP + STAY)
    os.chown(path, USER, USER)
    engine, pids = world.up(settings={"user": USER})
    assert owner(pids[0]) == USER
    engine.close()
    engine = world.engine(settings={"user": USER + 1})
    world.wait_logged(engine, f"belongs to user {USER}")


@pytest.mark.fault("G6 G10", "a program that the plugin's user cannot execute: one line says so")
def test_unreadable(world: World) -> None:
    """The shell or the kernel."""
    world.file("all_x.sh", SH + STAY, 0o700)
    engine = world.engine(settings={"user": USER, "restart": "never"})
    world.wait_logged(engine, "ermission denied")
