# SPDX-License-Identifier: Apache-2.0
"""What ``check`` shows of installed plugins, and what it finds missing without importing them."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from cli_under_test import ROOT, command
from installed_packages import write_package

from lmcache_plugin_adapter.cli.check import missing_libraries as module
from lmcache_plugin_adapter.cli.check.missing_libraries import missing_in_file, missing_libraries
from lmcache_plugin_adapter.planner.installed_plugin import RUNNER

_TRY = "try:\n    import no_a\nexcept "


def check(directory: Path, *options: str, status: int = 0, **settings: object) -> str:
    """Check ``pkg:all_x`` of the packages in ``directory``; return what is printed."""
    content = {
        "runtime_plugin_locations": ["pkg:all_x"],
        "extra_config": {"runtime_plugins": {"plugins": {"all_x": settings}}},
    }
    (directory / "lmcache.yaml").write_text(json.dumps(content))
    result = command(
        *("check", "-c", "lmcache.yaml", *options),
        cwd=directory,
        env={"PYTHONPATH": f"{ROOT}{os.pathsep}{directory}"},
    )
    assert (result.returncode, result.stderr) == (status, ""), result
    return result.stdout


def test_function_and_command(tmp_path: Path) -> None:
    """The table names the function, with the plugin's arguments; JSON has the whole command."""
    write_package(tmp_path, {"all_x": "acme.x:main"}, modules={"acme/x.py": "import json\n"})
    shown = check(tmp_path, "--strict", args=["--verbose", "a b"])
    (row,) = (line for line in shown.splitlines() if line.startswith("all_x (acme-plugins 1.0)"))
    assert row.endswith("  acme.x:main --verbose 'a b'")
    document = json.loads(check(tmp_path, "--json", args=["--verbose", "a b"]))
    (file,) = document["files"]
    assert file["command"] == [
        *(sys.executable, RUNNER, "all_x", "acme.x:main", str(tmp_path), "--verbose", "a b")
    ]
    assert file["package"]["entry_point"] == "acme.x:main"


def test_missing_library(tmp_path: Path) -> None:
    """An error: the plugin cannot start; nothing of the package is imported."""
    modules = {
        "acme/__init__.py": "raise SystemExit('imported')\n",
        "acme/x.py": "from .y import z\n",
        "acme/y.py": "import os, no_such_library.part\n",
    }
    write_package(tmp_path, {"all_x": "acme.x:main"}, modules=modules)
    shown = check(tmp_path, status=1)
    assert (
        "error   'pkg:all_x': it needs 'no_such_library', which is not installed for the engine's "
        "Python: install it, or the extra of the plugin's package that brings it\n"
    ) in shown


@pytest.mark.parametrize(
    ("init", "settings"),
    [("", {"env": {"PYTHONPATH": "lib"}}), ("import sys\nsys.path.insert(0, '_vendor')\n", {})],
)
def test_a_plugin_that_chooses_where_it_imports_from(
    tmp_path: Path, init: str, settings: dict[str, object]
) -> None:
    """A warning: it may find the library there."""
    modules = {"acme/__init__.py": init, "acme/x.py": "import no_such_library\n"}
    write_package(tmp_path, {"all_x": "acme.x:main"}, modules=modules)
    shown = check(tmp_path, **settings)
    assert "warning 'pkg:all_x': it needs 'no_such_library', which is not installed" in shown


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("import json, acme.other\nfrom yaml import safe_load\n", []),
        ("import no_a\nfrom no_b.c import d\n", ["no_a", "no_b"]),
        ("from . import lib\n", ["no_l"]),
        ("from acme.lib import x\n", ["no_l"]),
        ("import acme.lib as l\n", ["no_l"]),
        ("try:\n    import no_a\nexcept ImportError:\n    no_a = None\n", []),
        ("try:\n    import no_a\nexcept ImportError as e:\n    kit.exit_without(e)\n", ["no_a"]),
        ("try:\n    import no_a\nexcept ImportError:\n    raise SystemExit(3)\n", ["no_a"]),
        (f"{_TRY}ImportError:\n    try:\n        import json\n    except:\n        raise\n", []),
        (f"{_TRY}ImportError:\n    no_a = None\nexcept OSError:\n    raise\n", []),
        (f"{_TRY}(OSError, ImportError):\n    def no_a():\n        raise OSError\n", []),
        ("if TYPE_CHECKING:\n    import no_a\n", []),
        ("def main():\n    import no_a\n", []),
        ("import no_a as\n", []),
        ("from . import x\nimport no_a\n", ["no_a"]),
    ],
)
def test_imports(tmp_path, monkeypatch, text: str, missing: list[str]) -> None:
    """Those at the top of the module, and of the modules of its package that these import."""
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "x.py").write_text(text)
    (tmp_path / "acme" / "lib.py").write_text("import no_l\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert missing_libraries(["acme.x"]) == (missing, True)


@pytest.mark.parametrize(
    ("settings", "missing"),
    [({}, ["msgspec"]), ({"remote_write": {"url": "http://x"}}, ["cramjam", "msgspec"])],
)
def test_gallery(monkeypatch, settings: dict[str, object], missing: list[str]) -> None:
    """Its modules, and those of the targets that the settings name."""
    installed = module._is_installed
    monkeypatch.setattr(
        module, "_is_installed", lambda top: top not in ("cramjam", "msgspec") and installed(top)
    )
    problems = module._problems(
        "lmcache_plugin_adapter.gallery.metric_reporter:main", json.dumps(settings)
    )
    (problem,) = problems  # one command installs them all
    assert problem.text.partition(", which ")[0].split("'")[1::2] == missing
    command = f"{sys.executable} -m pip install 'lmcache-plugin-adapter[gallery]'"
    assert problem.level == "error"
    assert problem.text.endswith(f"installed for the engine's Python: {command}")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("import json, beside\nfrom beside import x\n", []),
        ("import no_a\nfrom . import b\n", ["no_a"]),
        ("try:\n    import no_a\nexcept ImportError as e:\n    kit.exit_without(e)\n", ["no_a"]),
        ("import sys\nsys.path.insert(0, 'lib')\nimport no_a\n", []),
    ],
)
def test_imports_of_a_file(tmp_path: Path, text: str, missing: list[str]) -> None:
    """Modules beside the file are found, also by a program behind a link."""
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "x.py").write_text(text)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "x.py").symlink_to("../x.py")
    assert missing_in_file(str(tmp_path / "x.py")) == missing
    assert missing_in_file(str(tmp_path / "links" / "x.py")) == missing


