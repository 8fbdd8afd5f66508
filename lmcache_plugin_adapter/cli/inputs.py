# SPDX-License-Identifier: Apache-2.0
"""The input of commands: a configuration, and the processes of an engine."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.messages.near_miss import did_you_mean
from lmcache_plugin_adapter.messages.problem import Problem, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from lmcache_plugin_adapter.hosts.lmcache_server.config import ServerConfig

    from .lmcache_yaml import StandInConfig

    Config = TypeVar("Config")

SERVER_MODULE = "lmcache_plugin_adapter.server_module"

_MODULE_KEYS = ("module_path", "factory_name", "config")
"""The keys of a value of ``--server-module``."""

# The keys of LMCache's objects that plugins use most, with LMCache's defaults.
STAND_IN_SERVER = {
    "mp_config": {"host": "localhost", "port": 5555},
    "storage_manager_config": {},
    "obs_config": {},
    "http_config": {"http_host": "127.0.0.1", "http_port": 8080},
}


class UsageError(Exception):
    """The command line or the configuration cannot be used; the text is the reason."""


def read_config(path: str | None) -> StandInConfig:
    """Return the configuration at ``path``, overridden by the environment as in LMCache.

    Raises:
        UsageError: No file is named, or the file cannot be read or is malformed;
            the text starts with ``FILE:LINE:COLUMN:`` if the error has a place.
    """
    from .lmcache_yaml import load_lmcache_yaml

    config = _read(path, lambda path: load_lmcache_yaml(path, os.environ))
    if SERVER_MODULE in config.values.values():
        raise UsageError(f"{path} is a file for --server-module of 'lmcache server': add --server")
    return config


def read_server(path: str | None, lmcache_locations: Sequence[str] = ()) -> ServerConfig:
    """Return the configuration of a multiprocess server's plugins.

    The file holds the value of ``--server-module``, or only its ``config``, as
    JSON or YAML; an ``lmcache.yaml`` is accepted, too. No file is needed beside locations
    that are given to LMCache.

    Args:
        path: The file.
        lmcache_locations: ``--runtime-plugin-locations`` of LMCache's server.

    Raises:
        UsageError: As for :func:`read_config`.
    """
    from lmcache_plugin_adapter.hosts.lmcache_server.config import read_server_config

    from .yaml_reader import read_yaml

    given: Any
    given, problems = ({}, []) if lmcache_locations and not path else _read(path, read_yaml)
    if "module_path" in given or SERVER_MODULE in given.values():
        if given.get("module_path", SERVER_MODULE) != SERVER_MODULE:
            text = f"{path}: 'module_path' is not ours: it is {SERVER_MODULE!r}"
            problems.append(Problem("warning", text))
        for key in sorted(given.keys() - set(_MODULE_KEYS)):
            hint = did_you_mean(key, _MODULE_KEYS) or f"known are {', '.join(_MODULE_KEYS)}"
            text = f"Unknown key {quoted(key[:60])} of {path} has no effect: {hint}"
            problems.append(Problem("warning", text))
        if "module_path" not in given:
            text = f"{path} has no 'module_path': LMCache's server does not start with it"
            problems.append(Problem("error", text))
        given = given.get("config")
    config = read_server_config(
        given,
        STAND_IN_SERVER,
        source=str(path or "--runtime-plugin-locations"),
        lmcache_locations=lmcache_locations,
    )
    return replace(config, problems=(*problems, *config.problems))


def _read(path: str | None, read: Callable[[str], Config]) -> Config:
    from .yaml_reader import ConfigError

    if not path:
        raise UsageError("no configuration: name one with -c FILE or in LMCACHE_CONFIG_FILE")
    try:
        return read(path)
    except ConfigError as error:
        raise UsageError(str(error)) from error


def require_work(config: StandInConfig | ServerConfig) -> None:
    """Check that the configuration gives an engine plugins to run.

    Raises:
        UsageError: The configuration has no location, or leaves the plugins to LMCache.
    """
    from lmcache_plugin_adapter.configuration.effective import read_effective
    from lmcache_plugin_adapter.configuration.locations import KEY
    from lmcache_plugin_adapter.configuration.settings_table import PREFIX

    found = read_effective(config.extra_config, config.runtime_plugin_locations, os.environ)
    why = found.why_nothing_runs
    if why == "disabled":
        raise UsageError(
            f"{config.source}: '{PREFIX}.enabled' is false: plugins are left to LMCache's launcher"
        )
    if why:
        reasons = "".join(f"; {problem.text}" for problem in found.location_problems)
        raise UsageError(f"{config.source}: no '{KEY}', so there is nothing to run{reasons}")


def engine_processes(world_size: int, dp_rank: int = 0, dp_size: int = 1) -> list[ProcessIdentity]:
    """Return the processes of one replica that run plugins: the scheduler and the workers."""
    roles = [(Role.SCHEDULER, -1), *((Role.WORKER, rank) for rank in range(world_size))]
    return [ProcessIdentity(role, rank, world_size, dp_rank, dp_size) for role, rank in roles]
