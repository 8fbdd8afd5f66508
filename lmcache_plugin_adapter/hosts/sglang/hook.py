# SPDX-License-Identifier: Apache-2.0
"""The entry point that SGLang runs in each of its processes (``sglang.srt.plugins``).

It registers two hooks with SGLang's ``HookRegistry``: the rank's plugins start after LMCache's
cache is created, and stop before its shutdown. To apply a hook, SGLang imports the target, and this
target imports LMCache. The hooks are therefore registered only when SGLang itself imports the
target: with ``--enable-lmcache``, in a rank's process.
"""

from __future__ import annotations

import sys

from lmcache_plugin_adapter.hosts import AfterImport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CACHE_MODULE = "sglang.srt.mem_cache.storage.lmcache.lmcache_unified_radix_cache"
CACHE_CLASS = "LMCacheUnifiedRadixCache"


def register() -> None:
    """Start this process's plugins once it creates LMCache's cache; safe to call again."""
    if CACHE_MODULE in sys.modules:
        _register_hooks()
    elif not any(isinstance(finder, _CacheFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _CacheFinder())


class _CacheFinder(AfterImport):
    """Registers the hooks once SGLang has imported LMCache's cache."""

    def __init__(self) -> None:
        super().__init__({CACHE_MODULE: _register_and_apply}, _report_off)


_registered = False


def _register_hooks() -> Any:
    """Register the hooks once; return SGLang's registry, which applies them."""
    global _registered  # noqa: PLW0603 - SGLang has one registry for the process, too
    import importlib

    hooks: Any = importlib.import_module("sglang.srt.plugins.hook_registry")
    if not _registered:
        target = f"{CACHE_MODULE}.{CACHE_CLASS}"
        hooks.HookRegistry.register(f"{target}.__init__", _after_creation, hooks.HookType.AFTER)
        hooks.HookRegistry.register(f"{target}.shutdown", _before_shutdown, hooks.HookType.BEFORE)
        _registered = True
    return hooks.HookRegistry


def _register_and_apply() -> None:
    _register_hooks().apply_hooks()  # it skips what is applied already


def _after_creation(_result: object, cache: object, *args: object, **kwargs: object) -> None:
    """Start the rank's plugins; never raises, for an exception of a hook ends the rank."""
    try:
        from .plugins import start_plugins

        start_plugins(cache, args, kwargs)
    except Exception as error:  # noqa: BLE001 - the rank serves on
        _report_off(error)


def _before_shutdown(cache: object, *_args: object, **_kwargs: object) -> None:
    """Stop the rank's plugins, without waiting for them."""
    try:
        from .plugins import stop_plugins

        stop_plugins(cache)
    except Exception as error:  # noqa: BLE001 - SGLang's own shutdown goes on
        _warn("Cannot stop the runtime plugins of this rank; they stop when it exits: %s", error)


def _report_off(error: Exception) -> None:
    _warn("Runtime plugins of this rank do not run: %s", error)


def _warn(text: str, error: Exception) -> None:
    import logging

    from . import LOGGER

    logging.getLogger(LOGGER).warning(text, error)
