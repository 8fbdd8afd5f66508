# SPDX-License-Identifier: Apache-2.0
"""Prepare the trial of a plugin: its file, LMCache's configuration, the engine's environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcache_plugin_adapter.contract.identity import ALL_ROLES, ProcessIdentity, Role
from lmcache_plugin_adapter.contract.runtime_dir import DIRECTORY_VARIABLE
from lmcache_plugin_adapter.messages.problem import quoted
from lmcache_plugin_adapter.planner.file_names import (
    PluginName,
    name_advice,
    name_warning,
    parse_name,
    runs_on,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENTRY = re.compile(r"[\w.]+:\w+")


def locate(plugin: str, directory: Path, role: str | None, name: str | None) -> tuple[str, str]:
    """Return location and name of a plugin; write its file if it is a function.

    Args:
        plugin: As for :class:`.trial.Trial`.
        directory: The engine's directory.
        role: The engine's role, if given.
        name: The plugin's name if a file is written; None: from role and module.
    """
    if plugin.startswith("pkg:"):
        return plugin, plugin.removeprefix("pkg:")
    path = Path(plugin)
    if _ENTRY.fullmatch(plugin) and not path.exists():
        module, _, function = plugin.partition(":")
        name = name or f"{(role or 'scheduler').lower()}_{module.rpartition('.')[2]}"
        path = directory / "plugins" / f"{name}.py"
        path.parent.mkdir()
        path.write_text(
            f"import sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
        )
        path.chmod(0o755)
    if not path.is_file():
        raise FileNotFoundError(f"no such plugin: {plugin!r}")
    return str(path.absolute()), path.stem


def engine_process(
    location: str, role: str | None, worker_id: int, worker_count: int
) -> ProcessIdentity:
    """Return the engine process to stand in for: what is not given follows from the name.

    Args:
        location: The plugin's file, or ``pkg:NAME``.
        role: The engine's role, if given.
        worker_id: The worker's rank; negative if not given.
        worker_count: Workers of the replica, at least.

    Raises:
        ValueError: The process does not run the plugin; the text has what to do.
    """
    file = os.path.basename(location.removeprefix("pkg:"))
    name = parse_name(file, executable=True, is_location=True)
    if not isinstance(name, PluginName):
        raise ValueError(  # noqa: TRY004 - the name is wrong, not its type
            f"cannot run {quoted(file)}: {name_advice(name)}"
        )
    if role is None:
        role = name.role
        if role == ALL_ROLES:
            role = "scheduler" if name.worker_id is None else "worker"
    who = Role.read(role)
    if who is not Role.SCHEDULER and worker_id < 0:
        worker_id = (who is Role.WORKER and name.worker_id) or 0
    identity = ProcessIdentity(who, worker_id, max(worker_count, worker_id + 1))
    if name.never_runs:
        raise ValueError(f"cannot run {quoted(file)}: {name_warning(name, [identity])}")
    if not runs_on(name, identity):
        text = f"{quoted(file)} runs on {name.describe()}, not on {identity.label}"
        raise ValueError(f"{text}: leave out 'role' and 'worker_id', or rename the plugin")
    return identity


def configuration(
    config: Mapping[str, Any], location: str, general: Mapping[str, Any], plugins: Mapping[str, Any]
) -> dict[str, Any]:
    """Return LMCache's configuration with the plugin in it.

    Args:
        config: The test's configuration, whose values win.
        location: The plugin's location.
        general: Settings for all plugins.
        plugins: Settings by the names of plugins.
    """
    extra = dict(config.get("extra_config") or {})
    section = {**general, **(extra.get("runtime_plugins") or {})}
    own = dict(section.get("plugins") or {})
    for name, values in plugins.items():
        own[name] = {**(own.get(name) or {}), **values}
    section["plugins"] = own
    extra["runtime_plugins"] = section
    return {**config, "runtime_plugin_locations": [location], "extra_config": extra}


def environment(env: Mapping[str, str | None], directory: Path) -> dict[str, str]:
    """Return the engine's environment: that of this process, with the test's changes.

    Args:
        env: The test's variables; None removes one.
        directory: The engine's directory.
    """
    kept: dict[str, str | None] = {
        name: value
        for name, value in os.environ.items()
        # A log level would keep lines out of the log.
        if not name.startswith("LMCACHE_") and name != "NO_COLOR"
    }
    found = {**kept, DIRECTORY_VARIABLE: str(directory / "run"), **env}
    return {name: value for name, value in found.items() if value is not None}
