# SPDX-License-Identifier: Apache-2.0
"""The package is replaced while an engine runs: its plugins run on, every request is answered."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import alive, gone
from world import FaultEngine, World

from lmcache_plugin_adapter.contract.version import __version__

pytestmark = pytest.mark.ours_only("LMCache's launcher loads nothing later")

ROOT = Path(__file__).parents[2]
OPERATIONS = ["status", "start", "stop", "restart", "logs"]
BOTH = f"this engine runs lmcache-plugin-adapter {__version__}, but 99.0 is installed now"


def installed(world: World) -> Path:
    """Return a copy of the package that engines of this case use."""
    package = world.directory / "site" / "lmcache_plugin_adapter"
    shutil.copytree(
        ROOT / "lmcache_plugin_adapter", package, ignore=shutil.ignore_patterns("__pycache__")
    )
    return package


def upgrade(package: Path) -> None:
    """Install another version, whose planner and wire are different."""
    version = package / "contract" / "version.py"
    version.write_text(version.read_text().replace(f'"{__version__}"', '"99.0"'))
    for path in (package / "supervisor").rglob("*.py"):
        if path.name != "bootstrap.py":
            path.write_text("raise KeyError('another version')\n")


def remove(package: Path) -> None:
    """Uninstall it."""
    shutil.rmtree(package)


def plan_without_fields(package: Path) -> None:
    """Keep the version, but have the planner say something else."""
    child = package / "supervisor" / "planning" / "child.py"
    child.write_text(
        "from lmcache_plugin_adapter.contract.planner_pipe import write_message\n"
        "def run_planner(fd, *_):\n    write_message(fd, ('plan', ((('all_x',),), {})))\n"
    )


def planner_that_raises(package: Path) -> None:
    """Keep the version, but have the planner raise."""
    child = package / "supervisor" / "planning" / "child.py"
    child.write_text("def run_planner(*_):\n    raise KeyError('another version')\n")


CASES = {
    "another version": (upgrade, f"cannot search for plugins: {BOTH}; restart the engine"),
    "uninstalled": (remove, "it is not installed any more"),
    "a plan of another shape": (plan_without_fields, "cannot use what the search found"),
    "a planner that raises": (planner_that_raises, "the search for plugins failed"),
}


def up(world: World, package: Path) -> tuple[FaultEngine, list[int]]:
    """Start an engine of ``package`` with two plugins."""
    world.python("all_x.py")
    world.python("all_y.py")
    return world.up(2, env={"PYTHONPATH": str(package.parent)})


@pytest.mark.fault("G2 G9", "{}: plugins run on, reload says it, stop and start work")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_requests(world: World, case: tuple[Callable[[Path], None], str]) -> None:
    """No request hangs; each answer comes within the ten seconds of the test's client."""
    replace, error = case
    package = installed(world)
    engine, pids = up(world, package)
    replace(package)
    (world.plugins / "all_y.py").rename(world.plugins / "all_z.py")
    answer = engine.ask("reload")
    assert answer["ok"] is False
    assert error in answer["error"]
    assert all(map(alive, pids))
    world.wait(lambda: error[1:] in engine.log() or "KeyError" in engine.log(), "it is logged")
    plugins = engine.ask("status")["plugins"]
    assert {one["name"]: one["state"] for one in plugins} == {
        "all_x": "running",
        "all_y": "running",
    }
    assert engine.ask("stop", names=["none"])["ok"] is False
    assert engine.ask("stop", names=["all_x"], wait=True)["ok"]
    assert engine.ask("start", names=["all_x"], wait=True)["plugins"][0]["state"] == "running"
    world.wait_noted("up", 3)
    assert engine.ask("logs", names=["all_x"])["ok"]
    engine.do("launcher.stop_plugins()")
    world.wait(lambda: not world.processes(), "plugins stopped")


@pytest.mark.fault(
    "G9", "another version, then the supervisor is killed: one line, no other starts"
)
def test_supervisor_killed(world: World) -> None:
    """The engine goes on; its plugins cannot."""
    package = installed(world)
    engine, pids = up(world, package)
    upgrade(package)
    os.kill(world.supervisor_of(engine), signal.SIGKILL)
    line = f"Cannot start a supervisor of runtime plugins: {BOTH}; restart the engine to use it"
    world.wait_logged(engine, line)
    assert all(map(gone, pids))
    assert engine.do("1 + 1") == 2
    engine.do("launcher.stop_plugins()")  # nothing is left to stop; no other start is due
    assert engine.log().count(line) == 1
    assert "Traceback" not in engine.log()


@pytest.mark.fault("G2", "an error with one plugin during reload, {}: no plugin is lost")
@pytest.mark.parametrize("case", ["all_y", "all_z"], ids=["changed", "new"])
def test_removal_before_addition(world: World, case: str) -> None:
    """A plugin whose new version cannot be made runs on as it was; the others follow the plan."""
    prelude = (
        "import lmcache_plugin_adapter.engine.supervisor_start as start\n"
        f"start.BOOTSTRAP = {str(world.directory / 'broken.py')!r}\n"
    )
    (world.directory / "broken.py").write_text(BROKEN.format(root=str(ROOT), name=case))
    world.python("all_x.py")
    world.python("all_y.py")
    engine, _ = world.up(2, prelude=prelude)
    world.python("all_y.py", "polite(); note('up')  # changed\nstay()")
    world.python("all_z.py")
    assert "all_x" in engine.ask("reload")["unchanged"]

    def running() -> set[str]:
        plugins = engine.ask("status")["plugins"]
        return {one["name"] for one in plugins if one["state"] == "running"}

    world.wait_logged(engine, "Internal error, supervision continues: RuntimeError('a mistake')")
    expected = {"all_x", "all_y"} | ({"all_z"} - {case})
    world.wait(lambda: running() == expected, f"{expected} running")


@pytest.mark.fault("G9", "an error in a request, {}: its client gets an answer")
@pytest.mark.parametrize("case", OPERATIONS, ids=OPERATIONS)
def test_error_in_a_request(world: World, case: str) -> None:
    """The answer names the error; the next request of another kind works."""
    prelude = (
        "import lmcache_plugin_adapter.engine.supervisor_start as start\n"
        f"start.BOOTSTRAP = {str(world.directory / 'broken.py')!r}\n"
    )
    (world.directory / "broken.py").write_text(BROKEN_REQUEST.format(root=str(ROOT), op=case))
    world.python("all_x.py")
    engine, _ = world.up(prelude=prelude)
    for _ in range(2):
        answer = engine.ask(case, names=["all_x"])
        assert not answer["ok"]
        assert "a mistake" in answer["error"]
    other = "logs" if case == "status" else "status"
    assert engine.ask(other, names=["all_x"])["ok"]


BROKEN_REQUEST = """
import sys
sys.path.append({root!r})
from lmcache_plugin_adapter.supervisor import bootstrap
from lmcache_plugin_adapter.supervisor.control.operations import Operations

def broken(self, request, client):
    raise RuntimeError("a mistake")

Operations._{op} = broken
bootstrap.main(sys.argv)
"""

BROKEN = """
import sys
sys.path.append({root!r})
from lmcache_plugin_adapter.supervisor import bootstrap
from lmcache_plugin_adapter.supervisor.plugin_set import PluginSet

made = []
def broken(self, planned, name):
    if name == {name!r} and (name in made or name == "all_z"):
        raise RuntimeError("a mistake")
    made.append(name)
    return kept(self, planned, name)

kept = PluginSet._add_one
PluginSet._add_one = broken
bootstrap.main(sys.argv)
"""
