"""``lmcache-plugins status``: what runs where, why something does not, and what it takes."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.cli_fleet import report_problems
from lmcache_plugin_adapter.cli.console import say
from lmcache_plugin_adapter.cli.supervisors.resource_usage import Usage, UsageTable, command_line
from lmcache_plugin_adapter.cli.supervisors.survey import Selector, survey
from lmcache_plugin_adapter.contract.plugin_states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.cli.supervisors.survey import Fleet, PluginStatus, SupervisorStatus

WATCH_SECONDS = 2.0
"""Time between two looks of ``--watch``."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        names: Plugins to look at; empty: all.
        selector: Engine processes to look at.
        watch: Look again and again.
        as_json: For machines.
        probe: Nothing but whether all is well (``--check``).
    """

    names: tuple[str, ...] = ()
    selector: Selector = field(default_factory=Selector)
    watch: bool = False
    as_json: bool = False
    probe: bool = False


@dataclass
class Report:
    """What was found at one moment.

    Attributes:
        fleet: What answered.
        names: What was asked for.
        rows: The plugins asked for, with the supervisor of each.
        usage: What the plugins take, by plugin's pid.
        own_usage: What the supervisors take, by their pid.
        commands: Command lines of engine processes, by pid.
        taken_at: Monotonic time.
    """

    fleet: Fleet
    names: tuple[str, ...]
    rows: list[tuple[SupervisorStatus, PluginStatus]]
    usage: dict[int, Usage] = field(default_factory=dict)
    own_usage: dict[int, Usage] = field(default_factory=dict)
    commands: dict[int, str] = field(default_factory=dict)
    taken_at: float = 0.0

    def cpu_percent(self, plugin: PluginStatus, before: Report | None) -> float | None:
        """Return how much of one CPU a plugin takes: since ``before``, else since its start."""
        now = self.usage.get(plugin.pid or 0)
        if now is None or plugin.uptime is None:
            return None
        seconds, spent = plugin.uptime, now.cpu_seconds
        earlier = before and before.usage.get(plugin.pid or 0)
        if before and earlier:
            seconds = self.taken_at - before.taken_at
            spent -= earlier.cpu_seconds
        return max(100 * spent / seconds, 0.0) if seconds > 0 else 0.0


def status(request: Request) -> int:
    """Show what runs; return the exit status."""
    if request.probe:
        return _probe(request)
    if request.watch:
        return _watch(request)
    report = look(request)
    show, _ = _renderer(request)
    say(show(report, None))
    return conclude(report)


def look(request: Request) -> Report:
    """Ask everyone, and ``/proc``."""
    fleet = survey(request.selector)
    report = Report(fleet, request.names, fleet.named(request.names), taken_at=time.monotonic())
    table = UsageTable()
    for one in fleet.supervisors:
        if not one.sees_same_pids:
            continue  # in a container of its own, seen from outside: its pids mean nothing here
        own = table.alone(one.supervisor_pid)
        if own is not None:
            report.own_usage[one.supervisor_pid] = own
        command = command_line(one.engine_pid)
        if command is not None:
            report.commands[one.engine_pid] = command
        for plugin in one.plugins:
            taken = table.of(plugin.pid) if plugin.pid else None
            if taken is not None and plugin.pid:
                report.usage[plugin.pid] = taken
    return report


def conclude(report: Report) -> int:
    """Complain of what is wrong with the answer itself; return the exit status."""
    unknown = report.fleet.unknown(report.names)
    return report_problems(report.fleet, unknown)


def is_well(plugin: PluginStatus) -> bool:
    """Whether a plugin does, or has done, what it should."""
    if plugin.state is State.EXITED:
        return plugin.last_exit == 0
    return plugin.state is State.RUNNING


def _probe(request: Request) -> int:
    from .table import in_words

    fleet = survey(request.selector)
    bad = [
        f"{plugin.title} on {one.label}: {in_words(plugin)}"
        for one, plugin in fleet.named(request.names)
        if not is_well(plugin)
    ]
    bad += fleet.unknown(request.names) if fleet.supervisors else [fleet.nothing]
    bad += fleet.failures
    for text in bad:
        say(text)
    if not bad:
        count = len(fleet.named(request.names))
        say(f"{count} {'plugin is' if count == 1 else 'plugins are'} well")
    return 1 if bad else 0


def _watch(request: Request) -> int:
    show, live = _renderer(request)
    before: Report | None = None
    interactive = not request.as_json and sys.stdout.isatty()
    try:
        if interactive:
            live(lambda: look(request))
        while True:
            report = look(request)
            try:
                print(show(report, before), flush=True)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                return 0
            before = report
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return 130


def _renderer(
    request: Request,
) -> tuple[Callable[[Report, Report | None], str], Callable[[Callable[[], Report]], None]]:
    from . import table as cli_status_table

    if request.as_json:
        from .json_document import to_json

        indent = None if request.watch else 2
        return lambda report, before: to_json(report, before, indent), cli_status_table.live
    return cli_status_table.to_table, cli_status_table.live
