# SPDX-License-Identifier: Apache-2.0
"""The kustomize tree: it renders, follows Kubernetes' schemas, and its parts fit together."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from cli_under_test import ROOT

from lmcache_plugin_adapter.configuration.settings import read_settings
from lmcache_plugin_adapter.hosts.lmcache_server.config import read_server_config, server_identity
from lmcache_plugin_adapter.planner.file_names import parse_name, runs_on

TREE = ROOT / "configs" / "kubernetes"
OWN_KINDS = {"LeaderWorkerSet", "PodMonitor", "PrometheusRule"}
"""Kinds of other projects, whose schemas are in no package: ``custom_resources`` keeps a part."""

WRONG = [
    ("LeaderWorkerSet", ("spec", "leaderWorkerTemplate"), "siz", 2),
    ("LeaderWorkerSet", ("spec", "leaderWorkerTemplate"), "size", "2"),
    ("LeaderWorkerSet", ("spec", "leaderWorkerTemplate"), "restartPolicy", "Always"),
    ("LeaderWorkerSet", ("spec", "leaderWorkerTemplate", "workerTemplate", "spec"), "host", True),
    ("PodMonitor", (), "apiVersion", "monitoring.coreos.com/v2"),
    ("PodMonitor", ("spec",), "selector", None),
    ("PodMonitor", ("spec", "podMetricsEndpoints", 0), "targetPort", 8000),
    ("PrometheusRule", ("spec", "groups", 0, "rules", 0), "for", "1 minute"),
    ("PrometheusRule", ("spec", "groups", 0, "rules", 0), "alerts", "X"),
]
"""A field that a document must not have: kind, place, key and value."""

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed (Debian: kubernetes-client)"
)


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    """The objects that kustomize makes of the tree."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(TREE)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(rendered: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return the only object of a kind."""
    (found,) = [document for document in rendered if document["kind"] == kind]
    return found


def definition(kind: str) -> jsonschema.Draft202012Validator:
    """Return what validates documents of a kind of another project."""
    path = Path(__file__).parent / "custom_resources" / f"{kind}.json"
    return jsonschema.Draft202012Validator(json.loads(path.read_text()))


def templates(rendered: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Return the pod templates."""
    yield one(rendered, "DaemonSet")["spec"]["template"]
    group = one(rendered, "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
    yield group["leaderTemplate"]
    yield group["workerTemplate"]


def test_schemas(rendered: list[dict[str, Any]]) -> None:
    """Of the newest Kubernetes that the package knows; an unknown field is refused."""
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is missing")
    version = schemas.latest_version()
    kinds = {document["kind"] for document in rendered}
    assert kinds == {"Namespace", "ConfigMap", "DaemonSet", *OWN_KINDS}
    for document in rendered:
        if document["kind"] not in OWN_KINDS:
            schemas.validate(document, version, strict=True)
    for template in templates(rendered):
        metadata = {"name": "x", **template["metadata"]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        schemas.validate(pod, version, strict=True)
        pod["spec"] = {**pod["spec"], "nodeselector": {}}
        with pytest.raises(schemas.ValidationError):
            schemas.validate(pod, version, strict=True)


@pytest.mark.parametrize("kind", sorted(OWN_KINDS))
def test_custom_resources(rendered: list[dict[str, Any]], kind: str) -> None:
    """A field that the schema lacks is wrong, or new here: then ``keep_used.py`` writes it anew."""
    definition(kind).validate(one(rendered, kind))


@pytest.mark.parametrize(("kind", "place", "key", "value"), WRONG)
def test_a_wrong_field_of_a_custom_resource(
    rendered: list[dict[str, Any]], kind: str, place: tuple[str | int, ...], key: str, value: object
) -> None:
    """An unknown field, a wrong type, a value that is not accepted: each is refused."""
    document = copy.deepcopy(one(rendered, kind))
    target: Any = document
    for step in place:
        target = target[step]
    target[key] = value
    (error,) = definition(kind).iter_errors(document)
    assert list(error.absolute_path) in ([*place], [*place, key])


def test_references(rendered: list[dict[str, Any]]) -> None:
    """Pods mount what the tree generates; the server's module and plugins are where it looks."""
    maps = {one["metadata"]["name"]: one["data"] for one in rendered if one["kind"] == "ConfigMap"}
    pod = one(rendered, "DaemonSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    used = {
        volume["configMap"]["name"]: paths[volume["name"]]
        for volume in pod["volumes"]
        if "configMap" in volume
    }
    assert set(used) == set(maps)
    (name,) = [name for name, data in maps.items() if "module.json" in data]
    assert f"$(cat {used.pop(name)}/module.json)" in container["command"][-1]
    module = json.loads(maps.pop(name)["module.json"])
    assert module["module_path"] == "lmcache_plugin_adapter.server_module"
    config = read_server_config(module["config"], {}, source="x")
    settings, problems = read_settings(config.extra_config)
    assert (config.problems, problems) == ((), [])
    assert settings.metrics_textfile in paths.values()
    ((plugins, files),) = [(used[name], data) for name, data in maps.items()]
    assert plugins in list(config.runtime_plugin_locations)  # type: ignore[call-overload]
    for file in files:
        assert runs_on(parse_name(file), server_identity(config.extra_config))


def test_monitoring(rendered: list[dict[str, Any]]) -> None:
    """PodMonitor selects the pods and their port; the rules are those of configs/monitoring."""
    spec = one(rendered, "PodMonitor")["spec"]
    (expression,) = spec["selector"]["matchExpressions"]
    assert {template["metadata"]["labels"]["app"] for template in templates(rendered)} == set(
        expression["values"]
    )
    (endpoint,) = spec["podMetricsEndpoints"]
    for template in list(templates(rendered))[:2]:
        ports = [port["name"] for port in template["spec"]["containers"][0]["ports"]]
        assert endpoint["port"] in ports
    alerts = yaml.safe_load((ROOT / "configs" / "monitoring" / "alerts.yml").read_text())
    groups = one(rendered, "PrometheusRule")["spec"]["groups"]
    assert groups[:1] == alerts["groups"]


def test_rules_by_promtool(rendered: list[dict[str, Any]], tmp_path: Path) -> None:
    """Prometheus accepts them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump(one(rendered, "PrometheusRule")["spec"]))
    done = subprocess.run(
        [promtool, "check", "rules", str(rules)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_both_nodes_of_vllm_agree(rendered: list[dict[str, Any]]) -> None:
    """Same model and sizes; the second node has no API server."""
    _, leader, worker = (template["spec"]["containers"][0] for template in templates(rendered))
    assert leader["command"] == worker["command"]
    own = {"--node-rank=0", "--node-rank=$(LWS_WORKER_INDEX)", "--headless"}
    assert set(leader["args"]) ^ set(worker["args"]) == own
    size = one(rendered, "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]["size"]
    assert f"--nnodes={size}" in leader["args"]
    (transfer,) = [word for word in leader["args"] if word.startswith("--kv-transfer-config=")]
    connector = json.loads(transfer.partition("=")[2])
    assert connector["kv_connector"] == "LMCacheMPConnector"
    server = one(rendered, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port.get("hostPort") for port in server["ports"]}
    assert connector["kv_connector_extra_config"]["lmcache.mp.port"] == ports["cache"]
