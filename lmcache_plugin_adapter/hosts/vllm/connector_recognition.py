# SPDX-License-Identifier: Apache-2.0
"""Recognise LMCache's in-process connector, by its name or by its class.

Imported only when a connector is about to be created.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def creates_lmcache(factory: object, kv_transfer_config: object) -> bool:
    """Return whether vLLM will create LMCache's in-process connector, or a connector that holds it.

    The multiprocess connector does not count: its LMCache runs in another process.

    Args:
        factory: vLLM's connector factory, a class.
        kv_transfer_config: vLLM's ``KVTransferConfig``, or a mapping with the same keys, as
            for the children of a ``MultiConnector``.
    """
    name = _value(kv_transfer_config, "kv_connector")
    module_path = _value(kv_transfer_config, "kv_connector_module_path")
    if _names_lmcache(f"{name} {module_path}"):
        return True  # vLLM and LMCache import it later
    children = _value(_value(kv_transfer_config, "kv_connector_extra_config"), "connectors")
    if isinstance(children, (list, tuple)) and any(
        creates_lmcache(factory, child) for child in children
    ):
        return True
    return is_lmcache_class(_class(factory, name, module_path))


def is_lmcache_class(found: type) -> bool:
    """Return whether a class is LMCache's in-process connector, or derived from it."""
    bases = found.__mro__
    return _names_lmcache(" ".join(f"{base.__module__} {base.__qualname__}" for base in bases))


def _names_lmcache(words: str) -> bool:
    words = words.lower().replace("_", "")
    return "lmcache" in words and "lmcachemp" not in words


def _class(factory: Any, name: object, module_path: object) -> type:
    """Return the class that vLLM imports next, by the same loader."""
    import importlib

    try:
        if isinstance(module_path, str) and module_path:
            found = getattr(importlib.import_module(module_path), str(name))
        else:
            found = factory._registry[name]()
    except Exception:  # noqa: BLE001 - vLLM imports it again, and reports its error
        return object
    return found if isinstance(found, type) else object


def _value(source: object, key: str) -> object:
    return source.get(key) if isinstance(source, dict) else getattr(source, key, None)
