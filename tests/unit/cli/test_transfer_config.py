# SPDX-License-Identifier: Apache-2.0
"""``doctor --kv-transfer-config``: which mode LMCache runs in, and whether plugins run there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lmcache_plugin_adapter.cli.doctor import doctor
from lmcache_plugin_adapter.cli.transfer_config import SERVER_ARGS

OURS = """--server-module '{"module_path": "lmcache_plugin_adapter.server_module"}'"""
OTHER = """--server-module '{"module_path": "acme.module"}'"""


def multiprocess(args: Any = None, autostart: Any = True) -> dict[str, Any]:
    """Return a configuration whose server vLLM starts."""
    extra: dict[str, Any] = {"lmcache.mp.autostart": autostart}
    if args is not None:
        extra[SERVER_ARGS] = args
    return {"kv_connector": "LMCacheMPConnector", "kv_connector_extra_config": extra}


def examined(config: Any, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """Return level and text of what doctor says of the connector."""
    text = config if isinstance(config, str) else json.dumps(config)
    doctor(as_json=True, kv_transfer_config=text)
    findings = json.loads(capsys.readouterr().out)["findings"]
    return [(one["level"], one["text"]) for one in findings if one["subject"] == "connector"]


@pytest.mark.parametrize(
    ("args", "level", "words"),
    [
        (f"--l1-size-gb 1 {OURS}", "ok", "plugins run beside it"),
        (f"{OTHER} {OURS.replace(' ', '=', 1)}", "ok", "plugins run beside it"),
        (
            (
                '--server-module \'[{"module_path": "a"}, '
                '{"module_path": "lmcache_plugin_adapter.server_module"}]\''
            ),
            "ok",
            "plugins run beside it",
        ),
        ("--l1-size-gb 1", "off", "add --server-module"),
        (OTHER, "off", "add --server-module"),
        (None, "off", "add --server-module"),
        (f"--port 1 {OURS}", "off", "LMCache refuses '--port'"),
        (f"--http-host=0.0.0.0 {OURS}", "off", "LMCache refuses '--http-host'"),
        ("--server-module '{'", "off", "no JSON"),
        ("--server-module '", "off", "no command"),
        (["--l1-size-gb", "1"], "off", "must be text"),
    ],
)
def test_the_server_that_vllm_starts(
    capsys: pytest.CaptureFixture[str], args: Any, level: str, words: str
) -> None:
    """With our module or without it, or with arguments that LMCache refuses."""
    ((said, text),) = examined(multiprocess(args), capsys)
    assert said == level
    assert words in text
    if "add " in text:
        assert SERVER_ARGS in text


def test_a_server_without_modules(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of this LMCache refuses the option, so vLLM cannot start it."""
    (tmp_path / "lmcache").mkdir()
    monkeypatch.setattr(
        "lmcache_plugin_adapter.hosts.upstream_names.package_directory",
        lambda project: str(tmp_path / project) if project == "lmcache" else "",
    )
    ((level, text),) = examined(multiprocess(OURS), capsys)
    assert level == "off"
    assert "takes no --server-module" in text


@pytest.mark.parametrize(
    "config", ["{", {"kv_connector": "NixlConnector"}, multiprocess("--l1-size-gb 1")]
)
def test_the_last_line_names_the_cause(capsys: pytest.CaptureFixture[str], config: Any) -> None:
    """Not the environment: LMCache's own launcher would run no plugins either."""
    text = config if isinstance(config, str) else json.dumps(config)
    assert doctor(kv_transfer_config=text) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "With this --kv-transfer-config, the adapter runs no plugins."


@pytest.mark.parametrize("value", ["true", "on", " Yes ", "1"])
def test_autostart_as_text(capsys: pytest.CaptureFixture[str], value: str) -> None:
    """As LMCache reads it."""
    ((level, _),) = examined(multiprocess("", value), capsys)
    assert level == "off"


@pytest.mark.parametrize(
    ("config", "level", "words"),
    [
        (multiprocess(OURS, False), "ok", "doctor --server"),
        ({"kv_connector": "LMCacheMPConnector"}, "ok", "doctor --server"),
        ({"kv_connector": "LMCacheConnectorV1"}, "ok", "in vLLM's processes"),
        ({**multiprocess(OURS), "kv_connector": "LMCacheConnectorV1"}, "warning", "no effect"),
        ({"kv_connector": "NixlConnector"}, "off", "no connector of LMCache's"),
        ("{", "off", "cannot read --kv-transfer-config"),
        ("[]", "off", "no JSON object"),
    ],
)
def test_other_connectors(
    capsys: pytest.CaptureFixture[str], config: Any, level: str, words: str
) -> None:
    """Each is named with what it means."""
    ((said, text),) = examined(config, capsys)
    assert said == level
    assert words in text


def test_children_of_a_multi_connector(capsys: pytest.CaptureFixture[str]) -> None:
    """Each of LMCache's is a finding."""
    children = [{"kv_connector": "NixlConnector"}, multiprocess(""), multiprocess(OURS)]
    config = {
        "kv_connector": "MultiConnector",
        "kv_connector_extra_config": {"connectors": children},
    }
    assert [level for level, _ in examined(config, capsys)] == ["off", "ok"]


def test_the_example_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    """It has the module."""
    page = (Path(__file__).parents[3] / "docs" / "operators" / "lmcache-server.md").read_text()
    (block,) = re.findall(
        r"<!-- test: autostart -->\n\n```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL
    )
    ((level, text),) = examined(block, capsys)
    assert level == "ok"
    assert "plugins run beside it" in text
