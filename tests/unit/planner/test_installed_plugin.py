# SPDX-License-Identifier: Apache-2.0
"""Installed plugins in the plan: which run where, what stands in their way, what is said."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from cli_under_test import ROOT, command
from hypothesis import given
from hypothesis import strategies as st
from installed_packages import GROUP, write_modules, write_package

from lmcache_plugin_adapter.cli.check import report as check_report
from lmcache_plugin_adapter.cli.hung_paths import patiently
from lmcache_plugin_adapter.cli.inputs import read_config
from lmcache_plugin_adapter.configuration.settings import read_settings
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.kit import run_entry_point
from lmcache_plugin_adapter.planner.discovery import scan
from lmcache_plugin_adapter.planner.file_report import report_files
from lmcache_plugin_adapter.planner.installed_plugin import (
    GALLERY,
    RUNNER,
    module_files,
    read_reference,
)
from lmcache_plugin_adapter.planner.plan import Plan, make_plan
from lmcache_plugin_adapter.planner.plugin_files import PluginFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCHEDULER = ProcessIdentity(Role.SCHEDULER, -1, 2)
WORKER_0 = ProcessIdentity(Role.WORKER, 0, 2)
WORKER_1 = ProcessIdentity(Role.WORKER, 1, 2)
UNFILTERED = ProcessIdentity(None, 0, 1)
MODULES = {"acme/__init__.py": "", "acme/x.py": "def main(): return 3\n"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory of ``sys.path`` that only its owner can write to."""
    directory = tmp_path / "site"
    directory.mkdir()
    return directory


def plan(
    *locations: object, path: list[Path], identity: ProcessIdentity = WORKER_0, **values: Any
) -> Plan:
    """Plan for one process, with this test's Python as the engine's."""
    settings, problems = read_settings({"runtime_plugins": values})
    assert problems == []
    texts = list(map(str, locations))
    scanned = scan(texts, import_path=list(map(str, path)))
    return make_plan(identity, PluginFiles(scanned, settings, sys.executable, os.environ["PATH"]))


def said(made: Plan) -> list[str]:
    """Return what is said besides."""
    return [f"{problem.level}: {problem.text}" for problem in made.problems]


def test_it_runs_with_the_engines_python(site: Path) -> None:
    """By a program that is given its name, its function, where it is, and its own arguments."""
    write_package(site, {"worker_x": "acme.x:main"}, modules=MODULES)
    settings = {"worker_x": {"args": ["--verbose", "1"]}}
    made = plan("pkg:worker_x", path=[site], plugins=settings)
    (planned,) = made.plugins
    assert planned.argv == tuple(
        os.fsencode(word)
        for word in (sys.executable, RUNNER, "worker_x", "acme.x:main", site, "--verbose", "1")
    )
    assert (planned.name, planned.path, planned.refused) == ("worker_x", "pkg:worker_x", None)
    assert planned.package == ("acme-plugins", "1.0")
    assert said(made) == []
    assert planned.names == ("worker_x", "pkg:worker_x")
    assert (planned.file, planned.own_args) == ("worker_x", 2)


def test_its_name_says_where_it_runs(site: Path) -> None:
    """The grammar of files, without an extension; with no role to filter by, all run."""
    names = ["all_a", "scheduler_b", "worker_c", "WORKER_1_d", "all_0_e", "server_f", "helper"]
    write_package(site, dict.fromkeys(names, "acme.x:main"), modules=MODULES)
    locations = [f"pkg:{name}" for name in names]

    def running(identity: ProcessIdentity, **values: Any) -> list[str]:
        made = plan(*locations, path=[site], identity=identity, **values)
        return sorted(planned.name for planned in made.plugins)

    assert running(SCHEDULER) == ["all_a", "scheduler_b"]
    assert running(WORKER_0) == ["all_0_e", "all_a", "worker_c"]
    assert running(WORKER_1) == ["WORKER_1_d", "all_a", "worker_c"]
    assert running(UNFILTERED) == sorted(names)
    assert running(WORKER_1, filter_by_role=False) == sorted(names)


def test_a_name_without_a_role_is_said(site: Path) -> None:
    """Who named it meant it to run."""
    write_package(site, {"woker_x": "acme.x:main", "x": "acme.x:main"}, modules=MODULES)
    made = plan("pkg:woker_x", "pkg:x", path=[site])
    assert made.plugins == ()
    first, second = said(made)
    assert "'pkg:woker_x' does not run: its name starts with 'woker', which is no role" in first
    assert first.endswith("; its package should name it 'worker_x'")
    assert second.endswith("; its package should name it 'all_x'")