def test_a_file_that_lacks_a_library(tmp_path: Path) -> None:
    """One warning, not a second one for its settings."""
    (tmp_path / "all_x.py").write_text("import no_a\n__plugin_settings__ = 1\n")
    shown = command("check", tmp_path / "all_x.py", cwd=tmp_path).stdout
    assert "it needs 'no_a', which is not installed for the engine's Python" in shown
    assert shown.endswith("\n1 plugin, 0 errors, 1 warning, 0 notes\n")


def test_a_plugin_without_msgspec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command installs the kit's extra."""
    installed = module._is_installed
    monkeypatch.setattr(module, "_is_installed", lambda top: top != "msgspec" and installed(top))
    command("new", "x", "--role", "all", cwd=tmp_path)
    assert missing_in_file(str(tmp_path / "all_x.py")) == ["msgspec"]
    (problem,) = module._problem("warning", ["msgspec"], "")
    assert problem.text.endswith("-m pip install 'lmcache-plugin-adapter[kit]'")


def test_companions_have_no_notes(tmp_path: Path) -> None:
    """The configuration beside its plugins, and directories that are not searched."""
    (tmp_path / "_tests").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("all_x.sh", "_tests/test_x.py", "notes.md", "other.yaml"):
        (tmp_path / name).write_text("true\n")
    (tmp_path / "lmcache.yaml").write_text("runtime_plugin_locations: [.]\n")
    shown = command("check", "-c", "lmcache.yaml", cwd=tmp_path).stdout
    assert ".yaml': '" not in shown
    assert "_tests" not in shown
    assert ".git" not in shown
    assert "'notes.md': '.md' is documentation or data" in shown
    assert shown.endswith("\n1 plugin, 0 errors, 0 warnings, 1 note\n")


def test_files_in_place_of_a_configuration(tmp_path: Path) -> None:
    """As with ``run``; the engine is large enough for the worker."""
    for name in ("worker_2_x.sh", "x.sh", "server_x.sh"):
        (tmp_path / name).write_text("#!/bin/sh\n")
    shown = command("check", "worker_2_x.sh", "x.sh", cwd=tmp_path)
    assert shown.returncode == 0
    assert re.search(r"^worker_2_x\.sh +worker 2 ", shown.stdout, re.MULTILINE)
    assert re.search(r"^warning .*x\.sh': .*name it 'all_x\.sh'", shown.stdout, re.MULTILINE)
    shown = command("check", "server_x.sh", cwd=tmp_path)
    assert re.search(r"^server_x\.sh +server ", shown.stdout, re.MULTILINE)
    for words, error in (
        (("x.yaml",), "no such file: 'x.yaml'"),
        (("lmcache.yaml",), "a configuration is given as '-c lmcache.yaml'"),
    ):
        (tmp_path / "lmcache.yaml").write_text("runtime_plugin_locations: [.]\n")
        result = command("check", *words, cwd=tmp_path)
        assert (result.returncode, error in result.stderr) == (2, True)


def test_a_new_plugin_has_its_settings_checked(tmp_path: Path) -> None:
    """A wrong value and an unknown key."""
    command("new", "x", "--role", "all", cwd=tmp_path)
    config = tmp_path / "lmcache.yaml"
    config.write_text(config.read_text().replace("interval: 10", "interval: often, bogus: 1"))
    result = command("check", "-c", "lmcache.yaml", cwd=tmp_path)
    assert result.returncode == 1
    assert "settings.interval': found 'often'" in result.stdout
    assert "settings.bogus' has no effect" in result.stdout


@pytest.mark.parametrize("language", ["python", "bash"])
def test_a_new_plugin_has_no_notes(tmp_path: Path, language: str) -> None:
    """Nor has its test or its configuration."""
    command("new", "x", "--role", "all", "--lang", language, "-d", tmp_path, cwd=tmp_path)
    shown = command("check", "-c", tmp_path / "lmcache.yaml", "--strict", cwd=tmp_path).stdout
    assert shown.endswith("\n1 plugin, 0 errors, 0 warnings, 0 notes\n")
