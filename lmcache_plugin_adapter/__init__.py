"""Run LMCache runtime plugins beside vLLM, supervised: started once, logged, never left behind.

Importing this package is cheap on purpose: vLLM imports it in every process.
The public names are loaded when first used.
"""

from __future__ import annotations

from .contract.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lmcache_plugin_adapter.engine.launcher import RuntimePluginLauncher

__all__ = ["RuntimePluginLauncher", "__version__"]


def __getattr__(name: str) -> object:
    """Load ``RuntimePluginLauncher`` on first use (PEP 562)."""
    if name == "RuntimePluginLauncher":
        from lmcache_plugin_adapter.engine.launcher import RuntimePluginLauncher

        return RuntimePluginLauncher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
