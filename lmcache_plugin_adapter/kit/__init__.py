"""The author's kit: what a plugin in Python needs, and nothing that costs it a start.

A plugin may do without: everything here stands on the contract alone (environment,
signals, output). Importing this package loads a handful of small modules of the
standard library; whatever is larger is loaded when it is first used.
"""

from __future__ import annotations

from .context import Context, context
from .errors import ContextError, SettingsError
from .periodic import Tick, every
from .printing import debug, error, info, warning
from .running import run
from .stopping import Stop, Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

    from lmcache_plugin_adapter.kit.engine_api.address import ApiAddress

    from .retry import Backoff

__all__ = [
    "ApiAddress",
    "Backoff",
    "Context",
    "ContextError",
    "SettingsError",
    "Stop",
    "Stopped",
    "Tick",
    "context",
    "debug",
    "error",
    "every",
    "info",
    "logging_handler",
    "run",
    "warning",
]


def logging_handler() -> logging.Handler:
    """Return a handler that prints records of :mod:`logging`, with their levels.

    Add it to the root logger, and what libraries log reaches the engine's log
    as errors, warnings and so on.
    """
    from .log_handler import PrintingHandler  # logging costs some milliseconds

    return PrintingHandler()


def __getattr__(name: str) -> object:
    """Load what not every plugin uses (PEP 562)."""
    if name == "ApiAddress":
        from lmcache_plugin_adapter.kit.engine_api.address import ApiAddress

        return ApiAddress
    if name == "Backoff":
        from .retry import Backoff

        return Backoff
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
