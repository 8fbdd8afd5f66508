"""The grace period of this plugin, as its supervisor has read it."""

from __future__ import annotations

from .context import Context
from .errors import ContextError


def stop_grace(context: Context | None) -> float:
    """Return the seconds between SIGTERM and SIGKILL.

    Args:
        context: The plugin's; None: that of this process's environment.
    """
    from lmcache_plugin_adapter.configuration.settings import read_settings

    try:
        ctx = Context.from_environ() if context is None else context
        extra_config = ctx.config.get("extra_config")
        names = ctx.names
    except ContextError:
        extra_config, names = None, ()
    settings, _ = read_settings(extra_config)
    return settings.for_plugin(*names).stop_grace
