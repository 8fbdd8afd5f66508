# SPDX-License-Identifier: Apache-2.0
"""The objects of LMCache's multiprocess server that a server module gets, as in LMCache 0.5.6."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lmcache_plugin_adapter.server_module import build_server_modules

__all__ = ["build", "build_server_modules", "make"]


@dataclass
class RuntimePluginConfig:
    """What ``--runtime-plugin-locations`` and ``--runtime-plugin-config`` give."""

    locations: list[str] = field(default_factory=list)
    extra_config: dict[str, Any] = field(default_factory=dict)


@dataclass
class MPServerConfig:
    """The server's own configuration."""

    host: str = "localhost"
    port: int = 5555
    runtime_plugin_config: RuntimePluginConfig = field(default_factory=RuntimePluginConfig)


@dataclass
class HTTPFrontendConfig:
    """The configuration of the server's HTTP front end."""

    http_port: int = 8080


@dataclass(frozen=True)
class ExtServerModuleBuildContext:
    """The argument of a server module's factory."""

    server_context: object
    mp_config: MPServerConfig
    coordinator_config: object
    modules: tuple[object, ...]
    config: Any


def make(
    given: object,
    locations: Sequence[str] = (),
    parameters: dict[str, Any] | None = None,
    modules: Sequence[object] = (),
    http: bool = True,
) -> ExtServerModuleBuildContext:
    """Return a factory's argument.

    Args:
        given: ``config`` of ``--server-module``.
        locations: Those of ``--runtime-plugin-locations``.
        parameters: ``--runtime-plugin-config``.
        modules: The modules that the server made before.
        http: Whether this process has LMCache's HTTP front end, with all its configurations.
    """
    mp_config = MPServerConfig(
        runtime_plugin_config=RuntimePluginConfig(list(locations), parameters or {})
    )
    if http:
        module: Any = types.ModuleType("lmcache.v1.multiprocess.http_server")
        module._configs = {
            "mp": mp_config,
            "storage_manager": {"a": 1},
            "observability": {"b": 2},
            "http": HTTPFrontendConfig(),
            "coordinator": None,
        }
        sys.modules[module.__name__] = module
    return ExtServerModuleBuildContext("the context", mp_config, None, tuple(modules), given)


def build(given: object, **options: Any) -> Any:
    """Return the adapter's server module, built as LMCache's server builds it."""
    return build_server_modules(make(given, **options))
