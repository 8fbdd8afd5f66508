# SPDX-License-Identifier: Apache-2.0
"""Hold LMCache's launcher while a connector is created, then start this package's launcher.

Shared by the hook into vLLM's factory and by the explicit connector class.
Imported only when an LMCache connector is about to be created.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from lmcache_plugin_adapter.contract.engine_settings import (
    settings_section,
    why_engine_runs_nothing,
)

from . import LAUNCHERS, LOGGER, PLUGIN_LOGGER, lmcache_chooses, lmcache_launcher
from .connector_recognition import is_lmcache_class
from .identity import local_replica_index, read_identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmcache_plugin_adapter.engine.launcher import RuntimePluginLauncher

log = logging.getLogger(LOGGER)

# Creations under way in this process, the innermost last.
_under_way: list[Takeover] = []


class Takeover:
    """Context manager around the creation of one connector.

    Args:
        vllm_config: vLLM's configuration that the connector is created with.
        role: vLLM's ``KVConnectorRole``.
        nested: Do nothing: the creation that includes this one does it.
    """

    def __init__(self, vllm_config: object, role: object, nested: bool) -> None:
        self.thread = threading.get_ident()
        self.pid = os.getpid()
        self._vllm_config = vllm_config
        self._role = role
        self._nested = nested
        self._builtin_known = False
        self._held: list[Any] = []
        self._left_to_lmcache = False

    def __enter__(self) -> None:
        """Hold LMCache's launcher from here on."""
        if self._nested:
            return
        try:
            self._builtin_known = lmcache_launcher.hold_builtin(_hold)
        except Exception as error:  # noqa: BLE001 - LMCache may be of any shape
            log.warning("Cannot hold LMCache's own launcher of runtime plugins: %s", error)
        _under_way.append(self)

    def __exit__(self, *_: object) -> None:
        """Stop holding launchers."""
        if self in _under_way:
            _under_way.remove(self)

    def hold(self, launcher: Any) -> bool:
        """Return True if this package runs the plugins of this LMCache launcher."""
        try:
            if _why_nothing(launcher.config) != "disabled":
                self._held.append(launcher)
                return True
        except Exception as error:  # noqa: BLE001 - LMCache starts the plugins then
            log.warning(
                "Runtime plugins are left to LMCache's own launcher: cannot read settings: %s",
                error,
            )
        self._left_to_lmcache = True
        return False

    def finish(self, connector: Any) -> None:
        """Start the plugins of the process that made ``connector``; never raises.

        They stop when the connector is shut down, or with the process. If this package cannot
        start them, LMCache's held launcher does.
        """
        if self._nested or self._left_to_lmcache:
            return
        try:
            launcher = self._launch(connector)
        except Exception as error:  # noqa: BLE001 - the engine serves on
            self._fall_back(error)
            return
        for held in self._held:
            lmcache_launcher.keep_held(held)
        if launcher is not None:
            _stop_on_shutdown(connector, launcher)

    def _launch(self, connector: Any) -> RuntimePluginLauncher | None:
        parts = list(_lmcache_parts(connector))
        if not self._held and not parts:
            if missing := _why_no_parts(connector):
                log.warning("Runtime plugins are left to LMCache: %s", missing)
            return None  # the name mentions LMCache, but this process has none
        config = self._config(parts)
        nothing = _why_nothing(config)
        if nothing == "no-location" and not any(hasattr(config, name) for name in _LOCATIONS):
            raise LookupError(f"LMCache's configuration has no {_LOCATIONS[0]!r}")
        if nothing:
            return None
        if not self._builtin_known:
            log.warning(
                "Runtime plugins are left to LMCache: this version has no %s.%s.launch_plugins, "
                "which the adapter would hold, and two launchers would start every plugin twice",
                *LAUNCHERS[0],
            )
            return None
        parallel_config = self._vllm_config.parallel_config  # type: ignore[attr-defined]
        _report_missing(config, parallel_config)
        identity = read_identity(parallel_config, self._role)
        local_replica = local_replica_index(parallel_config)
        every_replica = settings_section(_extra_config(config)).get("data_parallel") == "all"
        if not every_replica and local_replica != 0:
            log.info(
                "Runtime plugins run in this node's replica 0, not in replica %d "
                "(extra_config.runtime_plugins.data_parallel: all runs them in each)",
                local_replica,
            )
            return None
        from lmcache_plugin_adapter.engine.launcher import RuntimePluginLauncher

        launcher = RuntimePluginLauncher.for_identity(
            _with_new_names(config), identity, plugin_logger=PLUGIN_LOGGER
        )
        launcher.launch_or_raise()
        return launcher

    def _config(self, parts: list[Any]) -> Any:
        """Return LMCache's configuration after the connector's creation."""
        for launcher in self._held:
            return launcher.config
        for part in parts:  # LMCache starts no launcher where its engine failed
            config = getattr(part._lmcache_engine, "config", None)
            if config is not None:
                return config
        utils: Any = importlib.import_module("lmcache.integration.vllm.utils")
        return utils.lmcache_get_or_create_config()

    def _fall_back(self, error: Exception) -> None:
        if not self._held:
            log.error(
                "Cannot start runtime plugins: %s; none run in this process, and LMCache started "
                "no launcher of its own here",
                error,
            )
            return
        log.error(
            "Cannot start runtime plugins: %s; LMCache's own launcher starts them, without "
            "supervision",
            error,
        )
        try:
            for held in self._held:
                lmcache_launcher.start_builtin(held)
        except Exception as reason:  # noqa: BLE001 - the engine serves on
            log.error("Cannot start LMCache's own launcher either: %s", reason)  # noqa: TRY400


