# SPDX-License-Identifier: Apache-2.0
"""The folders of the package are rooms: few at the top, and each says what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_under_test import ROOT

PACKAGE = ROOT / "lmcache_plugin_adapter"
ROOMS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)


def test_few_modules_stand_at_the_top() -> None:
    """Only the names that users write."""
    assert {path.stem for path in PACKAGE.glob("*.py")} == {
        "__init__",
        "__main__",
        "connector",
        "server_module",
        "server_plugin",
    }


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(PACKAGE)))
def test_a_room_says_what_it_is(room: Path) -> None:
    """What it holds, in which process it runs, and what it may import."""
    text = (room / "__init__.py").read_text()
    assert "\nRuns in" in text or "` runs in " in text
    assert "mports " in text or " imports" in text


@pytest.mark.parametrize("room", [PACKAGE, *ROOMS], ids=lambda room: room.name)
def test_a_room_holds_about_a_dozen_modules(room: Path) -> None:
    """More of them want a folder of their own."""
    assert len([path for path in room.glob("*.py") if path.name != "__init__.py"]) <= 15


def test_the_picture_shows_every_room() -> None:
    """Of the top level, in docs/how-it-works/architecture.md."""
    page = (ROOT / "docs" / "how-it-works" / "architecture.md").read_text()
    picture = page.split("## Rooms")[1].split("## Walk")[0]
    for room in ROOMS:
        if room.parent == PACKAGE:
            assert f"`{room.name}`" in picture


def test_the_walks_name_modules_that_exist() -> None:
    """At most eight in a walk."""
    page = (ROOT / "docs" / "how-it-works" / "architecture.md").read_text()
    walks = [part.split("\n## ")[0] for part in page.split("\n## Walk: ")[1:]]
    assert len(walks) == 4
    for walk in walks:
        modules = set(re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)+)`", walk))
        assert 3 <= len(modules) <= 8, modules
        for module in modules:
            assert (PACKAGE / f"{module}.py").is_file(), module


def test_contributing_names_places_that_exist() -> None:
    """Modules below the package, tests and pages; what stands in angle brackets is to be made."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:lmcache_plugin_adapter/)?[a-z_]+/[a-z_/.0-9-]*)`", page)
    assert len(named) > 10
    for place in named:
        assert (
            (ROOT / place).exists()
            or (PACKAGE / place).exists()
            or (PACKAGE / f"{place}.py").exists()
        ), place


def test_every_source_file_names_its_licence() -> None:
    """In its first lines, in the form that licence scanners read (SPDX)."""
    sources = [
        path
        for folder in ("lmcache_plugin_adapter", "tests", "benchmarks", "configs", "examples")
        for suffix in (".py", ".sh")
        for path in (ROOT / folder).rglob(f"*{suffix}")
        if path.stat().st_size and "corpus" not in path.parts
    ]
    assert len(sources) > 100
    missing = [
        str(path.relative_to(ROOT))
        for path in sources
        if "# SPDX-License-Identifier: Apache-2.0" not in path.read_text().splitlines()[:2]
    ]
    assert missing == [], "begin these with '# SPDX-License-Identifier: Apache-2.0'"


def test_imports_show_whether_a_module_is_of_the_same_folder() -> None:
    """``from .module`` in it; the whole path to any other folder.

    Flit reads the version from a package that is not installed yet, so that import is relative.
    """
    relative = re.compile(r"^\s*from (?:\.\.|\.\w+\.).*", re.MULTILINE)
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := relative.findall(path.read_text()))
    }
    version = found.pop("__init__.py")
    assert [line.strip() for line in version] == ["from .contract.version import __version__"]
    assert found == {}
