# SPDX-License-Identifier: Apache-2.0
"""``doctor`` on each host: installed versions of vLLM and LMCache, and SGLang's sources."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lmcache_plugin_adapter.cli.doctor import OFF, doctor, examine_sglang
from lmcache_plugin_adapter.hosts import upstream_names

SGLANG = next(Path(os.environ.get("RING_HOME", "/nowhere")).glob("sglang-*"), None)
TAKES_MODULES = upstream_names.SERVER_MODULE in {
    one.upstream for one in upstream_names.check_upstream() if one.found
}
SERVER_OF_ITS_OWN = (0, 4, 4)  # the first LMCache whose server runs plugins
VERSION = tuple(map(int, upstream_names.installed_version("lmcache").split(".")[:3]))


def examined(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, tuple[str, str]]:
    """Return level and text of each subject that doctor reports."""
    doctor(as_json=True, **options)
    findings = json.loads(capsys.readouterr().out)["findings"]
    return {one["subject"]: (one["level"], one["text"]) for one in findings}


def test_vllm(capsys: pytest.CaptureFixture[str]) -> None:
    """``doctor`` reports these versions, and that no name is missing."""
    found = examined(capsys)
    assert {found[one][0] for one in ("vllm", "lmcache", "upstream names")} == {"ok"}
    assert "vllm name" not in found
    assert "lmcache name" not in found


def test_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    """It takes our module, or starts our launcher as its one plugin, or runs no plugins."""
    found = examined(capsys, server=True)
    assert found["lmcache"][0] == "ok"
    level, text = found["lmcache server"]
    if TAKES_MODULES:
        assert (level, "takes --server-module" in text) == ("ok", True)
    elif VERSION >= SERVER_OF_ITS_OWN:
        assert (level, "server_plugin from --runtime-plugin-locations" in text) == ("ok", True)
    else:
        assert (level, "runs no plugins" in text) == ("off", True)


def test_the_server_that_vllm_starts(capsys: pytest.CaptureFixture[str]) -> None:
    """Its arguments name our module, which it takes or not."""
    module = """--server-module '{"module_path": "lmcache_plugin_adapter.server_module"}'"""
    extra = {"lmcache.mp.autostart": True, "lmcache.mp.autostart.server_args": module}
    config = {"kv_connector": "LMCacheMPConnector", "kv_connector_extra_config": extra}
    level, text = examined(capsys, kv_transfer_config=json.dumps(config))["connector"]
    if TAKES_MODULES:
        assert (level, "plugins run beside it" in text) == ("ok", True)
    else:
        assert (level, "takes no --server-module" in text) == ("off", True)


@pytest.mark.skipif(SGLANG is None, reason="no wheel of SGLang is unpacked")
def test_sglang(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sources have every name; the version is the one tried."""
    monkeypatch.syspath_prepend(str(SGLANG))
    monkeypatch.delenv("SGLANG_PLUGINS", raising=False)
    importlib.invalidate_caches()
    found = {one.subject: one for one in examine_sglang(os.environ)}
    assert OFF not in {one.level for one in found.values()}
    tried = upstream_names.SGLANG_TRIED
    assert found["sglang"].text == f"{tried} (tried: {tried})"
