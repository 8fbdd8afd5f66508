# SPDX-License-Identifier: Apache-2.0
"""The examples for LMCache's multiprocess server: Docker Compose and Kubernetes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cli_under_test import ROOT, Running

from lmcache_plugin_adapter import server_module
from lmcache_plugin_adapter.configuration.settings import read_settings
from lmcache_plugin_adapter.contract.identity import Role
from lmcache_plugin_adapter.hosts.lmcache_server.config import read_server_config, server_identity
from lmcache_plugin_adapter.hosts.lmcache_server.module import CLOSE_SECONDS
from lmcache_plugin_adapter.planner.file_names import PluginName, parse_name, runs_on

if TYPE_CHECKING:
    from pathlib import Path

CONFIGS = ROOT / "configs" / "server"


def compose() -> dict[str, Any]:
    """Return the service of the Compose example."""
    document = yaml.safe_load((CONFIGS / "compose.yaml").read_text())
    service: dict[str, Any] = document["services"]["lmcache"]
    return service


def kubernetes() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the ConfigMap and the pod of the Kubernetes example."""
    config_map, daemon_set = yaml.safe_load_all((CONFIGS / "kubernetes.yaml").read_text())
    assert (config_map["kind"], daemon_set["kind"]) == ("ConfigMap", "DaemonSet")
    template = daemon_set["spec"]["template"]
    assert daemon_set["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    return config_map, template["spec"]


def options(words: list[str]) -> dict[str, str]:
    """Return the options of ``lmcache server`` by name."""
    assert words[:2] == ["lmcache", "server"]
    *pairs, last, module = words[2:]
    assert last == "--server-module"
    return {**dict(pair.split("=", 1) for pair in pairs), last: module}


@pytest.mark.parametrize("of", ["compose", "kubernetes"])
def test_the_server_module_of_an_example_is_ours(of: str) -> None:
    """Path, factory and settings are valid, and the locations are where plugins are mounted."""
    if of == "compose":
        words = compose()["command"]
        mounts = [volume.split(":")[1] for volume in compose()["volumes"]]
    else:
        _, pod = kubernetes()
        words = pod["containers"][0]["command"]
        mounts = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
    module = json.loads(options(words)["--server-module"])
    assert module["module_path"] == server_module.__name__
    assert callable(server_module.build_server_modules)  # the factory that LMCache takes
    config = read_server_config(module["config"], {}, source="x")
    _, problems = read_settings(config.extra_config)
    assert [*config.problems, *problems] == []
    assert config.runtime_plugin_locations == mounts
    settings, _ = read_settings(config.extra_config)
    assert settings.defaults.stop_grace <= CLOSE_SECONDS


def test_the_compose_example_fits_together() -> None:
    """The mounted directory exists and is read-only, and the health check uses the right port."""
    service = compose()
    (volume,) = service["volumes"]
    source, _, mode = volume.split(":")
    assert mode == "ro"
    assert any((CONFIGS / source).resolve().glob("all_*.sh"))
    port = options(service["command"])["--http-port"]
    assert f":{port}/healthcheck" in service["healthcheck"]["test"][-1]
    assert service["init"] is True
    assert "lmcache-plugin-adapter" in service["build"]["dockerfile_inline"]
    config = json.loads(options(service["command"])["--server-module"])["config"]
    parameters = set(config) - {"runtime_plugin_locations", "runtime_plugins"}
    assert parameters == {"all_plugin"}
    text = (ROOT / "examples" / "all_plugin.sh").read_text()
    assert all(f"parameter {name} " in text for name in config["all_plugin"])


def test_the_kubernetes_example_fits_together() -> None:
    """Each reference has its target, and each plugin of the ConfigMap is for a server."""
    config_map, pod = kubernetes()
    (container,) = pod["containers"]
    (volume,) = pod["volumes"]
    (mount,) = container["volumeMounts"]
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]
    assert (mount["name"], mount["readOnly"]) == (volume["name"], True)
    assert pod["shareProcessNamespace"] is True
    port = int(options(container["command"])["--http-port"])
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthcheck", "port": port}
    for name in config_map["data"]:
        parsed = parse_name(name)
        assert isinstance(parsed, PluginName)
        assert runs_on(parsed, server_identity({}))
    assert server_identity({}).role is Role.SERVER


def test_the_plugins_of_the_kubernetes_example_run(tmp_path: Path) -> None:
    """Each runs once, in the layout of a mounted ConfigMap, with the settings of the example."""
    config_map, pod = kubernetes()
    data = tmp_path / "mount" / "..2026_11_22"
    data.mkdir(parents=True, mode=0o755)
    (tmp_path / "mount" / "..data").symlink_to(data.name)
    for name, text in config_map["data"].items():
        (data / name).write_text(text)
        (tmp_path / "mount" / name).symlink_to(f"..data/{name}")
    module = json.loads(options(pod["containers"][0]["command"])["--server-module"])
    module["config"]["runtime_plugin_locations"] = ["mount"]
    module["config"]["server_usage"]["interval"] = 0.1
    (tmp_path / "module.json").write_text(json.dumps(module))
    with Running(tmp_path, "--server", "-c", "module.json", cwd=tmp_path) as running:
        running.until_logged("[all_alive] SERVER is alive")
        if "cannot listen on port 8080" not in running.log:  # else it is another program's
            running.until_logged("LMCache INFO: [server_usage] healthy: True, ")
        assert running.stop() == 0
        assert running.log.count("Started, pid") == 2
