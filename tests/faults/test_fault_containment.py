# SPDX-License-Identifier: Apache-2.0
"""A plugin that takes too much CPU time, memory or processes costs its engine nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from harness import alive, wait_until
from world import GRACE, FaultEngine, World

HAS_NO_LIMITS = "has no limits"
PREFIX = "extra_config.runtime_plugins"

LEAK = "keep = bytearray(64 << 20)\nnote('up')\nstay()\n"
"""Takes 64 MiB, which pages that are written to make resident."""

MEMORY = {"memory_max": "40MiB"}


def over_memory(key: str = f"{PREFIX}.memory_max") -> str:
    """Return the end of the line about a plugin that uses too much memory."""
    return f"over its limit of 40.0 MiB ({key}): ending it with SIGTERM"


def priority(pid: int) -> tuple[int, int]:
    """Return the nice value of a process and of its session's autogroup, if there is one."""
    path = Path(f"/proc/{pid}/autogroup")
    nice = os.getpriority(os.PRIO_PROCESS, pid)
    return nice, int(path.read_text().rpartition(" ")[2]) if path.exists() else 19


@pytest.mark.fault("G10", "burns CPU: only what the engine leaves, also after a restart")
def test_burner(world: World) -> None:
    """Its processes and its session have the lowest priority."""
    world.python("all_x.py", "if os.fork(): note('up')\nwhile True: pass\n")
    engine, pids = world.up(settings={"nice": 19})
    world.wait(lambda: priority(pids[0]) == (19, 19), "the lowest priority")
    for pid in world.processes():
        world.wait(lambda pid=pid: priority(pid) == (19, 19), "the lowest priority")
    os.kill(pids[0], signal.SIGKILL)
    if world.launcher.ours:
        (again,) = world.wait_noted("up", 2)[1:]
        world.wait(lambda: priority(again) == (19, 19), "the lowest priority")
    assert alive(engine.pid)


@pytest.mark.fault("G2 G10", "burns CPU while its supervisor is killed: the next one contains it")
@pytest.mark.ours_only("has no supervisor")
def test_burner_of_a_killed_supervisor(world: World) -> None:
    """The plugins of the next supervisor have the lowest priority, too."""
    world.python("all_x.py", "note('up')\nwhile True: pass\n")
    engine, _ = world.up(settings={"nice": 19})
    os.kill(world.supervisor_of(engine), signal.SIGKILL)
    (pid,) = world.wait_noted("up", 2)[1:]
    world.wait(lambda: priority(pid) == (19, 19), "the lowest priority")


@pytest.mark.fault("G6 G10", "over memory_max: ended as a failure, and started again")
@pytest.mark.ours_only(HAS_NO_LIMITS)
def test_memory(world: World) -> None:
    """The line says how much it used, and which setting limits it."""
    world.python("all_x.py", LEAK)
    engine, pids = world.up(settings={"plugins": {"all_x": MEMORY}})
    world.wait_noted("up", 2)
    assert not alive(pids[0])
    world.wait_logged(engine, "Uses ", over_memory(f"{PREFIX}.plugins.all_x.memory_max"))
    world.wait_logged(engine, "Killed by SIGTERM", "starting again in")


@pytest.mark.fault("G10", "over memory_max with all its processes together")
@pytest.mark.ours_only(HAS_NO_LIMITS)
def test_memory_of_children(world: World) -> None:
    """None of them alone uses that much; those in other sessions count."""
    world.python(
        "all_x.py",
        "for _ in range(3):\n"
        "    if not os.fork():\n        os.setsid()\n        keep = bytearray(20 << 20)\n"
        "        note('child')\n        stay()\n"
        "note('up'); stay()\n",
    )
    engine, pids = world.up(settings={**MEMORY, "restart": "never"})
    world.wait_logged(engine, over_memory(), "not restarted (restart: never)")
    children = world.wait_noted("child", 3)
    world.wait(lambda: not any(map(alive, [*pids, *children])), "all ended")
    assert engine.status()["state"] == "exited"
    assert "over its limit" in engine.status()["reason"]


@pytest.mark.fault("G10", "over memory_max and ignores SIGTERM: killed after its grace period")
@pytest.mark.ours_only(HAS_NO_LIMITS)
def test_deaf_memory(world: World) -> None:
    """As with a stop."""
    world.python("all_x.py", "deaf()\n" + LEAK)
    engine, pids = world.up(settings={**MEMORY, "restart": "never"})
    world.wait_logged(engine, over_memory(), "killing 1 process", "Killed by SIGKILL after")
    world.wait(lambda: not alive(pids[0]), "killed")


@pytest.mark.fault("G2 G10", "over memory_max, and the engine is killed meanwhile")
@pytest.mark.ours_only(HAS_NO_LIMITS)
def test_memory_and_engine(world: World) -> None:
    """The grace period that runs is the only one."""
    world.python("all_x.py", "deaf()\n" + LEAK)
    engine, pids = world.up(settings=MEMORY)
    world.wait_logged(engine, over_memory())
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, GRACE + 1, since)
    world.expect_nothing(1.5)


