# SPDX-License-Identifier: Apache-2.0
"""The gallery's pages say what the code takes, and their examples are accepted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmcache_plugin_adapter.gallery.reference_page import SECTIONS, section, with_section

PAGES = Path(__file__).parents[2] / "docs" / "plugin-authors" / "gallery"
EXAMPLE = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> list[pytest.ParameterSet]:
    """Return every lmcache.yaml of the pages."""
    return [
        pytest.param(text, id=f"{page.stem}-{number}")
        for page in sorted(PAGES.glob("*.md"))
        for number, text in enumerate(EXAMPLE.findall(page.read_text(encoding="utf-8")))
        if "runtime_plugin_locations" in text
    ]


@pytest.mark.parametrize("name", SECTIONS)
def test_a_page_has_not_drifted(name: str) -> None:
    """After a change, write it anew; the marker in the page says how."""
    page = PAGES / SECTIONS[name][0]
    text = page.read_text(encoding="utf-8")
    assert with_section(text, section(name)) == text


@pytest.mark.parametrize("text", examples())
def test_an_example_of_a_page_is_accepted(text: str, tmp_path: Path) -> None:
    """By ``lmcache-plugins check --strict``, with two workers."""
    path = tmp_path / "lmcache.yaml"
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "lmcache_plugin_adapter", "check", "-c", str(path)]
    done = subprocess.run(
        [*command, "--tp", "2", "--strict"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_without_markers_is_refused() -> None:
    """Rather than left as it is."""
    with pytest.raises(ValueError, match="needs one line"):
        with_section("# A page\n", "")


def test_the_table_of_kinds_names_tests_that_exist() -> None:
    """With their files."""
    table = (PAGES.parents[2] / "tests/README.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/.]+\.py)(?:::(\w+))?`", table.partition("## Kinds of faults")[2])
    assert len(named) > 20
    for path, name in named:
        text = (Path(__file__).parent / path).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in text