def test_one_that_is_named_twice_runs_once(site: Path, tmp_path: Path) -> None:
    """Also where two directories of the path have it: the first, as Python takes it."""
    write_package(site, {"all_x": "acme.x:main"}, modules=MODULES)
    other = tmp_path / "other"
    write_package(other, {"all_x": "acme.x:late"}, version="0.1", modules=MODULES)
    made = plan("pkg:all_x", "pkg:all_x", path=[site, other, site])
    (planned,) = made.plugins
    assert planned.argv[3] == b"acme.x:main"
    assert said(made) == []


def test_two_packages_with_one_name_are_said(site: Path) -> None:
    """The first runs, and the line names both."""
    write_package(site, {"all_x": "acme.x:main"}, modules=MODULES)
    write_package(site, {"all_x": "other:main"}, "other", "7")
    made = plan("pkg:all_x", path=[site])
    assert [planned.argv[3] for planned in made.plugins] == [b"acme.x:main"]
    (text,) = said(made)
    assert text == (
        "warning: Plugin 'all_x': 'other 7' offers a plugin of this name, too: that of "
        "'acme-plugins 1.0' comes first on sys.path and is the one that runs"
    )


def test_a_file_of_the_same_name_is_another_plugin(site: Path, tmp_path: Path) -> None:
    """Each has a name of its own, in the settings, too."""
    write_package(site, {"all_x": "acme.x:main"}, modules=MODULES)
    write_modules(tmp_path, {"plugins/all_x.py": "pass\n"})
    settings = {"pkg:all_x": {"args": ["one"]}, "all_x.py": {"args": ["two"]}}
    made = plan("pkg:all_x", tmp_path / "plugins", path=[site], plugins=settings)
    assert [(planned.name, planned.argv[-1]) for planned in made.plugins] == [
        ("all_x.py", b"two"),
        ("pkg:all_x", b"one"),
    ]
    assert said(made) == []


def test_an_unknown_one_is_said_with_what_there_is(site: Path) -> None:
    """A slip is known, a plugin of the gallery with what installs it."""
    write_package(site, {"all_beat": "acme.x:main"}, modules=MODULES)

    def line(location: str, path: list[Path]) -> str:
        made = plan(location, path=path)
        assert made.plugins == ()
        (text,) = said(made)
        return text

    assert line("pkg:all_baet", [site]) == (
        "warning: Location 'pkg:all_baet' is offered by no package that is installed for the "
        "engine's Python; installed are 'all_beat' (acme-plugins 1.0); "
        "did you mean 'pkg:all_beat'?"
    )
    assert line("pkg:sheduler_heartbeat", []).endswith(
        "no plugin is installed; did you mean 'pkg:scheduler_heartbeat'? "
        "(pip install 'lmcache-plugin-adapter[gallery]')"
    )
    text = line("pkg:all_alert_reporter", [site])
    assert "is a plugin of lmcache-plugin-adapter, which is not installed" in text
    assert "pip install 'lmcache-plugin-adapter[gallery]'" in text
    for wild in ("pkg:", "pkg:*", "pkg:all_*", "pkg:../all_beat", "pkg:all_beat\x1b[31m\n"):
        text = line(wild, [site])
        assert "names no installed plugin" in text
        assert text.isprintable()
    assert line("pkg:all_beat.py", [site]).endswith("did you mean 'pkg:all_beat'?")


def test_a_package_that_cannot_be_read_is_said_where_it_may_be_the_reason(site: Path) -> None:
    """And only there."""
    metadata = write_package(site, {"all_lost": "acme.x:main"}, "broken")
    (metadata / "entry_points.txt").unlink()
    os.mkfifo(metadata / "entry_points.txt")
    write_package(site, {"all_x": "acme.x:main"}, modules=MODULES)
    assert said(plan("pkg:all_x", path=[site])) == []
    (text,) = said(plan("pkg:all_lost", path=[site]))
    assert f"; '{metadata}/entry_points.txt' cannot be read: it is no regular file; " in text


def test_many_installed_ones_are_not_all_listed(site: Path) -> None:
    """A line stays a line."""
    write_package(site, {f"all_{number}": "acme.x:main" for number in range(100)})
    (text,) = said(plan("pkg:all_none", path=[site]))
    assert "90 more" in text
    assert len(text) < 700


