# SPDX-License-Identifier: Apache-2.0
"""Trees of vLLM and LMCache in the shapes of their versions, written to disk and imported.

Each tree has the classes that the hook meets, with the signatures of that
version: vLLM's connector factory, its LMCache and multi connectors; LMCache's
adapter, configuration and launcher. The launcher of a tree starts no process;
its module keeps the launchers that would have started plugins in ``STARTED``.
"""

from __future__ import annotations

import enum
import inspect
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from vllm_config_shapes import TransferConfig, VllmConfig, parallel_config

# The five shapes of vLLM's factory, by the first version that had them.
FACTORIES = ("0.9", "0.10", "0.12", "0.20", "0.22")
# The four shapes of LMCache's launcher.
LAUNCHERS = ("0.3.4", "0.3.7", "0.3.11", "0.3.15")


class KVConnectorRole(enum.Enum):
    """vLLM's own, whose values are numbers."""

    SCHEDULER = 0
    WORKER = 1


_BASE = """
class KVConnectorBase:
    def __init__(self, vllm_config, role, kv_cache_config=None):
        self.log = []
"""
_BASE_SHUTDOWN = """
    def shutdown(self):
        self.log.append("shutdown")
"""
_LMCACHE_CONNECTOR = """
from vllm.distributed.kv_transfer.kv_connector.base import KVConnectorBase

class LMCacheConnectorV1(KVConnectorBase):
    def __init__(self, vllm_config, role{extra}):
        super().__init__(vllm_config, role)
        if vllm_config.kv_transfer_config.kv_connector_extra_config.get("use_native"):
            from vllm.distributed.kv_transfer.kv_connector.v1 import lmcache_integration as home
        else:
            import lmcache.integration.vllm.vllm_v1_adapter as home
        self._lmcache_engine = home.LMCacheConnectorV1Impl(vllm_config, role, self)
"""
_NATIVE = """
class LMCacheConnectorV1Impl:
    # vLLM's copy: a configuration of its own, started in the constructor, in every
    # replica of a dense model.
    def __init__(self, vllm_config, role, parent):
        from lmcache.integration.vllm import utils, vllm_v1_adapter
        self.config = utils.LMCacheEngineConfig()
        vllm_v1_adapter.apply_extra_config(self.config, vllm_config)
        pc = vllm_config.parallel_config
        self.plugin_launcher = None
        if pc.data_parallel_size_local == 1 or pc.data_parallel_rank_local == 0:
            self.plugin_launcher = vllm_v1_adapter.Launcher(
                self.config, role, pc.tensor_parallel_size, -1)
            self.plugin_launcher.launch_plugins()
"""
_MULTI = """
import copy
from vllm.distributed.kv_transfer.kv_connector.base import KVConnectorBase
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

class MultiConnector(KVConnectorBase):
    def __init__(self, vllm_config, role, kv_cache_config=None):
        super().__init__(vllm_config, role)
        self._connectors = []
        for entry in vllm_config.kv_transfer_config.kv_connector_extra_config["connectors"]:
            child = copy.copy(vllm_config)
            child.kv_transfer_config = type(vllm_config.kv_transfer_config)(**entry)
            self._connectors.append({build})

    def shutdown(self):
        self.log.append("shutdown")
        for child in self._connectors:
            if hasattr(child, "shutdown"):
                child.shutdown()
"""
_OTHER = """
from vllm.distributed.kv_transfer.kv_connector.base import KVConnectorBase

class {name}(KVConnectorBase):
    pass
"""
_FACTORY = """
import importlib

class KVConnectorFactory:
    _registry = {{}}

    @classmethod
    def register_connector(cls, name, module_path, class_name):
        cls._registry[name] = lambda: getattr(importlib.import_module(module_path), class_name)

    @classmethod
    def {create}(cls, {parameters}):
        ktc = config.kv_transfer_config
        path = ktc.kv_connector_module_path
        if {by_path}:
            found = getattr(importlib.import_module(path), ktc.kv_connector)
        else:
            found = cls._registry[ktc.kv_connector]()
        return found(config, role{given})

_V1 = "vllm.distributed.kv_transfer.kv_connector.v1."
for _name, _module in (("LMCacheConnectorV1", "lmcache_connector"), ("MultiConnector", "multi"),
                       ("LMCacheMPConnector", "mp"), ("NixlConnector", "nixl")):
    KVConnectorFactory.register_connector(_name, _V1 + _module, _name)
"""
_CONFIG = """
import json, os

class LMCacheEngineConfig:
    def __init__(self):
        self.extra_config = None
        self.{locations} = None
        for key, value in json.loads(os.environ["FAKE_LMCACHE_CONFIG"]).items():
            setattr(self, "{locations}" if key == "locations" else key, value)

    def to_json(self):
        return json.dumps(vars(self))

_config_instance = None

def {get}():
    global _config_instance
    if _config_instance is None or {fresh}:
        _config_instance = LMCacheEngineConfig()
    return _config_instance
"""
_ADAPTER = """
import os
from lmcache.integration.vllm import utils
from lmcache.v1.plugin.{module} import {launcher} as Launcher

def apply_extra_config(config, vllm_config):
    for key, value in vllm_config.kv_transfer_config.kv_connector_extra_config.items():
        if key.startswith("lmcache."):
            key = key[len("lmcache."):]
            setattr(config, "{locations}" if key == "locations" else key, value)

class LMCacheConnectorV1Impl:
    def __init__(self, vllm_config, role, parent):
        config = utils.{get}()
        apply_extra_config(config, vllm_config)
        self.config = config
        if os.environ.get("FAKE_LMCACHE_FAILS"):
            {on_failure}
        if {condition}:
            self.launcher = Launcher(
                config, {role}, vllm_config.parallel_config.tensor_parallel_size, -1)
            self.launcher.launch_plugins()

"""
_DYNAMIC = """
from lmcache.integration.vllm.vllm_v1_adapter import LMCacheConnectorV1Impl

class LMCacheConnectorV1Dynamic:
    def __init__(self, vllm_config, role, kv_cache_config=None):
        self.log = []
        self._lmcache_engine = LMCacheConnectorV1Impl(vllm_config, role, self)

    def shutdown(self):
        self.log.append("shutdown")
"""
_LAUNCHER = """
STARTED = []

class {launcher}:
    def __init__(self, config, role, worker_count, worker_id):
        self.config, self.role = config, role
        self.worker_count, self.worker_id = worker_count, worker_id
        self.plugin_processes = []

    def launch_plugins(self):
        if not self.config.{locations}:
            return
        STARTED.append(self)

    def stop_plugins(self):
        pass
"""


