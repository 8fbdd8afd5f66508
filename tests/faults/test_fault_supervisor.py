# SPDX-License-Identifier: Apache-2.0
"""Whatever becomes of the supervisor, plugins end with it, come back, and the engine goes on."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from harness import alive, gone, state_of
from world import ALLOWANCE, GRACE, POLITE, FaultEngine, World

pytestmark = pytest.mark.ours_only("LMCache's launcher has no supervisor")


def expect_files_of(world: World, engine: FaultEngine) -> None:
    """Wait until nothing is left in the runtime directory but what ``engine`` uses."""
    run = world.directory / "run"
    world.wait(
        lambda: [name.split(".")[1:2] for name in os.listdir(run)] == [[str(engine.pid)]],
        "the files of the dead removed",
    )


FAMILY = """
if not os.fork():
    os.setsid(); deaf(); note('child'); stay()
polite(); note('up'); stay()
"""


@pytest.mark.fault("G2 G4", "{}: plugins die at once, what they left is swept, all come back")
@pytest.mark.parametrize(
    "case",
    [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT],
    ids=["SIGKILL", "SIGSEGV", "abort"],
)
def test_killed(world: World, case: signal.Signals) -> None:
    """The engine never notices."""
    world.python("all_x.py", FAMILY)
    engine, (first,) = world.up()
    (child,) = world.wait_noted("child")
    supervisor = world.supervisor_of(engine)
    since = time.monotonic()
    os.kill(supervisor, case)
    world.expect_gone([first], 0.2, since)
    world.expect_gone([child], 1, since, "what it left")
    world.wait_noted("up", 2)
    world.measured(f"back after {time.monotonic() - since:.2f} s")
    assert engine.do("1 + 1") == 2
    world.wait(lambda: engine.status().get("state") == "running", "its status")
    world.wait_logged(engine, f"Supervisor {supervisor} of worker 0 was killed")


@pytest.mark.fault("G2", "killed after the engine changed directory and environment: as at first")
def test_killed_elsewhere(world: World) -> None:
    """Relative locations, PATH and the runtime directory stay those of the launch."""
    note = (
        "open(os.environ['NOTES'], 'a').write("
        'f\'{os.getcwd()}|{os.environ.get("ONLY_LATER")}|{os.environ["PATH"]} 1\\n\')\n'
    )
    world.python("all_x.py", note + "polite(); note('up'); stay()")
    engine, _ = world.up(locations=["plugins"], env={"LMCACHE_PLUGINS_RUNTIME_DIR": "run"})
    first = world.notes.read_text().splitlines()[0]
    assert f"{world.directory}|None|" in first
    engine.do(
        "import os; os.chdir('/'); os.environ.update(ONLY_LATER='x', PATH='/none', "
        "LMCACHE_PLUGINS_RUNTIME_DIR='/none')"
    )
    os.kill(world.supervisor_of(engine), signal.SIGKILL)
    world.wait_noted("up", 2)
    assert world.notes.read_text().splitlines().count(first) == 2
    assert len(list((world.directory / "run").glob("*/control.sock"))) == 1


@pytest.mark.fault("G2", "killed five times in a row: later each time, never two copies")
def test_killed_often(world: World) -> None:
    """Backoff, and it comes back each time."""
    world.python("all_x.py")
    engine, _ = world.up()
    waits = []
    for number in range(5):
        since = time.monotonic()
        os.kill(world.supervisor_of(engine), signal.SIGKILL)
        world.wait_noted("up", number + 2)
        waits.append(time.monotonic() - since)
        assert len(world.processes()) == 1
    assert waits[-1] > 1.0, f"no backoff: {waits}"
    world.measured("back after " + ", ".join(f"{wait:.1f}" for wait in waits) + " s")


@pytest.mark.fault("G3", "{}: an orderly stop with grace, no other is started, one line says so")
@pytest.mark.parametrize(
    "case",
    [signal.SIGTERM, signal.SIGINT, signal.SIGHUP],
    ids=["SIGTERM", "SIGINT", "SIGHUP"],
)
def test_told(world: World, case: signal.Signals) -> None:
    """As systemd stops a whole unit."""
    world.python("all_x.py")
    engine, pids = world.up()
    supervisor = world.supervisor_of(engine)
    since = time.monotonic()
    os.kill(supervisor, case)
    world.expect_gone([*pids, supervisor], GRACE + 1, since)
    assert world.noted("term") == pids
    time.sleep(0.5)
    assert not world.processes()
    world.wait_logged(engine, "Plugins start again when their engine is started again")
    engine.do("launcher.launch_plugins()")
    world.wait_noted("up", 2)


@pytest.mark.fault("G2", "SIGSTOP: nothing until SIGCONT, then what is due")
def test_stopped(world: World) -> None:
    """Nobody else acts in its place."""
    world.python("all_x.py")
    engine, pids = world.up()
    supervisor = world.supervisor_of(engine)
    os.kill(supervisor, signal.SIGSTOP)
    world.wait(lambda: state_of(supervisor) == "T", "stopped")
    assert engine.do("1 + 1") == 2
    engine.kill()
    time.sleep(0.5)
    assert alive(pids[0])
    since = time.monotonic()
    os.kill(supervisor, signal.SIGCONT)
    world.expect_gone(pids, GRACE + 1, since)
    assert world.noted("term") == pids


@pytest.mark.fault("G4", "SIGSTOP, and the engine stops its plugins: it waits for a bounded time")
def test_stopped_while_stopping(world: World) -> None:
    """The grace period and two seconds."""
    world.python("all_x.py")
    engine, pids = world.up()
    supervisor = world.supervisor_of(engine)
    os.kill(supervisor, signal.SIGSTOP)
    since = time.monotonic()
    engine.do("launcher.stop_plugins()")
    assert time.monotonic() - since < GRACE + 2 + ALLOWANCE
    os.kill(supervisor, signal.SIGCONT)
    world.expect_gone(pids, GRACE + 1, time.monotonic())


@pytest.mark.fault("G2", "killed together with its engine: the next of this user sweeps")
def test_killed_together(world: World) -> None:
    """Even what left its session."""
    world.python("all_x.py", FAMILY)
    engine, (first,) = world.up()
    (child,) = world.wait_noted("child")
    supervisor = world.supervisor_of(engine)
    os.kill(engine.pid, signal.SIGSTOP)
    since = time.monotonic()
    os.kill(supervisor, signal.SIGKILL)
    os.kill(engine.pid, signal.SIGKILL)
    world.expect_gone([first], 0.2, since)
    assert alive(child)
    other, _ = world.up()
    world.wait(lambda: gone(child), "swept")
    expect_files_of(world, other)


@pytest.mark.fault("G8", "killed together with its engine, and dies slowly: its files are removed")
def test_files_of_the_dying(world: World) -> None:
    """A child that has not reached its exec yet holds the directory as its parent did."""
    world.python("all_x.py")
    engine, _ = world.up()
    (instance,) = (world.directory / "run").iterdir()
    held = os.open(instance, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_SH)
    os.kill(world.supervisor_of(engine), signal.SIGKILL)
    engine.kill()
    second, _ = world.up()
    time.sleep(1)  # its search looks for files of the dead meanwhile
    assert instance.exists()
    os.close(held)
    expect_files_of(world, second)


@pytest.mark.fault("G2", "killed while it stops its plugins: another sees to the end")
def test_killed_while_stopping(world: World) -> None:
    """A stop holds."""
    world.python("all_x.py", "deaf(); note('up')\nif not os.fork(): os.setsid(); stay()\nstay()")
    engine, _ = world.up(settings={"stop_grace": 5})
    supervisor = world.supervisor_of(engine)
    pids = world.wait(lambda: len(now := world.processes()) == 2 and now, "both processes")
    engine.do("launcher.stop_plugins(wait=False)")
    since = time.monotonic()
    os.kill(supervisor, signal.SIGKILL)
    world.expect_gone(pids, 1, since)
    time.sleep(0.5)
    assert not world.processes()


@pytest.mark.fault("G2 G8", "killed, and its engine leaves in order at once ({}): nothing is left")
@pytest.mark.parametrize("case", ["return", "KeyboardInterrupt", "stop"])
def test_killed_as_the_engine_leaves(world: World, case: str) -> None:
    """The exit starts a supervisor that finishes: no other one would come."""
    world.python(
        "all_x.py",
        "import subprocess\nsubprocess.Popen(['sleep', '300'], start_new_session=True)\n" + POLITE,
    )
    engine, _ = world.up()
    os.kill(world.supervisor_of(engine), signal.SIGKILL)
    if case == "KeyboardInterrupt":
        engine.process.send_signal(signal.SIGINT)
        engine.process.wait(20)
    else:
        if case == "stop":
            engine.do("launcher.stop_plugins(wait=False)")
        engine.close()
    world.expect_nothing(GRACE + 3)


@pytest.mark.fault("G2", "killed just as its engine ends: nothing of the plugin is left alive")
def test_killed_at_the_end(world: World) -> None:
    """First processes die with it, whoever is gone first."""
    world.python("all_x.py")
    engine, pids = world.up()
    supervisor = world.supervisor_of(engine)
    since = time.monotonic()
    engine.process.kill()
    os.kill(supervisor, signal.SIGKILL)
    world.expect_gone(pids, 0.2, since)
    other, _ = world.up()  # the next removes the files
    expect_files_of(world, other)


@pytest.mark.fault("G9", "cannot start, {}: the engine serves on, one line says why")
@pytest.mark.parametrize(
    "case", ["/none/python", "/dev/null", ""], ids=["no such interpreter", "not executable", "none"]
)
def test_no_interpreter(world: World, case: str) -> None:
    """Launching returns False."""
    world.python("all_x.py")
    engine = world.engine(launch=False)
    engine.do(f"import sys; sys.executable = {case!r}")
    assert engine.do("launcher.launch_plugins()") is False
    assert engine.log().count("Cannot launch runtime plugins") == 1
    assert engine.do("1 + 1") == 2
    engine.do(f"sys.executable = {sys.executable!r}")
    assert engine.do("launcher.launch_plugins()") is True, "it can be tried again"
    world.wait_noted("up")


@pytest.mark.fault("G9", "cannot start, no memory: the engine serves on, one line says why")
def test_no_memory(world: World) -> None:
    """An address space that has no room for anything more."""
    world.python("all_x.py")
    engine = world.engine(launch=False)
    engine.do(
        "import resource\n"
        "def tight():\n"
        "    used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (used, -1))\n"
        "    try:\n        return launcher.launch_plugins()\n"
        "    finally:\n        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
    )
    answer = engine.do("tight()")
    world.measured(f"launch returned {answer}")
    assert engine.do("1 + 1") == 2
    if answer is False:
        assert "Cannot launch runtime plugins" in engine.log()


@pytest.mark.fault("G9", "starts and dies at once, again and again: backoff, and it is said")
def test_dies_in_a_loop(world: World) -> None:
    """As with an interpreter that is broken."""
    world.python("all_x.py")
    count = world.directory / "count"
    broken = world.directory / "python"
    broken.write_text(f"#!/bin/sh\necho x >> {count}\nexit 3\n")
    broken.chmod(0o755)
    engine = world.engine(launch=False)
    engine.do(f"import sys; sys.executable = {str(broken)!r}; launcher.launch_plugins()")
    time.sleep(2.5)
    world.wait(lambda: count.exists() and len(count.read_text().split()) >= 2, "two starts")
    starts = len(count.read_text().split())
    assert starts <= 7, f"{starts} starts in 2.5 s"
    assert engine.do("1 + 1") == 2
    world.measured(f"{starts} starts in 2.5 s")
    said = (
        r"Supervisor of runtime plugins of worker 0 failed: it ended before it was ready "
        r"\('.*/python' exited with code 3\); trying again in 0.1 s"
    )
    world.wait(lambda: re.search(said, engine.log()), "the log says so")
    since = time.monotonic()
    engine.do("launcher.stop_plugins()")
    assert time.monotonic() - since < 3 + ALLOWANCE


BROKEN = """
import sys
sys.path.append({root!r})
from lmcache_plugin_adapter.supervisor import bootstrap
from lmcache_plugin_adapter.supervisor.plugin import Plugin
from lmcache_plugin_adapter.supervisor.processes.ending import RunEnding

