# SPDX-License-Identifier: Apache-2.0
"""The tables of ``status`` for people: one for each engine process, with a heading."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.text import Text

from lmcache_plugin_adapter.cli.console import captured, printable, rich_console
from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.messages.wording import signal_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.cli.supervisors.status_answer import PluginStatus, SupervisorStatus

    from .report import Report

    Cell = tuple[str, str]
    """Text and style."""

_TITLES: list[Cell] = [
    (title, "bold dim")
    for title in (
        *("plugin", "state", "pid", "up", "restarts"),
        *("last exit", "lines", "dropped", "CPU", "memory"),
    )
]
_RIGHT = (False, False, True, True, True, False, True, True, True, True, False)
_PACKAGE: Cell = ("package", "bold dim")
"""The title of the last column, shown if a plugin comes from a package."""

_STYLES = {
    State.RUNNING: "green",
    State.STARTING: "cyan",
    State.CLEARING: "yellow",
    State.STOPPING: "yellow",
    State.BACKING_OFF: "yellow",
    State.FAILED: "bold red",
    State.REFUSED: "bold red",
    State.STOPPED: "dim",
    State.EXITED: "dim",
}


def to_table(report: Report, before: Report | None) -> str:
    """Return the report as stdout can show it."""
    return captured(_render(report, before))


def show_live(look: Callable[[], Report], interval: float) -> None:
    """Show a new report on the terminal every ``interval`` seconds until KeyboardInterrupt."""
    before: Report | None = None
    with Live(console=rich_console(), auto_refresh=False, screen=True) as screen:
        while True:
            report = look()
            failures = [Text(failure, "yellow") for failure in report.survey.failures]
            screen.update(Group(_render(report, before), *failures), refresh=True)
            before = report
            time.sleep(interval)


def describe_state(plugin: PluginStatus) -> str:
    """Return the state of a plugin with the reason for it."""
    text = plugin.state.value
    if plugin.state is State.BACKING_OFF and plugin.next_start_in is not None:
        text += f", next start in {plugin.next_start_in:.1f} s"
    if plugin.reason:
        return f"{text}: {plugin.reason}"
    if plugin.state is not State.RUNNING and plugin.last_exit is not None:
        text += f", last exit: {last_exit(plugin)}"
    return text


def last_exit(plugin: PluginStatus) -> str:
    """Return the exit code of the last run, or its signal by name."""
    code = plugin.last_exit
    if code is None:
        return ""
    return f"code {code}" if code >= 0 else signal_name(-code)


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units."""
    if seconds is None:
        return ""
    whole = int(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // part}{smaller}"
    return f"{whole // 60}m {whole % 60}s" if whole >= 60 else f"{whole}s"


def size(count: float | None) -> str:
    """Return an amount of memory in MiB or GiB."""
    if count is None:
        return ""
    mega = count / (1 << 20)
    return f"{mega / 1024:.1f} GiB" if mega >= 1000 else f"{mega:.1f} MiB"


def _render(report: Report, before: Report | None) -> Group:
    # Lines of text, not rich's tables: those take 0.1 ms a cell.
    rows = [_cells(plugin, report, before) for _, plugin in report.plugins]
    titles = _TITLES
    if any(plugin.package for _, plugin in report.plugins):
        titles = [*_TITLES, _PACKAGE]
        for cells, (_, plugin) in zip(rows, report.plugins, strict=True):
            cells.append((" ".join(plugin.package or ()), "dim"))
    widths = [max(len(cells[i][0]) for cells in [titles, *rows]) for i in range(len(titles))]
    parts: list[Text] = []
    for one in report.survey.supervisors:
        mine = [i for i, (owner, _) in enumerate(report.plugins) if owner is one]
        if report.names and not mine:
            continue
        if parts:
            parts.append(Text())
        parts.append(_heading(one, report))
        if not mine:
            parts.append(Text("  no plugins on this process", "dim"))
            continue
        table = Text(no_wrap=True, overflow="ellipsis")
        for cells in (titles, *(rows[i] for i in mine)):
            _add_line(table, cells, widths)
        table.rstrip()
        parts.append(table)
        parts += [
            Text(f"  {plugin.title}: {plugin.reason}", _STYLES[plugin.state])
            for plugin in (report.plugins[i][1] for i in mine)
            if plugin.reason
        ]
    if not report.survey.supervisors and not report.survey.none_selected:
        reason = report.survey.why_empty
        parts.append(Text(reason[:1].upper() + reason[1:]))
    return Group(*parts)


def _add_line(table: Text, cells: list[Cell], widths: list[int]) -> None:
    for (text, style), width, right in zip(cells, widths, _RIGHT, strict=False):
        table.append("  ")
        table.append(text.rjust(width) if right else text.ljust(width), style or None)
    table.append("\n")


def _heading(one: SupervisorStatus, report: Report) -> Text:
    out = Text()
    out.append(one.identity, "bold")
    out.append(f", engine {one.engine_pid}")
    command = report.commands.get(one.engine_pid)
    if command is not None:
        words = [os.path.basename(word) or word for word in command.split(" ")]
        shown = printable(" ".join(words))
        out.append(f" ({shown if len(shown) <= 60 else shown[:59] + '…'})", "dim")
    out.append(f", supervisor {one.supervisor_pid} up {duration(one.uptime)}")
    own = report.supervisor_usage.get(one.supervisor_pid)
    if own is not None:
        out.append(f", {size(own.memory_bytes)}")
    if one.stopping:
        out.append(", stopping", "yellow")
    return out


def _cells(plugin: PluginStatus, report: Report, before: Report | None) -> list[Cell]:
    usage = report.usage.get(plugin.pid or 0)
    percent = report.cpu_percent(plugin, before)
    state = plugin.state.value
    if plugin.next_start_in is not None:
        state += f" {plugin.next_start_in:.1f} s"
    bad = plugin.last_exit not in (None, 0) and plugin.state is not State.STOPPED
    return [
        (plugin.title, ""),
        (state, _STYLES[plugin.state]),
        ("" if plugin.pid is None else str(plugin.pid), ""),
        (duration(plugin.uptime), ""),
        (str(plugin.restarts), "yellow" if plugin.restarts else ""),
        (last_exit(plugin), "yellow" if bad else ""),
        (f"{plugin.lines:,}", ""),
        (f"{plugin.lines_dropped:,}", "yellow" if plugin.lines_dropped else ""),
        ("" if percent is None else f"{percent:.1f} %", ""),
        (size(None if usage is None else usage.memory_bytes), ""),
    ]
