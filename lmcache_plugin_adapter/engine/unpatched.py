# SPDX-License-Identifier: Apache-2.0
"""The standard library's own functions, also in an engine where gevent has replaced them.

A greenlet in their place runs only while the engine's main thread waits for something.
"""

from __future__ import annotations

import functools
import importlib.util
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


def unpatched(module: str, name: str) -> Any:
    """Return an attribute of a loaded module of the standard library as Python has it."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is None:
        return getattr(sys.modules[module], name)
    if module == "subprocess":  # its class cannot do without what gevent removes beside it
        return getattr(_fresh_copy(module), name)
    return gevent.get_original(module, name)


@functools.cache
def _fresh_copy(module: str) -> ModuleType:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.loader is None:
        return sys.modules[module]
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy
