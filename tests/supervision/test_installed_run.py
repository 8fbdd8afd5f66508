# SPDX-License-Identifier: Apache-2.0
"""Installed plugins in real engines: what they are given, how they fail, what a reload sees."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cli_under_test import ROOT, Running, command
from harness import Engine, alive, build_hang_shim, gone
from installed_packages import write_package

from lmcache_plugin_adapter.planner.installed_plugin import RUNNER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UP = """
import json, os, signal, sys, time

def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("up", json.dumps([sys.argv, sys.path, os.environ["LMCACHE_RUNTIME_PLUGIN_NAME"]]))
    while True:
        time.sleep(30)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory of the engine's ``sys.path`` that only its owner can write to."""
    directory = tmp_path / "site"
    directory.mkdir()
    return directory


@pytest.fixture
def start(engine: Callable[..., Engine], site: Path) -> Callable[..., Engine]:
    """Start an engine where the packages of ``site`` are installed."""

    def begin(*locations: str, python: str = sys.executable, **options: Any) -> Engine:
        env = {"PYTHONPATH": f"{site}:{ROOT}"}
        return engine(locations=list(locations), env=env, python=python, **options)

    return begin


def greeting(one: Engine, name: str = "all_x") -> list[Any]:
    """Return what the plugin says of itself."""
    found: list[Any] = json.loads(one.wait_log(rf"\[{name}\] up (\[.*\]) \(")[1])
    return found


def test_it_runs_once_as_a_program_of_its_own(start: Callable[..., Engine], site: Path) -> None:
    """With its name, its arguments and the engine's path; nothing of ours comes first there."""
    write_package(site, {"all_x": "acme.x:main"}, modules={"acme/x.py": UP})
    write_package(site / "late", {"all_x": "acme.x:late"}, version="0.1")
    settings = {"plugins": {"all_x": {"args": ["--fast"]}}}
    one = start(
        "pkg:all_x", "pkg:all_x", settings=settings, prelude="import sys; sys.path += ['site/late']"
    )
    argv, path, name = greeting(one)
    assert (argv, name) == (["all_x", "--fast"], "all_x")
    assert path[:2] == [str(site), str(ROOT)]
    assert str(ROOT / "lmcache_plugin_adapter") not in path
    status = one.do("launcher.status(10)")["plugins"]
    assert [(plugin["name"], plugin["state"]) for plugin in status] == [("all_x", "running")]
    assert one.log().count("Started, pid") == 1
    pid = one.plugin_pid("all_x")
    one.kill()
    one.wait_for(lambda: gone(pid))
    one.wait_log(r"\[all_x\] Stopped: exited with code 0")


def test_its_package_is_found_where_only_the_engine_looks(
    start: Callable[..., Engine], site: Path, tmp_path: Path
) -> None:
    """A directory that the engine put on its path itself is handed to the plugin."""
    other = tmp_path / "other"
    write_package(other, {"all_x": "acme.x:main"}, modules={"acme/x.py": UP})
    one = start("pkg:all_x", prelude=f"import sys; sys.path.append({str(other)!r})")
    assert greeting(one)[1][-1] == str(other)


def test_a_crash_shows_the_plugins_own_lines(start: Callable[..., Engine], site: Path) -> None:
    """One frame of ours, none of the import system, and the error last."""
    text = "def main():\n    raise ValueError('no target')\n"
    write_package(site, {"all_x": "acme:main"}, modules={"acme/__init__.py": text})
    one = start("pkg:all_x", settings={"restart": "never"})
    one.wait_log(r"\[all_x\] Exited with code 1 .*ValueError: no target")
    files = [line for line in one.texts("all_x") if line.startswith("  File ")]
    assert len(files) == 2
    assert "run_entry_point.py" in files[0]
    assert f'"{site}/acme/__init__.py", line 2, in main' in files[1]


def test_the_exit_code_is_what_the_function_returns(
    start: Callable[..., Engine], site: Path
) -> None:
    """As with ``sys.exit``; a function may be a method, too."""
    text = "class Command:\n    @classmethod\n    def run(cls):\n        return 7\n"
    write_package(site, {"all_x": "acme:Command.run"}, modules={"acme/__init__.py": text})
    one = start("pkg:all_x", settings={"restart": "never"})
    one.wait_log(r"\[all_x\] Exited with code 7 ")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("import nowhere_to_be_found\n", "it needs 'nowhere_to_be_found'; install it"),
        (None, "its module 'acme' is not there: install its package again"),
    ],
)
def test_a_missing_module_is_no_case_for_a_restart(
    start: Callable[..., Engine], site: Path, text: str | None, advice: str
) -> None:
    """The line says what to install, and with which Python."""
    modules = {} if text is None else {"acme/__init__.py": text}
    write_package(site, {"all_x": "acme:main"}, modules=modules)
    one = start("pkg:all_x")
    one.wait_log(r"\[all_x\] Exited with code 125 .*not restarted: it asked for that")
    (level,) = (
        lv for lv, _, line in one.records("all_x") if advice in line and "Cannot" in line[:6]
    )
    assert level == "ERROR"
    assert f"{sys.executable} -m pip" in one.log()


