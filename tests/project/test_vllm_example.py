# SPDX-License-Identifier: Apache-2.0
"""The complete example of vLLM: Docker Compose, with a configuration and three plugins."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml
from cli_under_test import ROOT, Running, command

if TYPE_CHECKING:
    from pathlib import Path

CONFIGS = ROOT / "configs" / "vllm"
MOUNT = "/etc/lmcache/plugins"


def service() -> dict[str, Any]:
    """Return the service."""
    document = yaml.safe_load((CONFIGS / "compose.yaml").read_text())
    found: dict[str, Any] = document["services"]["vllm"]
    return found


def config_of(directory: Path) -> Path:
    """Write the configuration with the plugins in place of the mounted ones."""
    text = (CONFIGS / "lmcache.yaml").read_text().replace(MOUNT, str(CONFIGS / "plugins"))
    path = directory / "lmcache.yaml"
    path.write_text(text.replace("interval: 60", "interval: 1"))
    return path


def test_compose_fits_together() -> None:
    """What is mounted exists, is read-only, and is what the configuration names."""
    vllm = service()
    mounts = dict(volume.removesuffix(":ro").split(":") for volume in vllm["volumes"])
    assert mounts["./plugins"] == MOUNT
    assert (CONFIGS / "plugins").is_dir()
    assert mounts["./lmcache.yaml"] == vllm["environment"]["LMCACHE_CONFIG_FILE"]
    config = yaml.safe_load((CONFIGS / "lmcache.yaml").read_text())
    assert mounts["cache"] == config["local_disk"].removeprefix("file://")
    assert vllm["init"] is True
    assert "lmcache-plugin-adapter" in vllm["build"]["dockerfile_inline"]
    (transfer,) = (word for word in vllm["command"] if word.startswith("--kv-transfer-config="))
    assert json.loads(transfer.partition("=")[2])["kv_connector"] == "LMCacheConnectorV1"


def test_the_configuration_is_in_order(tmp_path: Path) -> None:
    """Each file is there and runs on one process; the plugins read their parameters."""
    result = command("check", "-c", config_of(tmp_path), "--tp", "2", "--strict", cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    assert result.stdout.endswith("\n3 plugins, 0 errors, 0 warnings, 0 notes\n")
    config = yaml.safe_load((CONFIGS / "lmcache.yaml").read_text())
    assert config["runtime_plugin_locations"] == [MOUNT]
    for path in (CONFIGS / "plugins").iterdir():
        text = path.read_text()
        (section,) = re.findall(r'"extra_config"\) or {}\)\.get\("(\w+)"\)', text)
        for parameter in config["extra_config"][section]:
            assert f'.get("{parameter}"' in text


def test_the_plugins_run(tmp_path: Path) -> None:
    """Without a server they wait for one."""
    with Running(tmp_path, "-c", config_of(tmp_path), cwd=tmp_path) as running:
        for name in ("scheduler_warm_cache", "scheduler_hit_rates", "worker_0_disk_backend"):
            running.until_logged(f"[{name}] hello from ")
        assert running.stop() == 0
        # A plugin that is stopped within a print says it at the end of that line.
        assert running.log.count("goodbye") == 3
