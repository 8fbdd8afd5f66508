# SPDX-License-Identifier: Apache-2.0
"""The installed entry point, loaded by vLLM itself in a process that makes no LMCache connector."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

PROBE = """
import json, os, sys
import vllm.plugins

before = set(sys.modules)
vllm.plugins.load_general_plugins()
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
early = "vllm.distributed.kv_transfer.kv_connector.factory" in sys.modules
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
print(json.dumps({
    "loaded": sorted(loaded),
    "early": early,
    "wrapped": hasattr(KVConnectorFactory.create_connector, "__wrapped__"),
    "lmcache": "lmcache" in sys.modules,
    "children": open(f"/proc/self/task/{os.getpid()}/children").read(),
}))
"""


def test_loaded_by_vllm_without_cost() -> None:
    """The factory is hooked when vLLM imports it, not before; LMCache is not imported at all."""
    names = {point.name for point in importlib.metadata.entry_points(group="vllm.general_plugins")}
    if "lmcache_plugin_adapter" not in names:
        pytest.skip("the package is on the path, not installed")
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=100
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["early"] is False
    assert found["wrapped"] is True
    assert found["lmcache"] is False
    assert found["children"] == ""
    assert "torch" not in found["loaded"]
