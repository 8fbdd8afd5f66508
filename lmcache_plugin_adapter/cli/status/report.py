# SPDX-License-Identifier: Apache-2.0
"""Collect for ``lmcache-plugins status`` the state of all plugins and what they use."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.supervisors.resource_usage import Usage, UsageTable, command_line
from lmcache_plugin_adapter.cli.supervisors.survey import Selector, survey

if TYPE_CHECKING:
    from lmcache_plugin_adapter.cli.supervisors.status_answer import ShownPlugin, SupervisorStatus
    from lmcache_plugin_adapter.cli.supervisors.survey import Survey

NO_SELECTION = Selector()


@dataclass
class StatusReport:
    """The state of the plugins at one moment.

    Attributes:
        survey: The answers of the supervisors.
        names: The plugin names of the command line.
        plugins: The plugins called so, or all of them, each with its supervisor.
        usage: Resource usage of the plugins, by pid of the plugin.
        supervisor_usage: Resource usage of the supervisors, by pid.
        commands: Command lines of engine processes, by pid.
        taken_at: Monotonic time.
    """

    survey: Survey
    names: tuple[str, ...]
    plugins: list[tuple[SupervisorStatus, ShownPlugin]]
    usage: dict[int, Usage] = field(default_factory=dict)
    supervisor_usage: dict[int, Usage] = field(default_factory=dict)
    commands: dict[int, str] = field(default_factory=dict)
    taken_at: float = field(default_factory=time.monotonic)

    def cpu_percent(self, plugin: ShownPlugin, before: StatusReport | None) -> float | None:
        """Return a plugin's share of one CPU since ``before``, or since the plugin's start."""
        now = self.usage.get(plugin.pid or 0)
        if now is None or plugin.uptime is None:
            return None
        seconds, spent = plugin.uptime, now.cpu_seconds
        earlier = before and before.usage.get(plugin.pid or 0)
        if before and earlier:
            seconds = self.taken_at - before.taken_at
            spent -= earlier.cpu_seconds
        return max(100 * spent / seconds, 0.0) if seconds > 0 else 0.0


def make_report(names: tuple[str, ...] = (), selector: Selector = NO_SELECTION) -> StatusReport:
    """Request the status of all supervisors and measure the processes of their plugins."""
    found = survey(selector)
    report = StatusReport(found, names, found.plugins(names))
    table = UsageTable()
    for supervisor in found.supervisors:
        if not supervisor.sees_same_pids:
            continue  # it is in a container and this process is not: its pids mean nothing here
        if usage := table.process(supervisor.supervisor_pid):
            report.supervisor_usage[supervisor.supervisor_pid] = usage
        if command := command_line(supervisor.engine_pid):
            report.commands[supervisor.engine_pid] = command
        for plugin in supervisor.plugins:
            if plugin.pid and (usage := table.tree(plugin.pid)):
                report.usage[plugin.pid] = usage
    return report