@pytest.mark.parametrize(
    "value",
    [
        *("acme.x", "acme.x:", ":main", "", "acme x:main", "acme.x:main()", "acme..x:main"),
        *("acme.x:main;import os", "../acme:main", "acme/x:main", "acme.x:main:more", "-c:main"),
        *("__import__('os'):system", "acme.x:class", "1acme:main", "acme.x:" + "m" * 600, "a\0:b"),
    ],
)
def test_a_malformed_entry_point_is_refused(site: Path, value: str) -> None:
    """Nothing of it is evaluated, and the line says how one is written."""
    write_package(site, {"all_x": value}, modules=MODULES)
    made = plan("pkg:all_x", path=[site])
    (planned,) = made.plugins
    assert planned.argv == ()
    assert planned.refused is not None
    assert planned.refused.isprintable()
    assert len(planned.refused) < 400
    assert planned.refused.startswith("its package 'acme-plugins 1.0' says that '")
    assert planned.refused.endswith("an entry point is written as 'package.module:function'")


def test_what_an_entry_point_may_be() -> None:
    """Dots on both sides, spaces around the colon, and the extras of old packages."""
    assert read_reference("acme:main") == "acme:main"
    assert read_reference("acme.x : Class.run") == "acme.x:Class.run"
    assert read_reference("acme.x:main [fast,slow]") == "acme.x:main"


@given(st.text(max_size=50))
def test_whatever_is_taken_has_nothing_but_identifiers(value: str) -> None:
    """The value is what somebody else's package says."""
    for word in filter(None, re.split("[.:]", read_reference(value))):
        assert word.isidentifier()


def test_modules_are_found_without_running_them(site: Path) -> None:
    """Packages, modules, directories without ``__init__``, and what there is not."""
    stop = "raise SystemExit\n"
    tree = {f"a/{name}.py": stop for name in ("__init__", "b", "c/__init__", "c/d", "n/m", "n/o/p")}
    write_modules(site, {**tree, "f.py": stop})
    (site / "e").mkdir()
    sub = ("a/__init__.py", "a/c/__init__.py", "a/c/d.py")
    expected = {
        "f": ("f.py",),
        "a": ("a/__init__.py",),
        "a.b": ("a/__init__.py", "a/b.py"),
        "a.c.d": sub,
        "a.n.m": ("a/__init__.py", "a/n/m.py"),
        "a.n.o.p": ("a/__init__.py", "a/n/o/p.py"),
        **dict.fromkeys(("a.z", "z", "e", "a.b.c", "sys", "a.n"), ()),
    }
    for module, files in expected.items():
        found = module_files(module, ["/nowhere", "/dev/null", str(site)])
        assert tuple(file for file, _ in found) == tuple(str(site / file) for file in files)
    assert not {"a", "f"} & set(sys.modules)
    ((_, cached),) = module_files("f", [str(site)])
    assert cached.startswith(str(site / "__pycache__" / "f."))


def checked(site: Path, **values: Any) -> tuple[str | None, list[str]]:
    """Return why ``all_x`` is refused, if it is, and what is said."""
    made = plan("pkg:all_x", path=[site], **values)
    (planned,) = made.plugins
    assert bool(planned.argv) is (planned.refused is None)
    return planned.refused, said(made)


@pytest.mark.parametrize(
    "what",
    [
        *("acme/x.py", "acme/__init__.py", "acme", ".", "acme/__pycache__"),
        *("acme_plugins-1.0.dist-info", "acme_plugins-1.0.dist-info/entry_points.txt"),
    ],
)
def test_what_strangers_can_write_is_refused(site: Path, what: str) -> None:
    """Each file that decides what runs, and each directory on the way to it."""
    write_package(site, {"all_x": "acme.x:main"}, modules=MODULES)
    (site / "acme" / "__pycache__").mkdir()
    assert checked(site) == (None, [])
    path = site / what
    path.chmod(0o777 if path.is_dir() else 0o666)
    refused, _ = checked(site)
    assert refused is not None
    assert f"'{path.resolve()}' can be written by everyone: chmod go-w" in refused
    refused, texts = checked(site, allow_insecure_permissions=True)
    assert refused is None
    assert "can be written by everyone" in texts[0]
    path.chmod(0o775 if path.is_dir() else 0o664)
    refused, texts = checked(site)
    assert refused is None
    assert "can be written by group" in texts[0]


def test_a_module_that_only_code_can_find_is_a_note(site: Path) -> None:
    """It runs; that nobody checked who can write to it is what a check shows."""
    write_package(site, {"all_x": "acme.x:main"})
    made = plan("pkg:all_x", path=[site])
    assert made.plugins[0].argv
    assert said(made) == []
    found = scan(["pkg:all_x"], import_path=[str(site)])
    settings, _ = read_settings({})
    (file,) = report_files([WORKER_0], PluginFiles(found, settings, sys.executable, ""))
    (note,) = file.problems
    assert note.level == "note"
    assert "the file of module 'acme.x' is not found without running code" in note.text


