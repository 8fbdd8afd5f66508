"""The plugins that a supervisor keeps: taken from plans, and brought in line with later ones."""

from __future__ import annotations

import os
from functools import partial

from lmcache_plugin_adapter.contract.log_records import ERROR, WARNING
from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.supervisor.output.plugin_output import OWN_NAME

from .plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from .metrics import Metrics
    from .services import Shared

    Entry = Mapping[str, Any]


class Catalog:
    """All plugins by name.

    Args:
        shared: What they share.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._plugins: dict[str, Plugin] = {}
        self._successors: dict[Plugin, Entry | None] = {}
        self._metrics: Metrics | None = None

    def __iter__(self) -> Iterator[Plugin]:
        return iter(list(self._plugins.values()))

    def __len__(self) -> int:
        return len(self._plugins)

    def get(self, name: str) -> Plugin | None:
        """Return the plugin of a name: its own, its file's name, or its path."""
        found = self._plugins.get(name)
        if found is not None:
            return found
        hits = [plugin for plugin in self if name in plugin.entry["names"]]
        return hits[0] if len(hits) == 1 else None

    @property
    def names(self) -> list[str]:
        """The names of all plugins."""
        return list(self._plugins)

    @property
    def ending(self) -> bool:
        """Whether the supervisor stops: then nothing is started any more."""
        return self._shared.ending

    @property
    def longest_grace(self) -> float:
        """The longest grace period of any plugin, in seconds."""
        return max((plugin.entry["stop_grace"] for plugin in self), default=0.0)

    def adopt(self, plan: Mapping[str, Any]) -> None:
        """Add the plugins of ``plan`` that are not known yet, and start them."""
        self._prepare(plan)
        known = {plugin.entry["key"] for plugin in self}
        self._start([self._add(e) for e in plan["plugins"] if e["key"] not in known])
        if plan["metrics"] is not None and self._metrics is None:
            self._start_metrics(**plan["metrics"])

    def reload(self, plan: Mapping[str, Any]) -> dict[str, list[str]]:
        """Bring the plugins in line with ``plan``; only what differs is touched.

        Returns:
            The names of the plugins that were ``started``, ``restarted``,
            ``stopped`` and left ``unchanged``.
        """
        self._prepare(plan)
        by_path = {plugin.entry["path"]: plugin for plugin in self}
        done: dict[str, list[str]] = {
            key: [] for key in ("started", "restarted", "stopped", "unchanged")
        }
        new = []
        for entry in plan["plugins"]:
            plugin = by_path.pop(entry["path"], None)
            if plugin is None:
                new.append(entry)
            elif entry != plugin.entry or plugin.state is State.FAILED:
                done["restarted"].append(plugin.name)
                self._replace(plugin, entry)
            else:
                done["unchanged"].append(plugin.name)
                if plugin in self._successors:  # it is as it was before it began to end
                    del self._successors[plugin]
                    plugin.replaced = False
                    plugin.start()
        for path, plugin in by_path.items():
            if _below(path, plan["skipped"]):
                done["unchanged"].append(plugin.name)
            else:
                done["stopped"].append(plugin.name)
                self._replace(plugin, None)
        added = [self._add(entry) for entry in new]
        self._start(added)
        done["started"] = [plugin.name for plugin in added]
        return done

    def settled(self, plugin: Plugin) -> None:
        """Take note that nothing runs of ``plugin``: its successor may start now."""
        if plugin not in self._successors:
            return
        entry = self._successors.pop(plugin)
        plugin.flush()
        if self.ending:
            return
        del self._plugins[plugin.name]
        if entry is not None:
            successor = self._add(entry, plugin.name)
            successor.output.inherit(plugin.output)
            self._start([successor])
        plugin.output.close()

    def changed(self, plugin: Plugin) -> None:
        """Take note that a plugin has changed its state."""
        if self._metrics is not None:  # whose trouble is not the plugin's
            self._shared.loop.attempt(partial(self._metrics.changed, plugin))

    def close(self) -> None:
        """Log what is still to be logged, and leave nothing behind."""
        for plugin in self:
            self._shared.loop.attempt(plugin.flush)
        if self._metrics is not None:
            self._metrics.close()

    # --- inside -------------------------------------------------------------

    def _prepare(self, plan: Mapping[str, Any]) -> None:
        log = self._shared.log
        if log.relay is None and (plan["relay"] or any(e["relay"] for e in plan["plugins"])):
            self._start_relay()
        log.way = (log.relay if plan["relay"] else None) or log.stderr
        differs: dict[bytes, bytes | None] = plan["environment"]
        kept = {name: value for name, value in os.environb.items() if name not in differs}
        kept.update((name, value) for name, value in differs.items() if value is not None)
        self._shared.environment = kept

    def _start_relay(self) -> None:
        from lmcache_plugin_adapter.supervisor.output.logging_relay import (
            Relay,  # only who wants it pays for it
        )

        shared = self._shared
        try:
            shared.log.relay = Relay(shared.link, shared.files, shared.log.stderr)
        except OSError as error:
            text = f"Output goes to stderr, not to logging: {error}"
            shared.log.say(WARNING, OWN_NAME, text)

    def _start_metrics(self, directory: str, module: str, labels: dict[str, str]) -> None:
        from .metrics import Metrics  # only who wants them pays for it

        shared = self._shared
        owner = f"{shared.run_id.decode()}.{shared.label}"
        try:
            self._metrics = Metrics(shared.loop, self, directory, module, owner, labels)
        except (OSError, ImportError, AttributeError, ValueError) as error:
            shared.log.say(WARNING, OWN_NAME, f"No metrics of plugins: {error}")

    def _add(self, entry: Entry, name: str | None = None) -> Plugin:
        if name is None:
            free = (name for name in entry["names"] if name not in self._plugins)
            name = next(free, f"{entry['names'][-1]} ({len(self._plugins)})")
        plugin = Plugin(self._shared, name, entry)
        self._plugins[name] = plugin
        if plugin.refused:
            self._shared.log.say(ERROR, name, f"Refused: {plugin.refused}")
        return plugin

    def _start(self, plugins: Sequence[Plugin]) -> None:
        for plugin in plugins:
            if plugin.state is State.STARTING:
                self._shared.loop.attempt(plugin.start)

    def _replace(self, plugin: Plugin, entry: Entry | None) -> None:
        """End ``plugin`` and let ``entry`` follow it, once nothing is left of it."""
        self._successors[plugin] = entry
        plugin.replaced = True
        plugin.stop()
        if plugin.state.settled:
            self.settled(plugin)


def _below(path: str, locations: Sequence[str]) -> bool:
    return any(path == location or path.startswith(f"{location}/") for location in locations)