def test_processes_of_a_plugins_own_start(start: Callable[..., Engine], site: Path) -> None:
    """``multiprocessing`` imports the program again, which must not start another plugin."""
    text = (
        "import multiprocessing, os\n\n"
        "def work(number):\n    return number * 2\n\n"
        "def main():\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print('sum', sum(pool.map(work, [1, 2])))\n"
    )
    write_package(site, {"all_x": "acme:main"}, modules={"acme/__init__.py": text})
    one = start("pkg:all_x", settings={"restart": "never"})
    one.wait_log(r"\[all_x\] sum 6 ", 20)
    one.wait_log(r"\[all_x\] Exited with code 0 ")
    assert one.log().count("] sum ") == 1


EDITABLE = {
    "a path in a file": ("acme.pth", "{source}\n"),
    "code that finds modules": (
        "__editable___acme_1_0_finder.pth",
        "import __editable___acme_1_0_finder as finder; finder.install()\n",
    ),
}
FINDER = """
import sys
from importlib.machinery import PathFinder

MAPPING: dict[str, str] = {{'acme': '{source}/acme'}}

class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return PathFinder.find_spec(name, ['{source}']) if name in MAPPING else None

def install():
    sys.meta_path.append(Finder)
"""


@pytest.mark.parametrize("way", EDITABLE)
def test_an_editable_installation_runs(
    start: Callable[..., Engine], tmp_path: Path, way: str
) -> None:
    """In a virtual environment whose modules are elsewhere, by either way of installers."""
    source = tmp_path / "source"
    venv = tmp_path / "venv"
    create = [sys.executable, "-m", "venv", "--without-pip", str(venv)]
    subprocess.run(create, check=True, timeout=60)
    (packages,) = venv.glob("lib/python*/site-packages")
    name, text = EDITABLE[way]
    (packages / name).write_text(text.format(source=source))
    finder = packages / "__editable___acme_1_0_finder.py"
    finder.write_text(FINDER.format(source=source))
    modules = {"acme/__init__.py": "", "acme/x.py": UP}
    write_package(packages, {"all_x": "acme.x:main"}, "acme", modules=modules, source=source)
    one = start("pkg:all_x", python=str(venv / "bin" / "python"))
    assert greeting(one)[0] == ["all_x"]
    assert one.status("all_x")["command"].startswith(f"{venv}/bin/python {ROOT}/")
    first = one.plugin_pid("all_x")
    (source / "acme" / "x.py").write_text(f"{UP}\n")
    assert one.ask("reload")["restarted"] == ["all_x"]
    one.wait_for(lambda: one.log().count("] up ") == 2)
    assert gone(first)
    (source / "acme" / "x.py").chmod(0o666)
    assert one.ask("reload")["restarted"] == ["all_x"]
    one.wait_log(rf"\[all_x\] Refused: '{source}/acme/x.py' can be written by everyone")


def test_a_reload_sees_what_was_installed(start: Callable[..., Engine], site: Path) -> None:
    """Upgraded, removed, and new ones; what did not change runs on."""
    modules = {"acme/x.py": UP}
    kept = write_package(site, {"all_kept": "acme.x:main"}, "kept", modules=modules)
    old = write_package(site, {"all_x": "acme_x.x:main"}, "acme-x", modules={"acme_x/x.py": UP})
    gone_one = write_package(site, {"all_gone": "acme.x:main"}, "gone")
    one = start("pkg:all_kept", "pkg:all_x", "pkg:all_gone", "pkg:all_new")
    for name in ("all_kept", "all_x", "all_gone"):
        greeting(one, name)
    one.wait_log("Location 'pkg:all_new' is offered by no package")
    before = one.plugin_pid("all_kept")
    (old / "entry_points.txt").rename(site / "kept-text")
    old.rename(site / "acme_x-2.0.dist-info")
    (site / "kept-text").rename(site / "acme_x-2.0.dist-info" / "entry_points.txt")
    (site / "acme_x-2.0.dist-info" / "METADATA").write_text("Name: acme-x\nVersion: 2.0\n")
    (site / "acme_x-2.0.dist-info" / "RECORD").write_text("new\n")
    (gone_one / "entry_points.txt").unlink()
    write_package(site, {"all_new": "acme.x:main"}, "new")
    answer = one.ask("reload")
    assert answer["started"] == ["all_new"]
    assert answer["restarted"] == ["all_x"]
    assert answer["stopped"] == ["all_gone"]
    assert answer["unchanged"] == ["all_kept"]
    greeting(one, "all_new")
    one.wait_for(lambda: (one.status("all_x").get("package") or {}).get("version") == "2.0")
    assert one.plugin_pid("all_kept") == before
    assert alive(before)
    assert kept.exists()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_path_that_does_not_answer_holds_nobody_up(
    engine: Callable[..., Engine], plugin: Callable[..., Path], site: Path, tmp_path: Path
) -> None:
    """It is said once, files start, installed plugins when it answers; a reload ends none."""
    file = plugin("all_file.sh", "echo up []; exec sleep 60")
    write_package(site, {"all_a": "acme.x:main", "all_b": "acme.x:main"}, modules={"acme/x.py": UP})
    answers = tmp_path / "answers"
    one = engine(
        locations=["pkg:all_a", "pkg:all_b", str(file)],
        prelude=f"import sys; sys.path.append({str(site)!r})",
        env={
            "LD_PRELOAD": build_hang_shim(tmp_path),
            "HUNG_DIRECTORY": str(site),
            "ANSWERS": str(answers),
        },
    )
    one.wait_log(r"WARNING: \[lmcache-plugins\] Location 'pkg:all_a' does not answer")
    greeting(one, "all_file")
    answers.touch()
    greeting(one, "all_a")
    greeting(one, "all_b")
    answers.unlink()
    assert one.ask("reload")["unchanged"] == ["all_file", "all_a", "all_b"]
    answers.touch()
    one.wait_for(lambda: one.log().count("does not answer") == 2)
    assert "'pkg:all_b' does not answer" not in one.log()
    assert one.log().count("Started, pid") == 3


