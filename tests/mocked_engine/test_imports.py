# SPDX-License-Identifier: Apache-2.0
"""The entry point costs next to nothing in a process that makes no LMCache connector."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Prints what a process has after it imported the entry point and ran it.
PROBE = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
from lmcache_plugin_adapter.hosts.vllm import hook
hook.register()
hook.register()
print(json.dumps({"new": sorted(set(sys.modules) - before),
                  "children": open(f"/proc/self/task/{os.getpid()}/children").read(),
                  "threads": len(os.listdir("/proc/self/task"))}))
"""


@pytest.fixture(scope="module")
def probe() -> dict[str, object]:
    """Run the entry point in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROBE, str(ROOT)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()  # the entry point prints nothing
    return dict(json.loads(line))


def test_imports_nothing_but_the_standard_library(probe: dict[str, object]) -> None:
    """Of this package, only the entry point and the version are imported."""
    new = probe["new"]
    assert isinstance(new, list)
    ours = [name for name in new if name.startswith("lmcache_plugin_adapter")]
    assert ours == [
        "lmcache_plugin_adapter",
        "lmcache_plugin_adapter.contract",
        "lmcache_plugin_adapter.contract.version",
        "lmcache_plugin_adapter.hosts",
        "lmcache_plugin_adapter.hosts.vllm",
        "lmcache_plugin_adapter.hosts.vllm.hook",
    ]
    heavy = {"logging", "threading", "subprocess", "typing", "dataclasses", "json", "re"}
    assert not heavy & set(new)


def test_starts_no_process_and_no_thread(probe: dict[str, object]) -> None:
    """Both start only with the first LMCache connector."""
    assert probe["children"] == ""
    assert probe["threads"] == 1


def test_declared_entry_point_is_the_function() -> None:
    """The entry point of the metadata, of the checkout or installed, is ``register``."""
    text = (ROOT / "pyproject.toml").read_text()
    _, _, section = text.partition('[project.entry-points."vllm.general_plugins"]\n')
    name, _, value = section.partition("\n")[0].partition(" = ")
    point = EntryPoint(name, value.strip('"'), "vllm.general_plugins")
    assert point.load().__name__ == "register"
    for installed in entry_points(group="vllm.general_plugins"):
        if installed.name == name:
            assert installed.value == point.value