def write_vllm(root: Path, shape: str) -> None:
    """Write a vLLM tree whose factory is of ``shape``."""
    first = FACTORIES.index(shape)
    cache = first >= FACTORIES.index("0.12")
    required = shape == "0.22"
    v1 = "vllm/distributed/kv_transfer/kv_connector/v1/"
    build = {
        "0.9": "KVConnectorFactory.create_connector_v1(child, role)",
        "0.10": "KVConnectorFactory.create_connector(child, role)",
    }.get(
        shape,
        "KVConnectorFactory._registry[entry['kv_connector']]()(child, role, kv_cache_config)",
    )
    files = {
        "vllm/distributed/kv_transfer/kv_connector/base.py": _BASE
        + ("" if shape == "0.9" else _BASE_SHUTDOWN),
        "vllm/distributed/kv_transfer/kv_connector/factory.py": _FACTORY.format(
            create="create_connector_v1" if shape == "0.9" else "create_connector",
            parameters="config, role"
            + (", kv_cache_config" + ("" if required else "=None") if cache else ""),
            by_path={"0.9": "False", "0.10": "path and ktc.kv_connector not in cls._registry"}.get(
                shape,
                "path and ktc.kv_connector not in cls._registry" if shape == "0.12" else "path",
            ),
            given=", kv_cache_config" if cache else "",
        ),
        v1 + "lmcache_connector.py": _LMCACHE_CONNECTOR.format(
            extra=", kv_cache_config" if cache else ""
        ),
        v1 + "lmcache_integration.py": _NATIVE,
        v1 + "multi.py": _MULTI.format(build=build),
        v1 + "mp.py": _OTHER.format(name="LMCacheMPConnector"),
        v1 + "nixl.py": _OTHER.format(name="NixlConnector"),
    }
    _write_tree(root, files)


def write_lmcache(root: Path, shape: str) -> None:
    """Write an LMCache tree whose launcher is of ``shape``, or ``"none"`` for one without."""
    old_name = shape in ("0.3.4", "0.3.7")
    launcher = "PluginLauncher" if old_name else "RuntimePluginLauncher"
    module = "plugin_launcher" if old_name else "runtime_plugin_launcher"
    if shape == "none":
        launcher, module = "Gone", "gone"
    names = {
        "locations": "plugin_locations" if old_name else "runtime_plugin_locations",
        "launcher": launcher,
        "module": module,
        "get": "lmcache_get_config" if shape == "0.3.4" else "lmcache_get_or_create_config",
        "fresh": str(shape == "0.3.4"),
        "condition": "True"
        if shape == "0.3.4"
        else "vllm_config.parallel_config.data_parallel_rank_local == 0",
        "role": "role" if shape != "0.3.15" else "role.name.lower()",
        "on_failure": "return  # degraded" if shape == "0.3.15" else "raise OSError('engine')",
    }
    files = {
        "lmcache/integration/vllm/utils.py": _CONFIG.format(**names),
        "lmcache/integration/vllm/vllm_v1_adapter.py": _ADAPTER.format(**names),
        "lmcache/integration/vllm/lmcache_connector_v1.py": _DYNAMIC,
        f"lmcache/v1/plugin/{module}.py": _LAUNCHER.format(**names),
    }
    _write_tree(root, files)


def _write_tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        for parent in path.relative_to(root).parents:
            (root / parent).mkdir(parents=True, exist_ok=True)
            if parent != Path():
                (root / parent / "__init__.py").touch()
        path.write_text(textwrap.dedent(text))


class Engine:
    """Create connectors as one process of vLLM does."""

    def __init__(self) -> None:
        self.parallel = parallel_config()

    @property
    def factory(self) -> Any:
        """Import vLLM's factory class, as vLLM's scheduler and worker do."""
        import vllm.distributed.kv_transfer.kv_connector.factory as module

        return module.KVConnectorFactory

    def create(self, role: str = "WORKER", **transfer: Any) -> Any:
        """Create a connector as vLLM's scheduler or worker does, with keyword arguments."""
        config = VllmConfig(TransferConfig(**transfer), self.parallel)
        name = "create_connector"
        create = getattr(self.factory, name, None) or getattr(self.factory, name + "_v1")
        given = {"config": config, "role": KVConnectorRole[role]}
        if "kv_cache_config" in inspect.signature(create).parameters:
            given["kv_cache_config"] = object()
        return create(**given)

    @property
    def started_by_lmcache(self) -> list[Any]:
        """The launchers of LMCache that would have started plugins."""
        found = []
        for name, module in sys.modules.items():
            if name.startswith("lmcache.v1.plugin."):
                found += getattr(module, "STARTED", [])
        return found


def lmcache_settings(locations: Any, /, **settings: Any) -> str:
    """Return LMCache's configuration as JSON, with plugin locations and the adapter's settings."""
    return json.dumps({"locations": locations, "extra_config": {"runtime_plugins": settings}})
