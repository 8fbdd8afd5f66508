# SPDX-License-Identifier: Apache-2.0
"""Hold LMCache's own launcher, so that this package runs the plugins.

Imported only when an LMCache connector is about to be created.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import LAUNCHERS

if TYPE_CHECKING:
    from collections.abc import Callable

_ORIGINAL = "_lmcache_plugin_adapter_original"
_TAKEN = "_lmcache_plugin_adapter_taken"


def hold_builtin(hold: Callable[[Any], bool]) -> bool:
    """Make LMCache's launcher call ``hold(launcher)`` before it starts plugins.

    Why: LMCache starts its launcher inside the connector's constructor, where the configuration
    becomes complete. To empty the locations before that would miss those of
    ``kv_connector_extra_config``, and hide the locations from plugins. The replaced method reaches
    every caller, because callers hold the class. It can go when LMCache's launcher class is
    configurable.

    Args:
        hold: Called with each launcher before it starts plugins; if it returns True, the
            launcher starts none. Must not raise.

    Returns:
        Whether this LMCache has a known launcher.
    """
    launcher_class = find_launcher()
    if launcher_class is None:
        return False
    if _ORIGINAL in vars(launcher_class):
        return True
    original = launcher_class.launch_plugins

    def launch_plugins(self: Any, *args: object, **kwargs: object) -> object:
        if getattr(self, _TAKEN, False) or hold(self):
            return None
        return original(self, *args, **kwargs)

    setattr(launcher_class, _ORIGINAL, original)
    launcher_class.launch_plugins = launch_plugins
    return True


def find_launcher() -> Any | None:
    """Return LMCache's launcher class, or None if it has no known one."""
    for module_name, class_name in LAUNCHERS:
        try:
            found = getattr(importlib.import_module(module_name), class_name, None)
        except ImportError:
            continue
        if callable(getattr(found, "launch_plugins", None)):
            return found
    return None


def keep_held(launcher: object) -> None:
    """Prevent a held launcher from starting plugins."""
    setattr(launcher, _TAKEN, True)


def start_builtin(launcher: Any) -> None:
    """Start the plugins of a held launcher."""
    getattr(type(launcher), _ORIGINAL)(launcher)
