# SPDX-License-Identifier: Apache-2.0
"""Settings of plugins that have no effect without another one, or beside it."""

from __future__ import annotations

from lmcache_plugin_adapter.contract.variables import NOTIFY_SOCKET, WATCHDOG_PID, WATCHDOG_USEC
from lmcache_plugin_adapter.messages.describe import show

from .settings_table import SETTINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_REQUIRES = {
    "jitter": "every",
    "timeout": "every",
    "ready_timeout": "notify",
    "watchdog": "notify",
}
"""Keys that have an effect only with another key."""

_OVERWRITES = {NOTIFY_SOCKET: "notify", WATCHDOG_USEC: "watchdog", WATCHDOG_PID: "watchdog"}
"""Variables that the supervisor sets itself if a key is set, with that key."""

_DEFAULTS = {row.key: row.default for row in SETTINGS}


def contradictions(
    found: Mapping[Any, object],
    values: dict[str, Any],
    where: str,
    others: tuple[Mapping[Any, object], ...] = (),
) -> Iterator[str]:
    """Yield a message for each contradiction, and correct ``values``.

    Args:
        found: The settings, as their author wrote them.
        values: The values in force.
        where: The full key of ``found``.
        others: Settings of single plugins, which may complete general ones.
    """
    for key, base in _REQUIRES.items():
        is_set = found.get(key) and values[key] != _DEFAULTS[key]
        if is_set and not values[base] and not any(base in other for other in others):
            yield f"Setting '{where}.{key}' has no effect without '{base}'"
    for name, key in _OVERWRITES.items():
        if name in values.get("env", ()) and values["notify"] and values[key]:
            yield f"Setting '{where}.env.{name}' has no effect with '{key}'"
    every = values["every"]
    if every is None:
        return
    if values["restart"] == "always" and ("every" in found or "restart" in found):
        yield (
            f"Cannot use '{where}.every' together with 'restart: always': the plugin runs every "
            f"{every:g} s, and 'restart' has no effect"
        )
    if values["jitter"] >= every and ("every" in found or "jitter" in found):
        yield (
            f"Cannot use '{where}.jitter': found {show(found.get('jitter', values['jitter']))}, "
            f"accepted is less than 'every' ({every:g} s); 0 stays in force"
        )
        values["jitter"] = 0.0