def broken(self, *args):
    if "all_a" in (getattr(self, "name", ""), getattr(self, "_name", "")):
        raise RuntimeError("a mistake")
    return kept(self, *args)

kept = {method}
{method} = broken
bootstrap.main(sys.argv)
"""


@pytest.mark.fault("G2 G4", "a mistake in its own code, in {}: the others go on, all end in time")
@pytest.mark.parametrize(
    "case",
    [
        "Plugin.start",
        "Plugin.exited",
        "Plugin.stop",
        "Plugin._cleared",
        "RunEnding.check",
        "RunEnding.finish",
        "RunEnding._leftovers",
    ],
)
def test_internal_error(world: World, case: str) -> None:
    """An exception with one plugin is said and ends neither the others nor the supervision."""
    script = world.directory / "broken.py"
    root = str(Path(__file__).parents[2])
    script.write_text(BROKEN.format(root=root, method=case))
    world.python("all_a.py", "polite(); note('up'); time.sleep(0.3); sys.exit(1)")
    world.python("all_b.py", "deaf(); note('up'); stay()")
    world.python("all_c.py")
    engine, _ = world.up(
        2 if case == "Plugin.start" else 3,
        prelude="from lmcache_plugin_adapter.engine import supervisor_start\n"
        f"supervisor_start.BOOTSTRAP = {str(script)!r}\n",
    )
    time.sleep(0.6)
    pids = world.processes()
    assert len(pids) >= 2
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, GRACE + 1, since)
    world.expect_nothing(2)
    assert "Internal error, supervision continues: RuntimeError('a mistake')" in engine.log()
