# SPDX-License-Identifier: Apache-2.0
"""The adapter reads ``lmcache.yaml`` as the installed LMCache does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lmcache_plugin_adapter.cli.lmcache_yaml import load_lmcache_yaml

if TYPE_CHECKING:
    from pathlib import Path

lmcache_config = pytest.importorskip("lmcache.v1.config")
if not hasattr(lmcache_config.LMCacheEngineConfig, "runtime_plugin_locations"):
    pytest.skip("LMCache before 0.3.11 knows only the older name", allow_module_level=True)

RUNTIME, OLDER, EXTRA = (
    "LMCACHE_RUNTIME_PLUGIN_LOCATIONS",
    "LMCACHE_PLUGIN_LOCATIONS",
    "LMCACHE_EXTRA_CONFIG",
)
FILES = [
    "",
    "chunk_size: 128\nlocal_cpu: false\nmax_local_cpu_size: 2.5\n",
    "runtime_plugin_locations: [/a, /b]",
    "runtime_plugin_locations: /a,/b",
    "runtime_plugin_locations: ''",
    "runtime_plugin_locations:",
    "runtime_plugin_locations: {a: b}",
    "plugin_locations: /a",
    "plugin_locations: /a\nruntime_plugin_locations: /b",
    "runtime_plugin_locations: /b\nplugin_locations: /a",
    "extra_config: {runtime_plugins: {stop_grace: 3, plugins: {a: {env: {B: c}}}}}",
    "extra_config: '{\"a\": 1}'",
    "extra_config: '{broken'",
    "extra_config: ''",
    "runtime_plugin_locations: [/a]\nruntime_plugin_locations: [/b]",
]
ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {RUNTIME: "/e,/f"},
    {RUNTIME: "'/e,/f'"},
    {RUNTIME: '["/e", "/f"]'},
    {RUNTIME: ""},
    {OLDER: "/o"},
    {OLDER: "/o", RUNTIME: "/e"},
    {EXTRA: '{"e": {"f": [1]}}'},
    {EXTRA: "'{\"e\": 2}'"},
    {EXTRA: "{broken"},
    {EXTRA: ""},
    {"LMCACHE_CHUNK_SIZE": "512", "LMCACHE_LOCAL_CPU": "True", "LMCACHE_MAX_LOCAL_CPU_SIZE": "4"},
]


@pytest.mark.parametrize("environ", ENVIRONMENTS)
@pytest.mark.parametrize("text", FILES)
def test_we_read_what_lmcache_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, environ: dict[str, str]
) -> None:
    """Each key of the file has LMCache's value, from the file and from the environment."""
    file = tmp_path / "lmcache.yaml"
    file.write_text(text)
    for name in (RUNTIME, OLDER, EXTRA):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    theirs = lmcache_config.LMCacheEngineConfig.from_file(str(file))
    theirs.update_config_from_env()
    ours = load_lmcache_yaml(str(file), environ)
    assert ours.runtime_plugin_locations == theirs.runtime_plugin_locations
    assert ours.extra_config == theirs.extra_config
    whole = json.loads(theirs.to_json())
    for key, value in json.loads(ours.to_json()).items():
        assert value == whole[key], key


def test_our_json_is_one_that_lmcache_reads(tmp_path: Path) -> None:
    """``LMCacheEngineConfig.from_json`` reads a plugin's configuration under ``run``."""
    file = tmp_path / "lmcache.yaml"
    file.write_text("chunk_size: 64\nplugin_locations: [/a]\nextra_config: {a: {b: 1}}\n")
    config = lmcache_config.LMCacheEngineConfig.from_json(
        load_lmcache_yaml(str(file), {}).to_json()
    )
    assert (config.chunk_size, config.runtime_plugin_locations) == (64, ["/a"])
    assert config.extra_config == {"a": {"b": 1}}


def test_no_key_of_lmcache_is_taken_for_a_mistyped_one(tmp_path: Path) -> None:
    """Only keys that LMCache does not have get a suggestion."""
    file = tmp_path / "lmcache.yaml"
    keys = list(lmcache_config.LMCacheEngineConfig.from_defaults().to_dict())
    file.write_text("\n".join(f"{key}:" for key in keys))
    assert load_lmcache_yaml(str(file), {}).problems == ()
