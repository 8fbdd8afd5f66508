# SPDX-License-Identifier: Apache-2.0
"""Find a stale distribution of this package, which hides the entry point of the current one.

Python takes the first distribution of a name on ``sys.path`` and ignores the others: what an
earlier installation or a build has left there hides the entry points of a later one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

PROJECT = "lmcache-plugin-adapter"
PACKAGE = "lmcache_plugin_adapter"


def find_stale_distribution(group: str, name: str) -> str:
    """Return what hides or breaks an entry point of this package, in words; or nothing.

    Args:
        group: The entry point's group.
        name: Its name in the group.
    """
    found = list(importlib.metadata.distributions(name=PROJECT))
    if not found:
        return ""
    first, *others = found
    value = _value(first, group, name)
    if value is None:
        current = next((one for one in others if _value(one, group, name) is not None), None)
        hidden = "" if current is None else f" and hides the one of {_place(current)}"
        return f"{_place(first)} has no such entry point{hidden}: remove it, or install again"
    module = value.partition(":")[0]
    if module.partition(".")[0] == PACKAGE and not _exists(module):
        return f"{_place(first)} is stale: its entry point names '{module}', which does not exist"
    return ""


def _value(distribution: importlib.metadata.Distribution, group: str, name: str) -> str | None:
    points = [one for one in distribution.entry_points if one.group == group and one.name == name]
    return points[0].value if points else None


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _place(distribution: Any) -> str:
    path = getattr(distribution, "_path", None)  # private; the version tells enough without it
    where = f"'{path}'" if path is not None else f"{PROJECT} of unknown place"
    return f"{where} (version {distribution.version})"
