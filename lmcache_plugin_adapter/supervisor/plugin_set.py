# SPDX-License-Identifier: Apache-2.0
"""The plugins that a supervisor runs: taken from plans, and updated by later plans."""

from __future__ import annotations

import os
from functools import partial

from lmcache_plugin_adapter.contract.log_records import ERROR, INFO, WARNING
from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.supervisor.processes.autogroups import Autogroups

from .limits import Limits
from .operator_stops import OperatorStops
from .plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Iterable, Iterator

    from lmcache_plugin_adapter.contract.planned_plugin import (
        PlannedMetrics,
        PlannedPlugin,
        SupervisorPlan,
    )
    from lmcache_plugin_adapter.supervisor.metrics.multiprocess_files import Metrics
    from lmcache_plugin_adapter.supervisor.metrics.text_file import TextFile

    from .services import Services


class PluginSet:
    """All plugins by name, and what a plan sets for all: environment, metrics, limits, the relay.

    Args:
        services: What the plugins share.
        connection: The connection to the engine, for ``log: logging``.
    """

    def __init__(self, services: Services, connection: _socket.socket) -> None:
        self._services = services
        self._connection = connection
        self._plugins: dict[str, Plugin] = {}
        self._successors: dict[Plugin, PlannedPlugin | None] = {}
        self._metrics: Metrics | TextFile | None = None
        first_processes = services.reaper.first_processes
        self._autogroups = Autogroups(services.loop, services.events, first_processes)
        services.loop.on_activity = self._autogroups.awake
        self._limits = Limits(services, self)
        self.stops = OperatorStops(lambda text: services.events.log(WARNING, text))
        """The plugins that an operator has stopped."""
        self.on_change: Callable[[Plugin], None] = lambda _plugin: None
        """Called when a plugin's state has changed."""
        self.on_add: Callable[[Plugin], None] = lambda _plugin: None
        """Called with each plugin that is not the successor of another one."""

    def __iter__(self) -> Iterator[Plugin]:
        return iter(list(self._plugins.values()))

    def __len__(self) -> int:
        return len(self._plugins)

    def get(self, name: str) -> Plugin | None:
        """Return the plugin with a name: its own, its file name, or its path."""
        found = self._plugins.get(name)
        if found is not None:
            return found
        hits = [plugin for plugin in self if name in plugin.planned.names]
        return hits[0] if len(hits) == 1 else None

    @property
    def names(self) -> list[str]:
        """The names of all plugins."""
        return list(self._plugins)

    @property
    def stopping(self) -> bool:
        """Whether the supervisor stops: it then starts nothing."""
        return self._services.stopping

    @property
    def longest_grace(self) -> float:
        """The longest grace period of any plugin, in seconds."""
        return max((plugin.planned.stop_grace for plugin in self), default=0.0)

    def adopt(self, plan: SupervisorPlan) -> dict[str, list[str]]:
        """Add the plugins of ``plan`` that are not known yet, and start them.

        Returns:
            As :meth:`reload` does.
        """
        self._prepare(plan)
        known = {plugin.planned.key: plugin.name for plugin in self}
        added = self._add(planned for planned in plan.plugins if planned.key not in known)
        if plan.metrics is not None and self._metrics is None:
            self._start_metrics(plan.metrics)
        started = [plugin.name for plugin in added]
        unchanged = list(known.values())
        return {"started": started, "restarted": [], "stopped": [], "unchanged": unchanged}

    def reload(self, plan: SupervisorPlan) -> dict[str, list[str]]:
        """Bring the plugins in line with ``plan``; unchanged plugins continue.

        Returns:
            The names of the plugins that were ``started``, ``restarted``,
            ``stopped`` and left ``unchanged``.
        """
        self._prepare(plan)
        by_path = {plugin.planned.path: plugin for plugin in self}
        done: dict[str, list[str]] = {
            key: [] for key in ("started", "restarted", "stopped", "unchanged")
        }
        new = []
        for planned in plan.plugins:
            plugin = by_path.pop(planned.path, None)
            if plugin is None:
                new.append(planned)
            elif planned != plugin.planned or plugin.state is State.FAILED:
                stays = planned.path in self.stops and plugin.state.settled
                done["unchanged" if stays else "restarted"].append(plugin.name)
                self._replace(plugin, planned)
            else:
                done["unchanged"].append(plugin.name)
                if plugin in self._successors:  # it is again as it was before it was replaced
                    del self._successors[plugin]
                    plugin.replaced = False
                    self._start([plugin])
        for path, plugin in by_path.items():
            if _is_below(path, plan.skipped):
                done["unchanged"].append(plugin.name)
            else:
                done["stopped"].append(plugin.name)
                self._replace(plugin, None)
        done["started"] = [plugin.name for plugin in self._add(new)]
        return done

    def close(self) -> None:
        """Log what is still to be logged, and remove the metrics."""
        for plugin in self:
            self._services.loop.attempt(plugin.flush)
        if self._metrics is not None:
            self._metrics.close()

    # --- inside -------------------------------------------------------------

    def _changed(self, plugin: Plugin) -> None:
        if plugin.state.settled:
            self._services.loop.call_soon(partial(self._settled, plugin))
        elif plugin.state is State.RUNNING:
            self._autogroups.started()
            self._limits.watch([plugin])
        self.on_change(plugin)
        if self._metrics is not None:  # an error there is not the plugin's
            self._services.loop.attempt(partial(self._metrics.changed, plugin))

    def _settled(self, plugin: Plugin) -> None:
        """Start the successor of a plugin that has stopped, if it has one."""
        if plugin not in self._successors:
            return
        planned = self._successors.pop(plugin)
        plugin.flush()
        if self.stopping:
            return
        if planned is None:
            del self._plugins[plugin.name]
        else:
            try:
                successor = self._add_one(planned, plugin.name)
            except Exception:
                plugin.replaced = False  # it is not lost: it runs on as it was
                self._start([plugin])
                raise
            successor.output.inherit(plugin.output)
            self._start([successor])
        plugin.output.close()

    def _prepare(self, plan: SupervisorPlan) -> None:
        events = self._services.events
        if events.relay is None and (plan.relay or any(p.relay for p in plan.plugins)):
            self._start_relay()
        events.route = (events.relay if plan.relay else None) or events.stderr
        changes = plan.environment
        kept = {name: value for name, value in os.environb.items() if name not in changes}
        kept.update((name, value) for name, value in changes.items() if value is not None)
        self._services.environment = kept

    def _start_relay(self) -> None:
        # Imported only with the setting, as it takes memory.
        from lmcache_plugin_adapter.supervisor.output.logging_relay import LoggingRelay

        events = self._services.events
        try:
            events.relay = LoggingRelay(self._connection, events.files, events.stderr)
        except OSError as error:
            events.log(WARNING, f"Output goes to stderr, not to logging: {error}")

    def _start_metrics(self, plan: PlannedMetrics) -> None:
        services = self._services
        owner = f"{services.reaper.run_id.decode()}.{services.file_label}"
        warn = partial(services.events.log, WARNING)
        try:  # imported only with the setting, as it takes memory
            if plan.module is None:
                from lmcache_plugin_adapter.supervisor.metrics.text_file import TextFile

                self._metrics = TextFile(services.loop, self, plan, owner, warn)
            else:
                from lmcache_plugin_adapter.supervisor.metrics.multiprocess_files import Metrics

                self._metrics = Metrics(services.loop, self, plan, plan.module, owner)
        except (OSError, ImportError, AttributeError, ValueError) as error:
            warn(f"No metrics of plugins: {error}")

    def _add(self, plan: Iterable[PlannedPlugin]) -> list[Plugin]:
        """Add new plugins, then start them."""
        added: list[Plugin] = []

        def add(planned: PlannedPlugin) -> None:
            added.append(self._add_one(planned, self._free_name(planned)))
            self.on_add(added[-1])

        for planned in plan:  # an error with one of them must not lose the others
            self._services.loop.attempt(partial(add, planned))
        self._start(added)
        return added

    def _free_name(self, planned: PlannedPlugin) -> str:
        free = (name for name in planned.names if name not in self._plugins)
        return next(free, f"{planned.names[-1]} ({len(self._plugins)})")

    def _add_one(self, planned: PlannedPlugin, name: str) -> Plugin:
        plugin = Plugin(self._services, name, planned, self._changed)
        self._plugins[name] = plugin
        self._services.plugin_count = len(self._plugins)
        if planned.refused is not None:
            self._services.events.log(ERROR, f"Refused: {planned.refused}", name)
        return plugin

    def _start(self, plugins: list[Plugin]) -> None:
        for plugin in plugins:
            if plugin.planned.path in self.stops:
                self._services.loop.attempt(plugin.stop)
                text = "Not started: it was stopped by request, and stays so until it is started"
                self._services.events.log(INFO, text, plugin.name)
            elif plugin.state is not State.REFUSED:
                self._services.loop.attempt(plugin.start)

    def _replace(self, plugin: Plugin, planned: PlannedPlugin | None) -> None:
        """Stop ``plugin``; start ``planned`` in its place once nothing is left of it."""
        self._successors[plugin] = planned
        plugin.replaced = True
        attempt = self._services.loop.attempt  # an error with one of them concerns no other
        attempt(plugin.stop)
        if plugin.state.settled:
            attempt(partial(self._settled, plugin))


def _is_below(path: str, locations: tuple[str, ...]) -> bool:
    return any(path == location or path.startswith(f"{location}/") for location in locations)