def test_a_change_is_noticed(site: Path) -> None:
    """Of the module, of a package above it, by a new installation; nothing else is one."""
    metadata = write_package(site, {"all_x": "acme.x:main"}, modules=MODULES)

    def signature() -> object:
        return plan("pkg:all_x", path=[site]).plugins[0].signature

    seen = [signature()]
    assert signature() == seen[0]
    (site / "acme" / "other.py").touch()
    assert signature() == seen[0]
    for file in (site / "acme/x.py", site / "acme/__init__.py", metadata / "RECORD"):
        file.write_text(file.read_text() + "\n")
        seen.append(signature())
    metadata.rename(site / "acme_plugins-1.1.dist-info")
    (site / "acme_plugins-1.1.dist-info" / "entry_points.txt").touch()
    seen.append(signature())
    assert len(set(seen)) == len(seen)


def test_a_hung_path_is_known_by_the_location(site: Path) -> None:
    """Each location is told before anything is touched for it, and can be skipped."""
    write_package(site, {"all_x": "acme.x:main", "all_y": "acme.x:main"}, modules=MODULES)
    told: list[str] = []
    found = scan(["pkg:all_x", "pkg:all_y"], told.append, frozenset(), [str(site)])
    assert list(dict.fromkeys(told)) == ["pkg:all_x", "pkg:all_y"]
    assert found.complete
    assert scan(["pkg:all_x"], told.append, frozenset({"pkg:all_x"}), [str(site)]) == scan(
        ["/skipped"], None, frozenset({"/skipped"})
    )


def test_a_file_is_never_taken_for_an_installed_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``pkg:`` is no directory's name; with ``./`` before it, it is."""
    write_modules(tmp_path, {"pkg:x/all_x.py": "pass\n"})
    monkeypatch.chdir(tmp_path)
    assert plan("pkg:x", path=[]).plugins == ()
    assert [planned.name for planned in plan("./pkg:x", path=[]).plugins] == ["all_x"]


