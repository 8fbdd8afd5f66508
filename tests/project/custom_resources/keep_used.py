# SPDX-License-Identifier: Apache-2.0
"""Reduce the schemas of custom resources to what ``configs/kubernetes`` uses of them.

    kubectl kustomize configs/kubernetes > rendered.yaml
    python tests/project/custom_resources/keep_used.py rendered.yaml CHECKOUTS

CHECKOUTS is a directory with a checkout of each repository in ``ORIGINS``, at that tag. The
program writes one JSON schema per kind beside itself. It fails on a field that the original
schema does not have. The written schemas refuse every field that no document uses.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

ORIGINS = {
    "LeaderWorkerSet": (
        "kubernetes-sigs/lws",
        "v0.10.0",
        "config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml",
    ),
    "PodMonitor": (
        "prometheus-operator/prometheus-operator",
        "v0.93.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    ),
    "PrometheusRule": (
        "prometheus-operator/prometheus-operator",
        "v0.93.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
}
"""Repository on GitHub, tag and file of each kind; the licence of all three is Apache-2.0."""

CONSTRAINTS = ("enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems")


def reduce(schema: dict[str, Any], values: list[Any]) -> dict[str, Any]:
    """Return what a schema of OpenAPI 3 demands of some values, as a JSON schema.

    Raises:
        KeyError: A value has a field that the schema does not know.
    """
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept = {"type": schema["type"], **{key: schema[key] for key in CONSTRAINTS if key in schema}}
    if schema["type"] == "array":
        kept["items"] = reduce(schema["items"], [item for value in values for item in value])
    elif "additionalProperties" in schema:
        items = [item for value in values for item in value.values()]
        kept["additionalProperties"] = reduce(schema["additionalProperties"], items)
    elif schema["type"] == "object" and "properties" in schema:
        used = dict.fromkeys(key for value in values for key in value)
        kept["properties"] = {
            key: reduce(schema["properties"][key], [one[key] for one in values if key in one])
            for key in used
        }
        kept["required"] = schema.get("required", [])
        kept["additionalProperties"] = False
    return kept


def main(rendered: Path, checkouts: Path) -> None:
    """Write the reduced schemas."""
    documents = list(yaml.safe_load_all(rendered.read_text()))
    for kind, (repository, tag, file) in ORIGINS.items():
        path = checkouts / repository.partition("/")[2] / file
        definition = yaml.safe_load(path.read_text())["spec"]
        versions = {one["name"]: one["schema"]["openAPIV3Schema"] for one in definition["versions"]}
        used = [one for one in documents if one["kind"] == kind]
        version = used[0]["apiVersion"].partition("/")[2]
        schema = versions[version]
        schema["properties"]["apiVersion"]["enum"] = [f"{definition['group']}/{version}"]
        # Kubernetes validates the metadata, which the schema of a custom resource leaves open.
        text = {"type": "string"}
        schema["properties"]["metadata"]["properties"] = {"name": text, "namespace": text}
        origin = f"Reduced from {file} of {repository} {tag} (Apache-2.0)"
        reduced = {"$comment": origin, **reduce(schema, used)}
        written = Path(__file__).parent / f"{kind}.json"
        written.write_text(json.dumps(reduced, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
