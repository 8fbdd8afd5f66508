# SPDX-License-Identifier: Apache-2.0
"""The reference page: it says what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

from lmcache_plugin_adapter.configuration.reference_page import (
    ONE_PLUGIN_EXAMPLE,
    VARIABLES_READ,
    defaults_example,
    environment_page,
    reference_page,
)
from lmcache_plugin_adapter.configuration.settings import BackoffSettings, read_settings
from lmcache_plugin_adapter.configuration.settings_table import SETTINGS
from lmcache_plugin_adapter.configuration.variables_table import VARIABLES_SET
from lmcache_plugin_adapter.contract.frozen import replaced
from lmcache_plugin_adapter.contract.variables import ENDING_FILE, EXIT_REASONS
from lmcache_plugin_adapter.kit.context import Context

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def test_the_page_has_not_drifted() -> None:
    """After a change, write it anew; its first line says how."""
    command = [sys.executable, "-m", "lmcache_plugin_adapter.configuration.reference_page"]
    for arguments, name, page in (
        ([], "settings.md", reference_page()),
        (["environment"], "environment.md", environment_page()),
    ):
        written = subprocess.run([*command, *arguments], capture_output=True, check=True).stdout
        assert written.decode() == (REFERENCE / name).read_text(encoding="utf-8") == page


def test_the_example_of_the_defaults_is_the_defaults() -> None:
    """It can be copied as it is, and names every setting."""
    example = yaml.safe_load(defaults_example())
    section = example["extra_config"]["runtime_plugins"]
    assert read_settings(example["extra_config"], {}) == read_settings(None, {})
    for row in SETTINGS:
        top, _, below = row.key.partition(".")
        assert top in section
        if top in ("backoff", "rate_limit") and below:
            assert section[top][below] == row.default


def test_the_example_of_one_plugin_is_right() -> None:
    """It is accepted, and does what the page says of it."""
    extra_config = yaml.safe_load(ONE_PLUGIN_EXAMPLE)["extra_config"]
    settings, problems = read_settings(extra_config, {})
    defaults = read_settings(None, {})[0].defaults
    assert problems == []
    assert (
        settings.plugins["worker_0_test"].backoff
        == replaced(defaults.backoff, max=300)
        == BackoffSettings(0.5, 300, 30)
    )
    assert settings.for_plugin("scheduler_report", "scheduler_report.py").enabled is False
    assert settings.plugins["worker_0_test"].stop_grace == settings.defaults.stop_grace == 10


def test_every_setting_and_variable_is_on_the_page() -> None:
    """Its meaning, its default and what is accepted."""
    page = reference_page()
    for row in SETTINGS:
        assert row.meaning in page
        assert row.accepted in page
    page = environment_page()
    for variable in VARIABLES_SET:
        assert f"| `{variable.name}` |" in page
    for name, meaning in VARIABLES_READ:
        assert f"| `{name}` | {meaning} |" in page


def test_texts_of_the_tables_are_sentences() -> None:
    """They stand in Markdown tables, and in messages on one line."""
    for row in SETTINGS:
        assert row.meaning.endswith(".")
        for text in (row.meaning, row.accepted):
            assert "|" not in text
            assert text.isprintable()


def test_every_description_has_all_exit_reasons() -> None:
    """The variable's row, the page for plugin authors and the kit's docstring."""
    (row,) = (row.value for row in VARIABLES_SET if row.name == ENDING_FILE)
    page = (REFERENCE.parent / "plugin-authors" / "contract.md").read_text()
    table = page.split("| word | reason |")[1].split("\n\n")[0]
    for text in (row, table, Context.ending.__doc__ or ""):
        assert tuple(re.findall(r"`+([a-z]+)`+(?:: | \(| \|)", text)) == EXIT_REASONS
