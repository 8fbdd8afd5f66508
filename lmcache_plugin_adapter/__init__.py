"""Run LMCache runtime plugins beside vLLM, supervised: started once, logged, never left behind.

Importing this package is cheap on purpose: vLLM imports it in every process.
The public names are loaded when first used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .launcher import RuntimePluginLauncher

__all__ = ["RuntimePluginLauncher", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Load ``RuntimePluginLauncher`` on first use (PEP 562)."""
    if name == "RuntimePluginLauncher":
        from .launcher import RuntimePluginLauncher

        return RuntimePluginLauncher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