def test_nothing_of_ours_is_imported_by_accident(site: Path, tmp_path: Path) -> None:
    """The runner's own directory is on nobody's path, also where it is a link or the path safe."""
    write_package(site, {}, modules={"acme.py": "import sys\ndef main(): print(sys.path)\n"})
    link = tmp_path / "link.py"
    link.symlink_to(RUNNER)
    for program in (RUNNER, str(link)):
        for variable in ("", "1"):
            if variable and sys.version_info < (3, 11):
                continue
            done = subprocess.run(
                [sys.executable, program, "all_x", "acme:main", str(site)],
                env={"PYTHONSAFEPATH": variable, "PYTHONPATH": "/first"},
                capture_output=True,
                text=True,
                check=True,
            )
            path = ast.literal_eval(done.stdout)
            assert (path[0], path[-1]) == ("/first", str(site))
            assert os.path.dirname(RUNNER) not in path


def test_status_shows_where_it_comes_from(
    start: Callable[..., Engine], site: Path, plugin: Callable[..., Path], tmp_path: Path
) -> None:
    """As a column where there is something to show, and in the document."""
    write_package(site, {"all_x": "acme.x:main"}, modules={"acme/x.py": UP})
    file = plugin("all_file.sh", "echo up; exec sleep 60")
    one = start("pkg:all_x", str(file))
    greeting(one)
    one.wait_log(r"\[all_file\] up ")
    env = {"LMCACHE_PLUGINS_RUNTIME_DIR": str(tmp_path / "run")}
    rows = command("status", "--engine", str(one.pid), env=env).stdout.splitlines()
    assert rows[1].split()[-1] == "package"
    (row,) = (row for row in rows if "  all_x " in row)
    assert row.endswith("acme-plugins 1.0")
    done = command("status", "--json", "--engine", str(one.pid), env=env)
    plugins = json.loads(done.stdout)["supervisors"][0]["plugins"]
    found = {each["name"]: each["package"] for each in plugins}
    assert found == {"all_file": None, "all_x": {"name": "acme-plugins", "version": "1.0"}}
    assert command("stop", "pkg:all_x", "--wait", env=env).returncode == 0
    assert one.status("all_x")["state"] == "stopped"


def test_run_and_doctor_know_them(site: Path, tmp_path: Path) -> None:
    """The stand-in engine looks where its own Python does."""
    write_package(site, {"worker_x": "acme:main"}, modules={"acme.py": "def main(): print('hi')\n"})
    (tmp_path / "lmcache.yaml").write_text('{"runtime_plugin_locations": ["pkg:worker_x"]}')
    env = {"PYTHONPATH": f"{ROOT}:{site}", "LMCACHE_CONFIG_FILE": str(tmp_path / "lmcache.yaml")}
    with Running(tmp_path, "--role", "worker", env=env) as running:
        running.until_logged("LMCache INFO: [worker_x] hi (worker_x:")
        assert running.stop() == 0
    assert "pkg:worker_x'; 'lmcache-plugins check' shows" in command("doctor", env=env).stdout
    (tmp_path / "lmcache.yaml").write_text('{"runtime_plugin_locations": ["pkg:worker_y"]}')
    shown = command("doctor", env=env).stdout
    assert "Location 'pkg:worker_y' is offered by no package" in shown
    assert "did you mean 'pkg:worker_x'?" in shown
