# SPDX-License-Identifier: Apache-2.0
"""The snippets of the pages on vLLM, Docker, Kubernetes and Ray, as far as this works without."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from lmcache_plugin_adapter.cli.doctor import CONFIG_VARIABLE
from lmcache_plugin_adapter.cli.lmcache_yaml import load_lmcache_yaml
from lmcache_plugin_adapter.configuration.settings import read_settings
from lmcache_plugin_adapter.hosts import upstream_names
from lmcache_plugin_adapter.hosts.vllm import connector_takeover, hook
from lmcache_plugin_adapter.hosts.vllm.connector_recognition import creates_lmcache
from lmcache_plugin_adapter.planner.file_names import PluginName, parse_name

PACKAGE = Path(hook.__file__).parents[2]
OPERATORS = PACKAGE.parent / "docs" / "operators"
VLLM = (OPERATORS / "vllm.md").read_text()
PAGE = "".join(
    (OPERATORS / f"{name}.md").read_text() for name in ("vllm", "docker", "kubernetes", "ray")
)


def blocks(language: str) -> list[str]:
    """Return the page's fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def transfer_configs() -> list[str]:
    """Return the values of ``--kv-transfer-config`` on the page, and the JSON with one."""
    found = []
    for block in blocks("sh"):
        for line in block.splitlines():
            words = shlex.split(line)
            found += [
                words[place + 1]
                for place, word in enumerate(words)
                if word == "--kv-transfer-config"
            ]
    found += [block for block in blocks("json") if "kv_connector" in block]
    return [*found, _server_arguments()["--kv-transfer-config"]]


def _manifests() -> tuple[dict, dict]:  # type: ignore[type-arg]
    (block,) = blocks("yml")
    config_map, deployment = yaml.safe_load_all(block)
    return config_map, deployment


def _server_arguments() -> dict[str, str]:
    (container,) = _manifests()[1]["spec"]["template"]["spec"]["containers"]
    return dict(arg.split("=", 1) for arg in container["args"] if arg.startswith("--"))


@pytest.mark.parametrize("text", transfer_configs())
def test_transfer_configs_name_a_connector_that_is_hooked(text: str) -> None:
    """The hook acts on each of them, and a class of this package exists."""
    config = json.loads(text)
    assert creates_lmcache(None, config)
    if (module := config.get("kv_connector_module_path")) is not None:
        path = PACKAGE / (module.removeprefix("lmcache_plugin_adapter.") + ".py")
        assert f"import {config['kv_connector']}\n" in path.read_text()


@pytest.mark.parametrize("block", blocks("sh"))
def test_shell_blocks_are_shell(block: str) -> None:
    """Bash parses each block, and each ``lmcache-plugins`` command exists."""
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    for line in block.splitlines():
        words = shlex.split(line)
        if words[0] == "lmcache-plugins":
            assert f"\ndef {words[1]}(" in (PACKAGE / "cli" / "main.py").read_text()


def test_config_map_is_mounted_where_the_configuration_looks(tmp_path: Path) -> None:
    """Its configuration has no problem, and its plugin's name and code are valid."""
    config_map, deployment = _manifests()
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume["configMap"] for volume in pod["volumes"]}
    assert set(mounts) == set(volumes)
    assert {volume["name"] for volume in volumes.values()} == {config_map["metadata"]["name"]}
    assert pod["shareProcessNamespace"] is True

    (variable,) = container["env"]
    assert variable["name"] == CONFIG_VARIABLE
    assert variable["value"] == mounts["lmcache"]["mountPath"]
    path = tmp_path / "lmcache.yaml"
    path.write_text(config_map["data"][mounts["lmcache"]["subPath"]])
    config = load_lmcache_yaml(str(path), {})
    assert config.runtime_plugin_locations == [mounts["plugins"]["mountPath"]]
    assert [*config.problems, *read_settings(config.extra_config, {})[1]] == []

    for item in volumes["plugins"]["items"]:
        assert isinstance(parse_name(item["path"]), PluginName)
        code = config_map["data"][item["key"]]
        subprocess.run(["sh", "-n"], input=code, text=True, check=True)


def test_dockerfile_puts_things_where_the_configuration_looks() -> None:
    """The image's variable names the file that it copies."""
    (dockerfile,) = blocks("dockerfile")
    lines = [line.split() for line in dockerfile.splitlines()]
    copied = {line[1]: line[2] for line in lines if line[0] == "COPY"}
    assert f"{CONFIG_VARIABLE}={copied['lmcache.yaml']}" in dockerfile
    for text in blocks("yaml"):
        assert yaml.safe_load(text)["runtime_plugin_locations"] == [copied["plugins"]]


def test_lines_in_the_table_are_lines_of_the_code() -> None:
    """Each is the start of one of the hook's messages."""
    sources = "".join(
        Path(str(module.__file__)).read_text() for module in (connector_takeover, hook)
    )
    table = VLLM.partition("## When it cannot work")[2]
    lines = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        assert f'"{line}' in sources


def test_environment_variable_that_switches_it_off() -> None:
    """Its value is JSON that disables the adapter."""
    (value,) = re.findall(r"LMCACHE_EXTRA_CONFIG='([^']+)'", PAGE)
    settings, problems = read_settings(json.loads(value), {})
    assert (settings.enabled, problems) == (False, [])


def test_entry_point_is_called_as_vllm_is_told() -> None:
    """The page has the entry point's name for ``VLLM_PLUGINS``."""
    assert f"add `{upstream_names.ENTRY_POINT}`" in PAGE
    pyproject = (PACKAGE.parent / "pyproject.toml").read_text()
    assert f"\n{upstream_names.ENTRY_POINT} = " in pyproject
