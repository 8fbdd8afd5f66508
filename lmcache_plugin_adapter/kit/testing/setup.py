# SPDX-License-Identifier: Apache-2.0
"""Prepare the trial of a plugin: its file, LMCache's configuration, the engine's environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcache_plugin_adapter.contract.runtime_dir import DIRECTORY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENTRY = re.compile(r"[\w.]+:\w+")


def locate(plugin: str, directory: Path, role: str, name: str | None) -> tuple[str, str]:
    """Return location and name of a plugin; write its file if it is a function.

    Args:
        plugin: As for :class:`.trial.Trial`.
        directory: The engine's directory.
        role: The engine's role.
        name: The plugin's name if a file is written; None: from role and module.
    """
    if plugin.startswith("pkg:"):
        return plugin, plugin.removeprefix("pkg:")
    path = Path(plugin)
    if _ENTRY.fullmatch(plugin) and not path.exists():
        module, _, function = plugin.partition(":")
        name = name or f"{role.lower()}_{module.rpartition('.')[2]}"
        path = directory / "plugins" / f"{name}.py"
        path.parent.mkdir()
        path.write_text(
            f"import sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
        )
        path.chmod(0o755)
    if not path.is_file():
        raise FileNotFoundError(f"no such plugin: {plugin!r}")
    return str(path.absolute()), path.stem


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
