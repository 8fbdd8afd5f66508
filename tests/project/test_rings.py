# SPDX-License-Identifier: Apache-2.0
"""tests/README.md names every ring, and CI runs each of them."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from cli_under_test import ROOT

TESTS = ROOT / "tests"
README = (TESTS / "README.md").read_text()
CI = (ROOT / ".ci" / "run").read_text()
REAL_ENGINE = "tests/real_engine/ring"


def section(heading: str) -> str:
    """Return the text below a heading of the page."""
    return README.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def commands(text: str) -> list[list[str]]:
    """Return the words of each command in the ``sh`` blocks of a text."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


def default_paths() -> list[str]:
    """Return the paths that pytest runs without arguments, which is README's test command."""
    project = (ROOT / "pyproject.toml").read_text()
    (paths,) = re.findall(r"^testpaths = \[(.*)\]$", project, re.MULTILINE)
    return re.findall(r'"(.+?)"', paths)


def folders(words: list[str]) -> set[str]:
    """Return the names of the rings that a command runs, of commands of any kind."""
    if words[0] == "bash" and words[1] == REAL_ENGINE:
        return set(words[2:3]) & {"contract"} or {"real_engine"}
    paths = [word for word in words[1:] if word.startswith("tests/")] or default_paths()
    return {path.split("/")[1] for path in paths}


def run_by_ci() -> set[str]:
    """Return the names of the rings that ``.ci/run`` runs, itself or by the script of a ring."""
    assert 'readme_command "Test it"' in CI
    found = {path.split("/")[1] for path in default_paths()}
    script = (ROOT / REAL_ENGINE).read_text() if f"bash {REAL_ENGINE}\n" in CI else ""
    for text in (CI, script):
        for line in re.findall(r"(?:bin/pytest|run_pytest) .*", text):
            found |= {path.split("/")[1] for path in re.findall(r"tests/\w+", line)}
    return found


RINGS = re.findall(r"^\| \[(\w+)\]\((\w+)\) \|", section("Rings"), re.MULTILINE)
COMMANDS = commands(section("Run a ring"))
PROGRAMS = commands(section("Longer runs"))


def test_each_test_file_is_in_one_ring() -> None:
    """A file outside of the rings would never run."""
    assert all(name == folder for name, folder in RINGS)
    names = [name for name, _ in RINGS]
    assert len(set(names)) == len(names) > 0
    files = [path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")]
    assert {path.parts[0] for path in files if len(path.parts) > 1} == set(names)
    assert [str(path) for path in files if len(path.parts) == 1] == []


def test_unit_tests_are_in_the_rooms_of_the_package() -> None:
    """Each folder of unit tests has its room."""
    rooms = {path.name for path in (ROOT / "lmcache_plugin_adapter").iterdir() if path.is_dir()}
    folders_of_tests = {path.parent.name for path in (TESTS / "unit").rglob("test_*.py")}
    assert folders_of_tests <= rooms


def test_ci_runs_each_ring() -> None:
    """By README's test command, in a step of its own, or by the script of real vLLM."""
    assert run_by_ci() == {name for name, _ in RINGS}


def test_each_ring_has_a_command() -> None:
    """The page shows how to run each ring alone."""
    alone = [folders(words) for words in COMMANDS if words[0] != ".venv/bin/python"]
    assert [name for name, _ in RINGS if {name} not in alone] == []


@pytest.mark.parametrize("words", COMMANDS + PROGRAMS, ids=" ".join)
def test_a_command_exists(words: list[str]) -> None:
    """Its program and each path exist, and each long option is one of the program's."""
    program, *arguments = words
    assert program in (".venv/bin/pytest", ".venv/bin/python", "bash")
    paths = [Path(word) for word in arguments if word.startswith("tests/")]
    for path in paths:
        assert (ROOT / path).exists(), path
    if program == ".venv/bin/python":
        text = (ROOT / paths[0]).read_text()
        for option in [word for word in arguments if word.startswith("--")]:
            assert f'"{option}"' in text, option


@pytest.mark.parametrize(
    "name", re.findall(r"`(\w+\.py)`", section("Shared set-up")), ids=lambda name: name
)
def test_a_shared_module_exists(name: str) -> None:
    """The page names no module that is gone."""
    assert (TESTS / name).is_file()


def test_no_shared_module_is_missing() -> None:
    """The page names each module that lies beside the rings."""
    beside = {name for name in os.listdir(TESTS) if name.endswith(".py")}
    named = set(re.findall(r"`(\w+\.py)`", section("Shared set-up")))
    assert beside == named
