# SPDX-License-Identifier: Apache-2.0
"""Watch the limits of plugins that have some: memory and number of processes."""

from __future__ import annotations

from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.linux.procfs import ProcessTable, proportional_memory, resident_memory
from lmcache_plugin_adapter.messages.wording import count_processes, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lmcache_plugin_adapter.linux.event_loop import Timer

    from .plugin import Plugin
    from .services import Services

_SECONDS = 1.0
"""Between two looks."""


class Limits:
    """End each plugin that is over a limit. Without a plugin that has one, nothing wakes up.

    Args:
        services: The loop and the children.
        plugins: The plugins of the supervisor.
    """

    def __init__(self, services: Services, plugins: Iterable[Plugin]) -> None:
        self._services = services
        self._plugins = plugins
        self._timer: Timer | None = None

    def watch(self, plugins: Iterable[Plugin]) -> None:
        """Look in a second, and again while a plugin with a limit runs.

        Args:
            plugins: Those that have just started.
        """
        if self._timer is None and any(map(_is_limited, plugins)):
            self._timer = self._services.loop.call_later(_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        self.watch(self._plugins)
        table = ProcessTable()
        for plugin in filter(_is_limited, self._plugins):
            reaper = self._services.reaper
            pids = reaper.leftovers_of(table, plugin.pid, plugin.name)
            cause = _over_processes(plugin, pids) or _over_memory(plugin, pids)
            if cause is None:
                continue
            if plugin.state is State.RUNNING:
                plugin.fail(cause)
            elif _over_processes(plugin, pids):  # a fork bomb that SIGTERM does not end
                plugin.cut_grace_short(cause)


def _is_limited(plugin: Plugin) -> bool:
    planned = plugin.planned
    return plugin.state in (State.RUNNING, State.STOPPING) and bool(
        planned.memory_max or planned.max_processes
    )


def _over_processes(plugin: Plugin, pids: set[int]) -> str | None:
    limit = plugin.planned.max_processes
    if limit is None or len(pids) <= limit[0]:
        return None
    return f"Has {count_processes(len(pids))}, over its limit of {limit[0]} ({limit[1]})"


def _over_memory(plugin: Plugin, pids: set[int]) -> str | None:
    limit = plugin.planned.memory_max
    # Shared pages count once: reading that takes longer, so only if it can matter.
    if limit is None or sum(map(resident_memory, pids)) <= limit[0]:
        return None
    used = sum(map(proportional_memory, pids))
    if used <= limit[0]:
        return None
    processes = f" in {count_processes(len(pids))}" if len(pids) > 1 else ""
    what = f"Uses {size(used)} of memory{processes}"
    return f"{what}, over its limit of {size(limit[0])} ({limit[1]})"
