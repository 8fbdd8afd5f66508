# SPDX-License-Identifier: Apache-2.0
"""Supervise LMCache runtime plugins beside vLLM: start each once, log it, restart it, stop it.

vLLM imports this package in every process, so the import loads almost nothing:
the public names are loaded on first use. docs/contributing/write-a-host.md shows how another
host uses them.
"""

from __future__ import annotations

# Relative: flit imports this file before the package is installed.
from .contract.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
    from lmcache_plugin_adapter.engine.launcher import RuntimePluginLauncher
    from lmcache_plugin_adapter.engine.supervisor_start import LaunchError

__all__ = ["LaunchError", "ProcessIdentity", "Role", "RuntimePluginLauncher", "__version__"]


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name in ("ProcessIdentity", "Role"):
        from lmcache_plugin_adapter.contract import identity

        return getattr(identity, name)
    if name in ("LaunchError", "RuntimePluginLauncher"):
        from lmcache_plugin_adapter.engine import launcher

        return getattr(launcher, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