@pytest.mark.fault("G2 G10", "over memory_max, and the supervisor is killed meanwhile")
@pytest.mark.ours_only(HAS_NO_LIMITS)
def test_memory_and_supervisor(world: World) -> None:
    """The next supervisor watches the limit, too."""
    world.python("all_x.py", "deaf()\n" + LEAK)
    engine, pids = world.up(settings=MEMORY)
    world.wait_logged(engine, over_memory())
    os.kill(world.supervisor_of(engine), signal.SIGKILL)
    world.wait(lambda: not alive(pids[0]), "ended with its supervisor")
    world.wait(lambda: engine.log().count(over_memory()) >= 2, "over the limit again")


@pytest.mark.fault("G10", "over memory_max, and stopped by an operator meanwhile: stays stopped")
@pytest.mark.ours_only(HAS_NO_LIMITS)
def test_memory_and_stop(world: World) -> None:
    """A request to stop is stronger than the restart policy."""
    world.python("all_x.py", "deaf()\n" + LEAK)
    engine, _ = world.up(settings={**MEMORY, "restart": "always", "stop_grace": 2})
    world.wait_logged(engine, over_memory())
    engine.ask("stop", names=["all_x"], wait=True)
    assert engine.status()["state"] == "stopped"
    assert len(world.noted("up")) == 1


@pytest.mark.fault("G6 G10", "more processes than max_processes: ended, and started again")
@pytest.mark.ours_only(HAS_NO_LIMITS)
def test_processes(world: World) -> None:
    """Its first process counts."""
    world.python("all_x.py", "note('up')\nfor _ in range(5):\n    os.fork() or stay()\nstay()\n")
    engine, _ = world.up(settings={"max_processes": 5})
    world.wait_noted("up", 2)
    limit = f"Has 6 processes, over its limit of 5 ({PREFIX}.max_processes): ending it with SIGTERM"
    world.wait_logged(engine, limit, "starting again in")


BOMB = """\
deaf()
while True:
    note("up")
    if len(open(os.environ["NOTES"]).readlines()) < 300:
        os.fork()
    time.sleep(0.2)
"""
"""Twice as many processes in 0.2 s, up to a number that a machine can bear."""


@pytest.mark.fault(
    "G2 G10", "a fork bomb that ignores SIGTERM: killed before its grace period ends"
)
@pytest.mark.ours_only(HAS_NO_LIMITS)
def test_fork_bomb(world: World) -> None:
    """It would take the machine down within its grace period."""
    world.python("all_x.py", BOMB)
    settings = {"max_processes": 10, "stop_grace": 3600, "restart": "never"}
    engine, _ = world.up(settings=settings)
    world.wait_logged(engine, "over its limit of 10", "within the grace period: killing ")
    world.wait_logged(engine, "not restarted (restart: never)")
    world.wait(lambda: not world.processes(), "all ended")
    assert alive(engine.pid)


# --- memory runs out ---------------------------------------------------------------

CGROUP_BYTES = 256 << 20
ENGINE_BYTES = 150 << 20


def removed(cgroup: Path) -> bool:
    """Remove a cgroup, which takes a moment after the exit of its last process."""
    try:
        cgroup.rmdir()
    except OSError:
        return False
    return True


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A memory cgroup, of either version."""
    for root in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        path = root / f"lmcache-plugins-test-{os.getpid()}"
        limits = {"memory.limit_in_bytes": CGROUP_BYTES, "memory.swappiness": 0}
        if (root / "cgroup.controllers").exists():
            limits = {"memory.max": CGROUP_BYTES, "memory.swap.max": 0}
        try:
            path.mkdir()
        except OSError:
            continue
        try:
            for name, value in limits.items():
                if (path / name).exists():
                    (path / name).write_text(str(value))
            if any((path / name).exists() for name in limits):
                yield path
                return
        except OSError:
            continue
        finally:
            wait_until(partial(removed, path), 20, f"{path} is empty")
    pytest.skip("cannot make a memory cgroup here")


@pytest.mark.fault("G6 G10", "memory runs out in the container: a plugin is killed, not the engine")
def test_out_of_memory(world: World, cgroup: Path) -> None:
    """Even if the engine uses most of it."""
    if int(Path("/proc/self/oom_score_adj").read_text()) > 200:
        pytest.skip("the tests run with an oom_score_adj that is close to that of plugins")
    world.python(
        "all_x.py",
        "note('up')\nkeep = []\n"
        "while True:\n    keep.append(bytearray(1 << 20))\n    time.sleep(0.01)\n",
    )
    join = ("sh", "-c", f'echo $$ > {cgroup}/cgroup.procs && exec "$@"', "sh")
    engine: FaultEngine = world.engine(
        prefix=join,
        prelude=f"keep = bytearray({ENGINE_BYTES})",
        settings={"restart": "never"},
    )
    (pid,) = world.wait_noted("up")
    world.wait(lambda: not alive(pid) or engine.process.poll() is not None, "memory runs out")
    assert engine.process.poll() is None, "the engine was killed"
    if world.launcher.ours:
        world.wait_logged(engine, "Killed by SIGKILL from the kernel's OOM killer (out of memory)")
    engine.close()
    world.expect_nothing(GRACE + 1)
