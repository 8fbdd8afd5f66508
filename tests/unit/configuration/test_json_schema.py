# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema accepts what the reader of the settings accepts, and nothing else."""

from __future__ import annotations

import jsonschema
import pytest
import yaml
from cli_under_test import ROOT, command

from lmcache_plugin_adapter.configuration.json_schema import (
    SCHEMA_FILE,
    schema_text,
    settings_schema,
)
from lmcache_plugin_adapter.configuration.reference_page import ONE_PLUGIN_EXAMPLE, defaults_example
from lmcache_plugin_adapter.configuration.settings import read_settings
from lmcache_plugin_adapter.configuration.settings_table import PLUGIN_KEY, SETTINGS

SCHEMA = settings_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
VALUES = (
    *(True, False, 0, 1, 5, 300, 4096, 10**8, 10**15, -1, 0.5, ""),
    *("off", "never", "all", "stop"),
    *("stderr", "/var/log/x", "30s", "1 h", "soon", "x", [], ["a"], [["a"]], {}, {"x": 1}),
)
COMPLETED_BY: dict[str, dict[str, object]] = {
    "jitter": {"every": "7d"},
    "timeout": {"every": "7d"},
    "ready_timeout": {"notify": True},
    "watchdog": {"notify": True},
}
"""Settings that others need to have an effect."""

BY_MAPPING = {"backoff", "rate_limit", "log", "metrics"}


def section(settings: object) -> dict[str, object]:
    """Return the configuration with these settings."""
    return {"extra_config": {"runtime_plugins": settings}}


def accepted_by_both(settings: object) -> bool:
    """Return whether the reader has nothing to report, after the schema agreed."""
    config = section(settings)
    problems = read_settings(config["extra_config"], {})[1]
    found = [error.message for error in VALIDATOR.iter_errors(config)]
    assert (not problems) == (not found), (settings, problems, found)
    return not problems


def test_the_shipped_file_has_not_drifted() -> None:
    """After a change of the table: python -m …configuration.json_schema --write."""
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text()
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.key)
def test_it_agrees_with_the_reader(row) -> None:
    """On each key with each of some values; every row with a value of its own has a schema."""
    general, _, below = row.key.removeprefix(PLUGIN_KEY).partition(".")
    assert row.schema or general in {"backoff", "plugins"} | BY_MAPPING, "give it a schema"
    if row.key == "locations":
        return  # their reader is another one
    outcomes = set()
    for value in VALUES:
        if (general in BY_MAPPING and not below and isinstance(value, dict)) or (
            general == "plugins" and value == {"x": 1}
        ):
            continue
        settings: dict[str, object] = {general: {below: value} if below else value}
        if general == "log" and below and below != "directory":
            settings = {"log": {"directory": "/var/log/x", below: value}}
        settings |= COMPLETED_BY.get(general, {})
        if row.key.startswith(PLUGIN_KEY):
            settings = {"plugins": {"worker_x": settings}}
        if general == "backoff" and below in ("initial", "max"):
            settings = {"backoff": {"initial": value, "max": value}}
        outcomes.add(accepted_by_both(settings))
    assert False in outcomes
    assert True in outcomes or not row.schema


def test_unknown_keys_are_errors_in_both() -> None:
    """At each level; LMCache's own keys are not."""
    for settings in ({"stopgrace": 1}, {"backoff": {"first": 1}}, {"plugins": {"x": {"arg": []}}}):
        assert not accepted_by_both(settings)
    assert not list(VALIDATOR.iter_errors({"chunk_size": 256, "extra_config": {"foo": 1}}))


@pytest.mark.parametrize("text", [defaults_example(), ONE_PLUGIN_EXAMPLE])
def test_the_examples_are_valid(text: str) -> None:
    """Those of the reference page, and the configuration of the repository."""
    VALIDATOR.validate(yaml.safe_load(text))
    VALIDATOR.validate(yaml.safe_load((ROOT / "configs" / "lmcache.yaml").read_text()))


def test_check_prints_it() -> None:
    """Without a configuration."""
    done = command("check", "--schema")
    assert done.returncode == 0
    assert done.stdout == schema_text()
