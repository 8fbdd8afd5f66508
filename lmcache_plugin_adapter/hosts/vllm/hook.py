# SPDX-License-Identifier: Apache-2.0
"""The entry point that vLLM runs in each of its processes (``vllm.general_plugins``).

The hook watches for new connectors and acts on LMCache's. An exception in an entry
point kills the engine, so this module raises none. Many processes create no
connector, so the hook imports nothing heavy: it patches vLLM's factory when vLLM
imports it, and imports the rest of this package for the first LMCache connector.
"""

from __future__ import annotations

import functools
import os
import sys

from lmcache_plugin_adapter.hosts import AfterImport

from . import LAUNCHERS, LOGGER, lmcache_chooses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .connector_takeover import Takeover

FACTORY_MODULE = "vllm.distributed.kv_transfer.kv_connector.factory"
FACTORY_CLASS = "KVConnectorFactory"
CREATE_METHODS = ("create_connector", "create_connector_v1")  # the second until 0.9
_MARK = "_lmcache_plugin_adapter"


def register() -> None:
    """Watch vLLM's connector factory; safe to call again, never raises.

    Exceptions of signal handlers (``SystemExit``, ``KeyboardInterrupt``) pass through.
    """
    try:
        if os.getpid() == 1:  # its exit kills all processes, the plugins of its children too
            from lmcache_plugin_adapter.engine.exit_of_pid1 import wait_at_exit

            wait_at_exit()
        if lmcache_chooses():
            return  # it creates our launcher itself
        factory = sys.modules.get(FACTORY_MODULE)
        if factory is not None:
            hook_factory(factory)
        elif not any(isinstance(finder, _FactoryFinder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _FactoryFinder())
    except Exception as error:  # noqa: BLE001 - vLLM would die of it
        _log_inactive(error)


def hook_factory(module: ModuleType) -> None:
    """Wrap the factory's create method, once.

    Why: every vLLM version creates every LMCache connector there, whether it comes from the
    registry, a module path or a ``MultiConnector``. The wrapper can go when vLLM has a hook for
    connectors.

    Raises:
        LookupError: This vLLM has no such class or method.
    """
    factory = getattr(module, FACTORY_CLASS, None)
    for name in CREATE_METHODS:
        method = vars(factory).get(name) if isinstance(factory, type) else None
        if not isinstance(method, classmethod):
            continue
        if not hasattr(method.__func__, _MARK):
            wrapper = _wrap_create(method.__func__)
            setattr(wrapper, _MARK, True)
            setattr(factory, name, classmethod(wrapper))
        return
    raise LookupError(f"{FACTORY_MODULE} has no class method {FACTORY_CLASS}.{CREATE_METHODS[0]}")


def _wrap_create(create: Callable[..., object]) -> Callable[..., object]:
    """Return ``create``, wrapped so that it starts plugins for LMCache's connectors."""

    @functools.wraps(create)
    def create_connector(cls: type, *args: object, **kwargs: object) -> object:
        takeover = _begin(cls, args, kwargs)
        if takeover is None:
            return create(cls, *args, **kwargs)
        with takeover:
            connector = create(cls, *args, **kwargs)
        takeover.finish(connector)
        return connector

    return create_connector


def _begin(factory: type, args: tuple[object, ...], kwargs: dict[str, object]) -> Takeover | None:
    """Return the takeover of an LMCache connector, or None for any other connector."""
    try:
        config = kwargs["config"] if "config" in kwargs else args[0]
        from .connector_recognition import creates_lmcache

        if not creates_lmcache(factory, getattr(config, "kv_transfer_config", None)):
            return None
        role = kwargs["role"] if "role" in kwargs else args[1]
        from .connector_takeover import begin_takeover

        return begin_takeover(config, role)
    except Exception as error:  # noqa: BLE001 - the engine must have its connector
        _log_inactive(error)
        return None


def _expect_factory() -> None:
    """Report a vLLM that creates a connector without the known factory.

    Called once LMCache's launcher is imported. This package's connector class needs no factory.
    """
    explicit = f"{__package__}.connector_takeover"
    if FACTORY_MODULE not in sys.modules and explicit not in sys.modules:
        _log_inactive(LookupError(f"this vLLM has no module {FACTORY_MODULE}"))


class _FactoryFinder(AfterImport):
    """Hook the factory when vLLM imports it.

    To import it from the entry point would cost a second in processes that create no connector
    (``vllm serve --help``, model inspection), and change the order of vLLM's own imports.
    """

    def __init__(self) -> None:
        actions = {FACTORY_MODULE: register}
        actions |= {module: _expect_factory for module, _ in LAUNCHERS}
        super().__init__(actions, _log_inactive)


def _log_inactive(error: Exception) -> None:
    """Log that LMCache's own launcher runs the plugins of this process."""
    import importlib.util
    import logging

    if importlib.util.find_spec("lmcache") is None:  # then there are no plugins
        return
    logging.getLogger(LOGGER).warning(
        "The runtime plugin adapter is off in this process: %s; LMCache's own launcher starts the "
        "plugins ('lmcache-plugins doctor' reports what this vLLM lacks)",
        error,
    )