def begin_takeover(vllm_config: object, role: object) -> Takeover:
    """Return the context for a connector's creation.

    It does nothing inside another one, or if LMCache creates our launcher itself.
    """
    return Takeover(vllm_config, role, nested=lmcache_chooses() or _current() is not None)


def _current() -> Takeover | None:
    """Return the creation under way in this thread of this process, if any."""
    for takeover in reversed(_under_way):
        # A forked child inherits the list, not the creation.
        if (takeover.pid, takeover.thread) == (os.getpid(), threading.get_ident()):
            return takeover
    return None


def _hold(launcher: object) -> bool:
    takeover = _current()
    return takeover is not None and takeover.hold(launcher)


def _why_nothing(config: Any) -> str | None:
    return why_engine_runs_nothing(_extra_config(config), _locations(config))


def _extra_config(config: Any) -> object:
    return getattr(config, "extra_config", None)


_LOCATIONS = ("runtime_plugin_locations", "plugin_locations")  # the second until 0.3.10


def _locations(config: Any) -> object:
    return next((found for name in _LOCATIONS if (found := getattr(config, name, None))), None)


def _report_missing(config: object, parallel_config: object) -> None:
    """Warn about each missing attribute of a newer version that plugins can start without."""
    lacks = {
        "LMCache's configuration has no 'extra_config': all settings have their defaults": not (
            hasattr(config, "extra_config")
        ),
        "vLLM's parallel_config has no 'data_parallel_rank': every replica counts as 0": not any(
            hasattr(parallel_config, name) for name in ("data_parallel_rank", "data_parallel_index")
        ),
        "vLLM's parallel_config has no 'data_parallel_rank_local': replicas count by their rank in "
        "the job": not hasattr(parallel_config, "data_parallel_rank_local"),
    }
    for text, lacking in lacks.items():
        if lacking:
            log.warning("This version is newer than the adapter: %s", text)


class _RenamedConfig:
    """A configuration of LMCache 0.3.4 to 0.3.10 under today's names."""

    def __init__(self, config: Any) -> None:
        self.runtime_plugin_locations = config.plugin_locations
        self.extra_config = getattr(config, "extra_config", None)
        self.to_json = config.to_json


def _with_new_names(config: Any) -> Any:
    return config if hasattr(config, "runtime_plugin_locations") else _RenamedConfig(config)


def _lmcache_parts(connector: Any) -> Iterator[Any]:
    """Yield the LMCache connectors that ``connector`` is or, as ``MultiConnector``, holds."""
    if hasattr(connector, "_lmcache_engine"):
        yield connector
        return
    children = getattr(connector, "sub_connectors", None)  # public from vLLM 0.30
    if not isinstance(children, (list, tuple)):
        children = getattr(connector, "_connectors", ())
    for child in children if isinstance(children, (list, tuple)) else ():
        yield from _lmcache_parts(child)


def _why_no_parts(connector: object) -> str:
    """Return the attribute whose absence in a newer vLLM hides LMCache in a connector."""
    kind = type(connector)
    if any(base.__name__ == "MultiConnector" for base in kind.__mro__):
        known = any(hasattr(connector, name) for name in ("sub_connectors", "_connectors"))
        return "" if known else f"this vLLM's {kind.__name__} has no 'sub_connectors'"
    if is_lmcache_class(kind):
        return f"this vLLM's {kind.__name__} has no '_lmcache_engine'"
    return ""


def _stop_on_shutdown(connector: Any, launcher: RuntimePluginLauncher) -> None:
    """Have the connector's ``shutdown`` stop the plugins first, without waiting for them.

    Why on the instance: vLLM's LMCache connectors have no ``shutdown`` of their own, and vLLM uses
    a connector's class as a key. The original ``shutdown`` still runs afterwards. This patch can go
    when vLLM or LMCache has a callback for a connector's shutdown.
    """
    original = getattr(connector, "shutdown", None)
    if original is None:  # vLLM 0.9
        log.warning(
            "Runtime plugins end with this process: this vLLM's %s has no 'shutdown'",
            type(connector).__name__,
        )
        return

    def shutdown(*args: object, **kwargs: object) -> object:
        try:
            launcher.stop_plugins(wait=False)
        except Exception as error:  # noqa: BLE001 - vLLM's own shutdown must run
            log.warning("Cannot stop runtime plugins: %s; they end with this process", error)
        return original(*args, **kwargs)

    try:
        connector.shutdown = shutdown
    except AttributeError as error:
        log.warning("Runtime plugins end with this process, not with its connector: %s", error)