def test_without_one_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    """Only who names an installed plugin pays for it."""
    code = (
        "import sys; from lmcache_plugin_adapter.supervisor.planning import child;"
        "from lmcache_plugin_adapter.planner import discovery;"
        f"discovery.scan([{str(tmp_path)!r}]);"
        "print(*(m for m in sys.modules if m.startswith(('lmcache_', 'importlib'))))"
    )
    run = [sys.executable, "-S", "-c", code]
    loaded = subprocess.run(
        run, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "lmcache_plugin_adapter.supervisor.planning.child" in loaded
    for module in (
        "lmcache_plugin_adapter.planner.installed_plugin",
        "lmcache_plugin_adapter.planner.installed_packages",
    ):
        assert module not in loaded


def test_the_gallery_is_registered() -> None:
    """Each of its names with a module of its own."""
    text = (ROOT / "pyproject.toml").read_text()
    section = text.partition(f'[project.entry-points."{GROUP}"]\n')[2].partition("\n\n")[0]
    found = dict(re.findall(r'^(\w+) = "([\w.:]+)"$', section, re.MULTILINE))
    assert tuple(sorted(found)) == GALLERY
    for value in found.values():
        assert read_reference(value) == value
        assert module_files(value.partition(":")[0], [str(ROOT)])


@pytest.fixture
def check(site: Path, tmp_path: Path) -> Callable[..., str]:
    """Run ``lmcache-plugins check`` where the packages of ``site`` are installed."""

    def run(*options: str, status: int = 0, locations: object = ("pkg:worker_x",)) -> str:
        config = {"runtime_plugin_locations": list(locations)}  # type: ignore[call-overload]
        (tmp_path / "lmcache.yaml").write_text(json.dumps(config))
        env = {"PYTHONPATH": f"{ROOT}:{site}"}
        result = command("check", "-c", "lmcache.yaml", *options, cwd=tmp_path, env=env)
        assert (result.returncode, result.stderr) == (status, "")
        return result.stdout

    return run


def test_check_shows_where_it_comes_from(site: Path, check: Callable[..., str]) -> None:
    """With the package in the table, and what else is installed in a note."""
    names = ("worker_x", "all_y", "server_z")
    write_package(site, dict.fromkeys(names, "acme.x:main"), modules=MODULES)
    out = check("--tp", "2")
    assert "server_z" not in out  # it runs on none of these processes
    (title,) = (line for line in out.splitlines() if line.startswith("installed "))
    assert title.split() == ["installed", "runs", "on", "as", "the", "function"]
    (row,) = (line for line in out.splitlines() if line.startswith("worker_x "))
    assert row.split("  ")[0] == "worker_x (acme-plugins 1.0)"
    assert "workers 0-1" in row
    assert row.endswith("  acme.x:main")
    assert re.search(
        r"^note +installed, and named by no location: .*'pkg:all_y' \(acme", out, re.MULTILINE
    )
    assert "installed" not in check(locations=["."])


def test_check_names_the_plugin_for_these_processes(site: Path, check: Callable[..., str]) -> None:
    """A server's plugin is often offered under two names."""
    names = ("worker_x", "server_z", "all_y")
    write_package(site, dict.fromkeys(names, "acme.x:main"), modules=MODULES)
    out = check("--server")
    assert "'pkg:worker_x': it runs on every worker, which is not among these processes; " in out
    assert "; here it is 'pkg:all_y' or 'pkg:server_z'\n" in out


def test_check_json_shows_where_it_comes_from(site: Path, check: Callable[..., str]) -> None:
    """Package, entry point and file."""
    write_package(site, {"worker_x": "acme.x:main"}, modules=MODULES)
    (file,) = json.loads(check("--json"))["files"]
    assert file["package"] == {
        "name": "acme-plugins",
        "version": "1.0",
        "entry_point": "acme.x:main",
        "file": str(site / "acme" / "x.py"),
    }
    assert (file["path"], file["location"]) == ("pkg:worker_x", "pkg:worker_x")
    assert (file["name"], file["status"]) == ("worker_x", "runs")
    assert [process["role"] for process in file["runs_on"]] == ["worker"]


def test_check_goes_on_where_their_directory_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever names two of them waits for each, and not for what else is installed."""
    real = os.scandir

    def scandir(path: str) -> object:
        if path == "/hung":
            time.sleep(60)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(sys, "path", [*sys.path, "/hung"])
    monkeypatch.setattr(check_report, "patiently", partial(patiently, patience=1.5))
    write_modules(tmp_path, {"all_x.py": "pass\n"})
    config = tmp_path / "lmcache.yaml"
    locations = ["pkg:all_x", "pkg:all_y", str(tmp_path / "all_x.py")]
    config.write_text(json.dumps({"runtime_plugin_locations": locations}))
    report = check_report.make_report(check_report.EngineSize(), read_config(str(config)))
    assert [(file.path, file.status) for file in report.files] == [(locations[2], "runs")]
    waited = [problem.text for problem in report.problems if "not answer" in problem.text]
    assert len(waited) == 2


def test_a_name_that_the_locale_lacks_is_refused(site: Path, tmp_path: Path) -> None:
    """Only this plugin, and not the search for all."""
    write_package(site, {"all_x": "acme.\u03b6:main", "all_y": "acme.x:main"}, modules=MODULES)
    config = tmp_path / "lmcache.yaml"
    config.write_text(json.dumps({"runtime_plugin_locations": ["pkg:all_x", "pkg:all_y"]}))
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    env = {"PYTHONPATH": f"{ROOT}:{site}", **ascii_only}
    result = command("check", "-c", config, "--json", env=env)
    files = json.loads(result.stdout)["files"]
    assert [(file["path"], file["status"]) for file in files] == [
        ("pkg:all_x", "refused"),
        ("pkg:all_y", "runs"),
    ]


def test_check_fails_where_one_is_refused(site: Path, check: Callable[..., str]) -> None:
    """And says elsewhere what would run elsewhere."""
    write_package(site, {"worker_x": "acme.x", "server_y": "acme.x:main"}, modules=MODULES)
    out = check(status=1, locations=["pkg:worker_x", "pkg:server_y"])
    assert re.search(
        r"^error +'pkg:worker_x': its package 'acme-plugins 1.0' says", out, re.MULTILINE
    )
    assert re.search(
        r"^note +'pkg:server_y': it runs on server, which is not among", out, re.MULTILINE
    )


def test_advice_for_a_missing_module() -> None:
    """What to install: the package again, the gallery's extra, or what the package asks for."""
    gallery = run_entry_point.advice("lmcache_plugin_adapter.gallery.heartbeat", "httpx")
    assert gallery.endswith(
        f"it needs 'httpx': {sys.executable} -m pip install 'lmcache-plugin-adapter[gallery]'"
    )
    assert "its module 'acme' is not there" in run_entry_point.advice("acme.x", "acme")
    assert "its module 'acme.x' is not there" in run_entry_point.advice("acme.x", "acme.x")
    assert "it needs 'acme.xy'" in run_entry_point.advice("acme.x", "acme.xy")
