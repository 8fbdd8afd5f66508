# SPDX-License-Identifier: Apache-2.0
"""What the pages of the kit and of its tests show exists; tests/project runs their commands."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.kit.stopping import Stop
from lmcache_plugin_adapter.kit.testing.trial import StandIn, Trial

if TYPE_CHECKING:
    from lmcache_plugin_adapter.kit.testing import RunPlugin

AUTHORS = Path(__file__).parents[2] / "docs" / "plugin-authors"
PAGE = (AUTHORS / "kit.md").read_text()
TESTING = (AUTHORS / "testing.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE + TESTING, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
PLUGIN = PYTHON[0]


@pytest.mark.parametrize("block", PYTHON)
def test_python_is_python(block: str) -> None:
    """And the names of the kit in it are there."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "kit":
                assert node.attr in kit.__all__
            if node.value.id == "stop":
                assert hasattr(Stop, node.attr)
            if node.value.id == "ctx":
                assert node.attr in ctx_attributes()


def ctx_attributes() -> set[str]:
    """Return what a context has."""
    ctx = kit.Context(role="WORKER", worker_id=0, worker_count=1, name="x")
    return {name for name in dir(ctx) if not name.startswith("_")}


def section(title: str) -> str:
    """Return a section of the page."""
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def test_every_name_is_told() -> None:
    """Of the kit, of a context, of a stop and of a trial; and no other."""
    for name in set(kit.__all__) - {"ApiAddress", "Context", "Tick"}:
        assert f"kit.{name}" in PAGE, name
    told = set(re.findall(r"^\| `(.*?)` \|", section("Identity"), re.MULTILINE))
    told = {name for names in told for name in names.split("`, `")}
    assert told == ctx_attributes() - {"from_environ", "settings", "names"}
    for name in set(re.findall(r"`stop\.(\w+)", PAGE)):
        assert hasattr(Stop, name), name
    rows = re.findall(r"^\| (`.*?`) \|", TESTING, re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`(\w+(?:\.\w+)?)", row)}
    arguments = set(Trial.__init__.__annotations__) - {"return", "plugin", "directory"}
    for name in names - arguments:
        engine, _, attribute = name.partition(".")
        if engine == "engine":
            assert hasattr(StandIn, attribute) or attribute == "pid"
        else:
            assert hasattr(Trial, name)
    assert arguments <= names


def test_the_messages_are_those_that_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the plugin that is shown."""
    scope: dict[str, Any] = {"__name__": "all_version"}
    exec(compile(PLUGIN, "all_version.py", "exec", dont_inherit=True), scope)
    own = {"all_version": {"settings": {"interval": "5", "intervall": 5}}}
    config = {"extra_config": {"runtime_plugins": {"plugins": own}}}
    ctx = kit.Context(role="WORKER", worker_id=0, worker_count=1, name="all_version", config=config)
    ctx.settings(scope["Settings"])
    (shown,) = [text for language, text in BLOCKS if language == "text"]
    printed = re.sub(r"^<\d>", "", capsys.readouterr().out, flags=re.MULTILINE)
    assert sorted(printed.splitlines()) == sorted(shown.splitlines())


def test_the_test_that_is_shown_works(run_plugin: RunPlugin, tmp_path: Path) -> None:
    """On the plugin that is shown."""
    (block,) = [text for text in PYTHON if "def test_" in text]
    plugin = tmp_path / "plugins" / "all_version.py"
    plugin.parent.mkdir()
    plugin.write_text(PLUGIN)
    scope: dict[str, Any] = {"__file__": str(tmp_path / "test_all_version.py")}
    exec(compile(block, "test_all_version.py", "exec", dont_inherit=True), scope)
    (test,) = [value for name, value in scope.items() if name.startswith("test_")]
    test(run_plugin)
