# SPDX-License-Identifier: Apache-2.0
"""The standard library's own functions, also in an engine where gevent has replaced them.

A greenlet in their place runs only while the engine's main thread waits for something.
"""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def unpatched(module: str, name: str) -> Any:
    """Return an attribute of a module of the standard library as Python has it."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None:
        return gevent.get_original(module, name)
    return getattr(import_module(module), name)
