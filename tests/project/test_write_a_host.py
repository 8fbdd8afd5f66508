# SPDX-License-Identifier: Apache-2.0
"""The example host of docs/contributing/write-a-host.md runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from cli_under_test import ROOT
from harness import MARK, marked, wait_until

import lmcache_plugin_adapter

PAGE = (ROOT / "docs" / "contributing" / "write-a-host.md").read_text()


def example() -> str:
    """Return the program of the page."""
    found = re.search(r"<!-- test: host -->\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_runs_plugins_until_its_stdin_ends(tmp_path: Path) -> None:
    """The plugin starts with the host, and nothing is left after the host."""
    (tmp_path / "plugins").mkdir()
    plugin = tmp_path / "plugins" / "worker_0_hello.sh"
    plugin.write_text(
        "#!/bin/sh\necho hello from worker $LMCACHE_RUNTIME_PLUGIN_WORKER_ID\nexec sleep 60\n"
    )
    log = tmp_path / "log"
    environment = {
        "PYTHONPATH": str(ROOT),
        "LMCACHE_PLUGINS_RUNTIME_DIR": str(tmp_path / "run"),
        MARK: str(tmp_path),
    }
    with log.open("wb") as stderr:
        host = subprocess.Popen(
            [sys.executable, "-c", example()],
            stdin=subprocess.PIPE,
            stderr=stderr,
            cwd=tmp_path,
            env=environment,
        )
    wait_until(lambda: "hello from worker 0" in log.read_text(), what="the plugin's line")
    host.communicate(timeout=20)
    assert host.returncode == 0
    wait_until(lambda: not marked(str(tmp_path)), what="no process left")


def test_the_example_is_short() -> None:
    """About twenty lines, blank ones aside."""
    assert len([line for line in example().splitlines() if line.strip()]) <= 20


def test_the_module_for_tensorrt_llm_launches_a_rank(tmp_path: Path) -> None:
    """With stand-ins for TensorRT-LLM and LMCache: the scheduler's and the rank's plugins run."""
    found = re.search(r"<!-- test: tensorrt -->\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    stand_ins = """
import json, sys, types
def module(name, **values):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(values)
for name in ("lmcache", "lmcache.integration", "lmcache.integration.tensorrt_llm", "lmcache.v1"):
    module(name)
base = type("Base", (), {"__init__": lambda self, llm_args: None})
module("lmcache.integration.tensorrt_llm.tensorrt_adapter",
       LMCacheKvConnectorScheduler=base, LMCacheKvConnectorWorker=base)
config = types.SimpleNamespace(runtime_plugin_locations=["plugins"], to_json=lambda: "{}")
module("lmcache.v1.config", load_engine_config_with_overrides=lambda: config)
module("tensorrt_llm", mpi_rank=lambda: 1, mpi_world_size=lambda: 2)
"""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "all_hello.sh").write_text(
        "echo hello from $LMCACHE_RUNTIME_PLUGIN_ROLE $LMCACHE_RUNTIME_PLUGIN_WORKER_ID\n"
    )
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        host = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"{stand_ins}\n{found[1]}\nparts = Scheduler(None), Worker(None)\nsys.stdin.read()",
            ],
            stdin=subprocess.PIPE,
            stderr=stderr,
            cwd=tmp_path,
            env={
                "PYTHONPATH": str(ROOT),
                "LMCACHE_PLUGINS_RUNTIME_DIR": str(tmp_path / "run"),
                MARK: str(tmp_path),
            },
        )
    for who in ("SCHEDULER -1", "WORKER 1"):
        wait_until(lambda who=who: f"hello from {who}" in log.read_text(), 30, what=who)
    host.communicate(timeout=20)
    assert host.returncode == 0
    wait_until(lambda: not marked(str(tmp_path)), 30, what="no process left")


def test_every_public_name_is_there() -> None:
    """``__all__`` is sorted, complete and loadable; other names are not."""
    names = lmcache_plugin_adapter.__all__
    assert names == sorted(names, key=lambda name: (name.startswith("_"), name))
    assert all(hasattr(lmcache_plugin_adapter, name) for name in names)
    assert not hasattr(lmcache_plugin_adapter, "no_such_name")
