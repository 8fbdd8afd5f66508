# SPDX-License-Identifier: Apache-2.0
"""The commands in README and docs work, and the output they show is what is printed.

The comment before a fenced ``sh`` block says whether the test runs it, saves it
as a file or skips it: ``<!-- test: run -->``, ``<!-- test: file NAME -->`` or
``<!-- not tested here: WHY -->``. ``.ci/run`` runs README's two
commands that set up an environment, word for word.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from cli_under_test import ROOT, Running, command, environment

if TYPE_CHECKING:
    from pathlib import Path

EVERY_PAGE = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
)
PAGES = [page for page in EVERY_PAGE if page.parent.name != "gallery"]
"""tests/gallery tries the examples of the gallery's pages."""

SETUP = "python3 -m venv .venv && .venv/bin/pip install -q -e "
PROGRAM = ".venv/bin/lmcache-plugins"
ACTIVATED = {"lmcache-plugins": PROGRAM, "pytest": ".venv/bin/pytest"}
"""Commands after the activation of the environment."""

_BLOCK = re.compile(
    r"(?:<!-- (?P<comment>[^>]*) -->\n+)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\]\((?P<target>[^)#\s]*)(?:#(?P<anchor>[^)]*))?\)")


@dataclass(frozen=True)
class Block:
    """A fenced block and the comment before it."""

    page: str
    language: str
    comment: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    return [
        Block(str(page.relative_to(ROOT)), found["language"], found["comment"] or "", found["text"])
        for found in _BLOCK.finditer(page.read_text())
    ]


ALL = [block for page in PAGES for block in blocks(page)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the files that the commands use."""
    for name in ("configs", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def typed(line: str, checkout: Path) -> None:
    """Run a line as in a shell; stop ``run`` after a plugin's first output."""
    program, subcommand, *arguments = shlex.split(line)
    program = ACTIVATED.get(program, program)
    if program == ACTIVATED["pytest"]:
        tests = [sys.executable, "-m", "pytest", subcommand, *arguments]
        result = subprocess.run(
            tests, cwd=checkout, env=environment(), capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout
        return
    assert program == PROGRAM, line
    if subcommand == "run":
        with Running(checkout, *arguments, cwd=checkout) as running:
            running.until_logs(re.compile(r"\[\w+\] .* \(\w+\.\w+:\d+:").search, "plugin's output")
            assert running.stop() == 0
    else:
        result = command(subcommand, *arguments, cwd=checkout)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page(page: Path, checkout: Path) -> None:
    """They succeed in their order, in a copy of the checkout."""
    for block in blocks(page):
        if block.comment.startswith("test: file "):
            path = checkout / block.comment.removeprefix("test: file ")
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)
        elif block.comment == "test: run":
            for line in block.text.splitlines():
                typed(line, checkout)
        elif block.language == "sh" and block.text.startswith(SETUP):
            _, and_then, last = block.text.strip().rpartition(" && ")
            assert and_then
            if last.startswith(PROGRAM):
                typed(last, checkout)
        elif block.language == "sh":
            assert block.comment.startswith("not tested here: "), block


def test_readme_has_the_two_commands_that_ci_runs() -> None:
    """Each is one line, under the heading by which ``.ci/run`` finds it."""
    readme = (ROOT / "README.md").read_text()
    ci = (ROOT / ".ci" / "run").read_text()
    for heading, end in (
        ("Run it", f"{PROGRAM} run -c configs/lmcache.yaml --tp 2"),
        ("Test it", ".venv/bin/pytest"),
    ):
        section = readme.split(f"## {heading}\n")[1].split("\n## ")[0]
        (line,) = [
            found["text"].strip()
            for found in _BLOCK.finditer(section)
            if found["text"].startswith(SETUP)
        ]
        assert "\n" not in line
        assert line.endswith(f" && {end}")
        assert f'readme_command "{heading}"' in ci


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """The target of each relative link exists, and has the heading that the link names."""
    for found in _LINK.finditer(_without_code(page)):
        target, anchor = found["target"], found["anchor"]
        if "://" in target:
            continue
        path = page.parent / target if target else page
        assert path.exists(), found[0]
        if anchor:
            assert anchor in anchors(path), found[0]


def _without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", _without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readmes_output_is_what_is_printed(checkout: Path) -> None:
    """The command prints README's lines, except for times, pids and figures."""
    (shown,) = [b.text for b in ALL if b.comment == "test: output of run"]
    lines = [shape(line) for line in shown.splitlines() if line != "..."]
    at_first = [line for line in lines if "INFO" in line and "goodbye" not in line]
    at_first = [line for line in at_first if "Stopped" not in line]

    def printed(text: str) -> set[str]:
        return {shape(line) for line in text.replace(str(checkout), "/checkout").splitlines()}

    arguments = ("-c", "configs/lmcache.yaml", "--tp", "2")
    with Running(checkout, *arguments, cwd=checkout) as running:
        running.until_logs(lambda log: printed(log) >= set(at_first), str(at_first))
        assert running.stop() == 0
        assert printed(running.stdout + running.log) >= set(lines)


def shape(line: str) -> str:
    """Return a line without the parts that differ from run to run."""
    return re.sub(r"\d+", "0", re.sub(r"[\d.]+ m?s\b", "0 s", line))


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "yaml"], ids=lambda b: b.page)
def test_yaml_is_read_without_complaint(block: Block, tmp_path: Path) -> None:
    """No key is unknown and no value is invalid."""
    from lmcache_plugin_adapter.cli.lmcache_yaml import load_lmcache_yaml
    from lmcache_plugin_adapter.configuration.settings import read_settings

    path = tmp_path / "lmcache.yaml"
    path.write_text(block.text)
    config = load_lmcache_yaml(str(path), {})
    _, problems = read_settings(config.extra_config, {})
    assert [*config.problems, *problems] == []
