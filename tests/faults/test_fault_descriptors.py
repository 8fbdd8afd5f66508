# SPDX-License-Identifier: Apache-2.0
"""The engine closes all descriptors and opens its own: they are never touched, plugins run on."""

from __future__ import annotations

import os
import signal
import time

import pytest
from harness import alive, gone
from world import GRACE, FaultEngine, World

pytestmark = pytest.mark.ours_only("LMCache's launcher holds no descriptors in the engine")

LOSE = """
import os, select, socket
def lose():
    global pairs, before
    highest = max(map(int, os.listdir("/proc/self/fd")))
    os.closerange(3, highest + 1)
    pairs = [socket.socketpair() for _ in range(highest + 8)]
    before = [os.fstat(each.fileno()).st_ino for pair in pairs for each in pair]
def touched():
    now = [os.fstat(each.fileno()).st_ino for pair in pairs for each in pair]
    poll = select.poll()
    for pair in pairs:
        for each in pair:
            poll.register(each, select.POLLIN)
            each.send(b"the engine's")
            each.setblocking(False)
    for one, other in pairs:
        for each in one, other:
            assert each.recv(100) == b"the engine's", "somebody wrote or read"
    return now != before
"""

CLOSED = "has closed the connection to its supervisor: plugins continue"


def lose(world: World, engine: FaultEngine) -> None:
    """Have the engine lose the descriptors, and both sides notice it."""
    engine.do(LOSE)
    engine.do("lose()")
    engine.ask("reload")  # its answer to the engine wakes the thread that watches
    world.wait_logged(engine, CLOSED, "The engine has closed the descriptors")


def expect_untouched(engine: FaultEngine) -> None:
    """Check that nobody closed, read or wrote the engine's own sockets."""
    assert engine.do("touched()") is False


@pytest.mark.fault("G2 G9", "all its descriptors closed and reused, {}: plugins run, then stop")
@pytest.mark.parametrize("case", [{}, {"log": "logging"}], ids=["default", "log: logging"])
def test_stopped(world: World, case: dict[str, str]) -> None:
    """The supervisor is reached through its control socket."""
    world.python("all_x.py")
    prelude = "import logging; logging.basicConfig()" if case else ""
    engine, pids = world.up(settings=case, prelude=prelude)
    supervisor = world.supervisor_of(engine)
    lose(world, engine)
    assert all(map(alive, [*pids, supervisor]))
    assert engine.log().count(CLOSED) == 1
    assert engine.do("launcher.status()['plugins'][0]['state']") == "running"
    since = time.monotonic()
    engine.do("launcher.stop_plugins()")
    world.expect_gone([*pids, supervisor], GRACE + 2, since)
    assert world.noted("term") == pids
    expect_untouched(engine)


@pytest.mark.fault("G2", "all its descriptors closed and reused, nobody notices before the stop")
def test_stopped_unnoticed(world: World) -> None:
    """Neither side has used the connection in between."""
    world.python("all_x.py")
    engine, pids = world.up()
    world.wait(lambda: engine.status().get("state") == "running", "its status")
    engine.do(LOSE)
    engine.do("lose()")
    engine.do("launcher.stop_plugins()")
    world.wait(lambda: all(map(gone, pids)), "plugins stopped")
    assert world.noted("term") == pids
    expect_untouched(engine)


@pytest.mark.fault("G2", "all its descriptors closed and reused, supervisor killed: plugins return")
def test_supervisor_killed(world: World) -> None:
    """The watching thread watches the process."""
    world.python("all_x.py")
    engine, pids = world.up()
    supervisor = world.supervisor_of(engine)
    lose(world, engine)
    os.kill(supervisor, signal.SIGKILL)
    (_, again) = world.wait_noted("up", 2)
    assert all(map(gone, pids))
    expect_untouched(engine)
    engine.do("launcher.stop_plugins()")
    world.wait(lambda: gone(again), "plugins stopped")
    expect_untouched(engine)


@pytest.mark.fault("G2 G3", "all its descriptors closed and reused, then the engine {}")
@pytest.mark.parametrize("case", ["is killed", "exits"])
def test_engine_ends(world: World, case: str) -> None:
    """Its pidfd is the supervisor's own."""
    world.python("all_x.py")
    engine, pids = world.up()
    lose(world, engine)
    since = time.monotonic()
    if case == "exits":
        expect_untouched(engine)
        engine.close()
    else:
        engine.kill()
    world.wait(lambda: all(map(gone, pids)), "plugins stopped")
    world.measured(f"gone after {time.monotonic() - since:.2f} s")
    assert world.noted("term") == pids


@pytest.mark.fault("G3", "one that becomes another program is not taken for it")
def test_exec(world: World) -> None:
    """Exec closes the connection, too."""
    world.python("all_x.py")
    engine, pids = world.up()
    engine.tell("import os; os.execv('/bin/sleep', ['sleep', '60'])")
    world.wait(lambda: all(map(gone, pids)), "plugins stopped")
    world.wait_logged(engine, "became another program")
    assert CLOSED not in engine.log()
