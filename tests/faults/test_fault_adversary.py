# SPDX-License-Identifier: Apache-2.0
"""An engine that is hostile to what runs in it still loses nothing, and leaves nothing."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from harness import gone
from world import POLITE, World

pytestmark = pytest.mark.ours_only("LMCache's launcher has no supervisor")

SHELL = 'echo "up $$" >> "$NOTES"\nexec sleep 120\n'


@pytest.mark.fault("G4 G9", "sys.executable is the application: that is not started again")
def test_executable_is_the_application(world: World) -> None:
    """A program that embeds Python."""
    app = world.directory / "server"
    app.write_text('#!/bin/sh\necho "app $$" >> "$NOTES"\n')
    app.chmod(0o755)
    world.file("all_x.sh", SHELL)
    world.up(prelude=f"import sys; sys.executable = {str(app)!r}")
    assert world.noted("app") == []


@pytest.mark.fault("G4", "a configuration whose attributes raise: the engine serves on")
def test_configuration_that_raises(world: World) -> None:
    """The methods of the launcher raise nothing."""
    prelude = (
        "class Bad:\n"
        "    def __getattr__(self, name):\n        raise RuntimeError('no ' + name)\n"
        "config = Bad()"
    )
    engine = world.engine(prelude=prelude)
    assert engine.do("1 + 1") == 2


@pytest.mark.fault("G4", "a timeout that is not a number: nothing is raised, plugins stop")
def test_timeout_is_nan(world: World) -> None:
    """As if there were none."""
    world.file("all_x.sh", SHELL)
    engine, (pid,) = world.up()
    engine.do("launcher.status(float('nan'))")
    engine.do("launcher.stop_plugins(timeout=float('nan'))")
    world.wait(lambda: gone(pid), "the plugin's end")


@pytest.mark.fault(
    "G4 G8", "a signal handler raises inside launch: no plugin and no descriptor stay"
)
def test_exception_inside_launch(world: World) -> None:
    """Right after the supervisor's process was started."""
    world.file("all_x.sh", SHELL)
    engine = world.engine(launch=False)
    before = engine.do("len(__import__('os').listdir('/proc/self/fd'))")
    engine.do(
        "import subprocess\n"
        "class Interrupted(subprocess.Popen):\n"
        "    def __init__(self, *words, **options):\n"
        "        super().__init__(*words, **options); raise KeyboardInterrupt\n"
        "real, subprocess.Popen = subprocess.Popen, Interrupted\n"
        "try:\n    launcher.launch_plugins()\n"
        "except KeyboardInterrupt:\n    pass\n"
        "subprocess.Popen = real; import gc; gc.collect()"
    )
    world.wait(lambda: world.everything() == [engine.pid], "nothing but the engine")
    assert engine.do("len(__import__('os').listdir('/proc/self/fd'))") == before
    engine.do("launcher.launch_plugins()")
    world.wait_noted("up")


@pytest.mark.fault("G2 G9", "log: logging, and its receiver cannot be imported: plugins come back")
def test_receiver_that_cannot_be_imported(world: World) -> None:
    """The thread that watches the supervisor goes on."""
    world.file("all_x.sh", SHELL)
    name = "lmcache_plugin_adapter.engine.logging_receiver"
    engine, _ = world.up(
        settings={"log": "logging"}, prelude=f"import sys; sys.modules[{name!r}] = None"
    )
    os.kill(world.supervisor_of(engine), 9)
    world.wait_noted("up", 2)


@pytest.mark.fault("G2 G4", "gevent has replaced its threads: it keeps its signals, plugins return")
def test_gevent(world: World) -> None:
    """The greenlet that watches the supervisor runs in the main thread."""
    pytest.importorskip("gevent")
    world.file("all_x.sh", SHELL)
    engine, _ = world.up(prelude="from gevent import monkey; monkey.patch_all()")
    engine.do("import gevent; gevent.sleep(0.5)")
    status = Path(f"/proc/{engine.pid}/status").read_text()
    assert re.findall(r"SigBlk:\s+0+\n", status), "signals are blocked"
    os.kill(world.supervisor_of(engine), 9)
    engine.do("gevent.sleep(2)")
    world.wait_noted("up", 2)
    engine.do("launcher.stop_plugins()")
    world.wait(lambda: not world.processes(), "plugins stopped")


@pytest.mark.fault("G8", "a subreaper adopts supervisors and their plugins: it keeps no zombie")
def test_subreaper(world: World) -> None:
    """Where the engine, or a process above it, has asked for orphans."""
    world.python("all_x.py", "if not os.fork():\n    os.setsid(); note('up'); stay()\n" + POLITE)
    engine, _ = world.up(2, prelude="import ctypes; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)")

    def children() -> list[str]:
        command = ["ps", "-o", "stat=", "--ppid", str(engine.pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()

    os.kill(world.supervisor_of(engine), 9)
    world.wait_noted("up", 4)
    world.wait(lambda: len(children()) == 1, "no child but the next supervisor")
    engine.do("launcher.stop_plugins()")
    world.wait(lambda: not children(), "no child")
