# SPDX-License-Identifier: Apache-2.0
"""The kit for plugin authors: context, settings, stop and log lines of a plugin in Python.

Runs in a plugin's process. A plugin can do without it: the kit uses the plugin contract only
(environment, signals, output). It imports a few small modules of the standard library and
``contract`` at once, and larger modules at their first use.
"""

from __future__ import annotations

from .context import Context, context
from .errors import ContextError, SettingsError
from .notifying import notify, ready, status
from .periodic import Tick, every
from .printing import debug, error, info, warning
from .running import exit_without, run
from .stopping import Stop, Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

    from lmcache_plugin_adapter.kit.engine_api.address import ApiAddress
    from lmcache_plugin_adapter.kit.settings.quantities import Duration, Size

    from .retry import Backoff

__all__ = [
    "ApiAddress",
    "Backoff",
    "Context",
    "ContextError",
    "Duration",
    "SettingsError",
    "Size",
    "Stop",
    "Stopped",
    "Tick",
    "context",
    "debug",
    "error",
    "every",
    "exit_without",
    "info",
    "logging_handler",
    "notify",
    "ready",
    "run",
    "status",
    "warning",
]


def logging_handler() -> logging.Handler:
    """Return a handler that prints records of :mod:`logging` with their levels.

    Add it to the root logger to send the records of libraries to the engine's log.
    """
    from .log_handler import PrintingHandler  # late: logging takes some milliseconds to load

    return PrintingHandler()


def __getattr__(name: str) -> object:
    """Load what not every plugin uses (PEP 562)."""
    if name == "ApiAddress":
        from lmcache_plugin_adapter.kit.engine_api.address import ApiAddress

        return ApiAddress
    if name == "Backoff":
        from .retry import Backoff

        return Backoff
    if name in ("Duration", "Size"):
        from .settings import quantities

        return getattr(quantities, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
