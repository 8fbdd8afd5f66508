# SPDX-License-Identifier: Apache-2.0
"""The contract ring: real vLLM and LMCache in the versions that PYTHONPATH puts first.

``tests/real_engine/ring`` runs it once for each; without vLLM it is skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "real_engine")]

if not all(importlib.util.find_spec(name) for name in ("vllm", "lmcache")):
    collect_ignore_glob = ["test_*"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


@pytest.fixture(scope="session")
def vllm_config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A complete configuration, made by vLLM from a server's arguments."""
    from tiny_model import make_tiny_model
    from vllm.config import KVTransferConfig
    from vllm.engine.arg_utils import EngineArgs

    from lmcache_plugin_adapter.hosts.vllm import hook

    hook.register()
    home = os.environ.get("RING_HOME") or str(tmp_path_factory.mktemp("model"))
    arguments = EngineArgs(
        model=str(make_tiny_model(Path(home) / "model")),
        max_model_len=512,
        enforce_eager=True,
        dtype="bfloat16",
        kv_transfer_config=KVTransferConfig(kv_connector="LMCacheConnectorV1", kv_role="kv_both"),
    )
    return arguments.create_engine_config()


@pytest.fixture
def plugin_ran(tmp_path: Path) -> tuple[str, Path]:
    """A directory with a plugin for each process, and the file that the plugin writes."""
    directory, mark = tmp_path / "plugins", tmp_path / "ran"
    directory.mkdir()
    (directory / "all_mark.sh").write_text(f"echo $LMCACHE_PLUGIN_ROLE >> {mark}\n")
    return str(directory), mark


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that writes ``lmcache.yaml`` and makes LMCache forget the previous one."""
    import yaml
    from lmcache.integration.vllm import utils

    def forget() -> None:
        utils._config_instance = None

    def write(**values: Any) -> None:
        path = tmp_path / "lmcache.yaml"
        path.write_text(yaml.safe_dump({"max_local_cpu_size": 0.1, **values}))
        monkeypatch.setenv("LMCACHE_CONFIG_FILE", str(path))
        forget()

    yield write
    forget()


@pytest.fixture
def create(vllm_config: Any, mocker: Any) -> Callable[..., Any]:
    """Return a function that creates a connector with the real factory."""
    import copy

    from vllm.config import KVTransferConfig
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
    from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
    from vllm.v1.kv_cache_interface import KVCacheConfig

    cache = mocker.create_autospec(KVCacheConfig, instance=True)

    def create(role: str = "SCHEDULER", parallel: Any = None, **transfer: Any) -> Any:
        config = copy.copy(vllm_config)
        given = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both", **transfer}
        config.kv_transfer_config = KVTransferConfig(**given)
        if parallel is not None:
            config.parallel_config = parallel
        return KVConnectorFactory.create_connector(
            config=config, role=KVConnectorRole[role], kv_cache_config=cache
        )

    return create


def pytest_report_header() -> list[str]:
    """Report which versions of vLLM and LMCache the ring tests."""
    from lmcache_plugin_adapter.hosts.upstream_names import SUPPORTED, installed_version

    versions = {project: installed_version(project) for project in SUPPORTED}
    return [f"upstream: {json.dumps(versions)}"]
