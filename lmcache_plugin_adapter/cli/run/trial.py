# SPDX-License-Identifier: Apache-2.0
"""Make a configuration for a trial of single plugin files, and choose their stand-in engines."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.inputs import STAND_IN_SERVER, UsageError
from lmcache_plugin_adapter.cli.lmcache_yaml import EXTRA_CONFIG, StandInConfig, is_yaml
from lmcache_plugin_adapter.configuration.locations import INSTALLED_PREFIX, KEY
from lmcache_plugin_adapter.contract.engine_settings import SETTINGS_KEY, settings_section
from lmcache_plugin_adapter.contract.identity import Role
from lmcache_plugin_adapter.messages.problem import Problem, quoted
from lmcache_plugin_adapter.planner.file_names import (
    LMCACHE_EXTENSIONS,
    PluginName,
    name_advice,
    name_warning,
    parse_name,
    runs_on,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from lmcache_plugin_adapter.contract.identity import ProcessIdentity
    from lmcache_plugin_adapter.hosts.lmcache_server.config import ServerConfig

    from .stand_ins import StandIns


@dataclass(frozen=True)
class FileTrial:
    """The files of a trial.

    Attributes:
        locations: The files, as absolute paths.
        names: The parsed names of those that are files with a role.
        without_role: What to call each file that has no role; every file then runs.
        is_open: Whether the names do not tell where the plugins run.
    """

    locations: list[str]
    names: list[PluginName]
    without_role: list[str]
    is_open: bool

    def stand_ins(self, chosen: StandIns) -> StandIns:
        """Return the stand-ins of the command line, or enough of them for the files."""
        if chosen.server or chosen.role is not None:
            return chosen
        if self.names and not self.is_open and all(n.role == Role.SERVER.value for n in self.names):
            return replace(chosen, server=True)
        if self.without_role:
            return replace(chosen, role=Role.WORKER)
        last = max((n.worker_id or 0 for n in self.names if not n.never_runs), default=0)
        return replace(chosen, world_size=max(chosen.world_size, last + 1))

    def identities(self, identities: Sequence[ProcessIdentity]) -> list[ProcessIdentity]:
        """Return the processes that run one of the files.

        Raises:
            UsageError: None of them does.
        """
        if self.is_open or self.without_role:
            return list(identities)
        found = [one for one in identities if any(runs_on(name, one) for name in self.names)]
        if not found:
            where = []
            for name in self.names:
                never = name_warning(name, identities) if name.never_runs else None
                why = f": {never}" if never else f" runs on {name.describe()}"
                where.append(quoted(name.stem + name.extension) + why)
            raise UsageError(f"nothing to run on {identities[0].label}: {', '.join(where)}")
        return found

    def apply_to(self, config: StandInConfig | ServerConfig) -> StandInConfig | ServerConfig:
        """Return the configuration with the files in place of its locations."""
        extra = config.extra_config if isinstance(config.extra_config, dict) else {}
        settings = dict(settings_section(extra))
        settings.pop("locations", None)
        if self.without_role:
            settings["filter_by_role"] = False
        extra = {**extra, SETTINGS_KEY: settings}
        problems = (*config.problems, *(Problem("note", text) for text in self.without_role))
        if isinstance(config, StandInConfig):
            values = {**config.values, KEY: self.locations, EXTRA_CONFIG: extra}
            return replace(config, values=values, problems=problems)
        return replace(
            config,
            runtime_plugin_locations=self.locations,
            own_locations=self.locations,
            lmcache_locations=(),
            extra_config=extra,
            problems=problems,
        )


def read_trial(files: Sequence[str]) -> FileTrial:
    """Check the files of a command line.

    Raises:
        UsageError: One does not exist or is no program.
    """
    locations: list[str] = []
    names: list[PluginName] = []
    without_role: list[str] = []
    is_open = False
    for file in files:
        if file.startswith(INSTALLED_PREFIX) or os.path.isdir(file):
            locations.append(file if file.startswith(INSTALLED_PREFIX) else os.path.abspath(file))
            is_open = True
            continue
        if not os.path.exists(file):
            raise UsageError(f"no such file: {quoted(file)}")
        executable = os.access(file, os.X_OK)
        name = parse_name(os.path.basename(file), executable=executable, is_location=True)
        if isinstance(name, PluginName):
            names.append(name)
        elif name.kind in ("no-role", "near-miss") and (
            executable or file.endswith(LMCACHE_EXTENSIONS)
        ):
            without_role.append(f"{quoted(file)} runs in this trial only: {name_advice(name)}")
        else:
            hint = f"; a configuration is given as '-c {file}'" if is_yaml(file) else ""
            raise UsageError(f"cannot run {quoted(file)}: {name_advice(name)}{hint}")
        locations.append(os.path.abspath(file))
    return FileTrial(locations, names, without_role, is_open)


def empty_config(files: Sequence[str]) -> StandInConfig:
    """Return the configuration of a trial without a configuration file."""
    values: dict[str, Any] = {KEY: None, EXTRA_CONFIG: None}
    return StandInConfig(", ".join(files), values, ())


def empty_server_config(files: Sequence[str]) -> ServerConfig:
    """Return the same for LMCache's multiprocess server."""
    from lmcache_plugin_adapter.hosts.lmcache_server.config import read_server_config

    return read_server_config({}, STAND_IN_SERVER, source=", ".join(files))
