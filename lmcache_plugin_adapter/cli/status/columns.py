# SPDX-License-Identifier: Apache-2.0
"""The columns of the table of ``status``, and which of them fit on a terminal.

A new field of a plugin gets its column by one entry of :data:`COLUMNS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from rich.cells import cell_len

from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.messages.wording import signal_name, size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lmcache_plugin_adapter.cli.supervisors.resource_usage import Usage
    from lmcache_plugin_adapter.cli.supervisors.status_answer import ShownPlugin, SupervisorStatus

    Cell = tuple[str, str]
    """Text and style."""

STYLES = {
    State.FAILED: "bold red",
    State.REFUSED: "bold red",
    State.BACKING_OFF: "yellow",
    State.CLEARING: "yellow",
    State.STARTING: "cyan",
    State.STOPPING: "yellow",
    State.RUNNING: "green",
    State.WAITING: "green",
    State.EXITED: "dim",
    State.STOPPED: "dim",
}
"""The style of each state, the states that need attention first: rows are in this order."""

Shown = TypeVar("Shown")
"""The subject of a line of a table."""

GAP = "  "
"""Between two columns."""

LONGEST_NAME = 32
"""Longer names of plugins are cut where the terminal is too narrow for them."""


@dataclass(frozen=True)
class Row:
    """One plugin of one engine process.

    Attributes:
        owner: The supervisor that runs it.
        plugin: What its supervisor reports.
        usage: Resource usage of its processes, if measured.
        cpu_percent: Its share of one CPU, if measured.
        is_ambiguous: Whether another engine on this host has a process of the same identity.
    """

    owner: SupervisorStatus
    plugin: ShownPlugin
    usage: Usage | None = None
    cpu_percent: float | None = None
    is_ambiguous: bool = False

    @property
    def process(self) -> str:
        """The engine process, for people."""
        return self.owner.label if self.is_ambiguous else self.owner.identity


@dataclass(frozen=True)
class Column(Generic[Shown]):
    """A column of a table.

    Attributes:
        title: Its heading.
        importance: Where a terminal is too narrow, the column with the lowest value goes first.
        cell: Returns the cell of a line.
        is_right: Whether cells are aligned on the right.
    """

    title: str
    importance: int
    cell: Callable[[Shown], Cell]
    is_right: bool = False


def last_exit(plugin: ShownPlugin) -> str:
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
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60)):
        if whole >= length:
            return f"{whole // length}{unit} {whole % length // part}{smaller}"
    return f"{whole // 60}m {whole % 60}s" if whole >= 60 else f"{whole}s"


def until(seconds: float) -> str:
    """Return the time until a start, to a tenth of a second if it is short."""
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def _state(row: Row) -> Cell:
    text, style = row.plugin.state.value, STYLES[row.plugin.state]
    if row.plugin.state is State.RUNNING and row.plugin.ready is not None:
        text, style = ("ready", style) if row.plugin.ready else ("not ready", "yellow")
    if row.plugin.next_start_in is not None:
        text += f" {until(row.plugin.next_start_in)}"
    return text, style


def _last_exit(row: Row) -> Cell:
    is_bad = row.plugin.last_exit not in (None, 0) and row.plugin.state is not State.STOPPED
    return last_exit(row.plugin), "yellow" if is_bad else ""


def _cpu(row: Row) -> Cell:
    return "" if row.cpu_percent is None else f"{row.cpu_percent:.1f} %", ""


def _counter(count: int) -> Cell:
    return f"{count:,}", "yellow" if count else ""


COLUMNS: tuple[Column[Row], ...] = (
    Column("process", 90, lambda row: (row.process, "")),
    Column("plugin", 100, lambda row: (row.plugin.title, "")),
    Column("state", 95, _state),
    Column("pid", 30, lambda row: (str(row.plugin.pid or ""), ""), is_right=True),
    Column("up", 50, lambda row: (duration(row.plugin.uptime), ""), is_right=True),
    Column("restarts", 60, lambda row: _counter(row.plugin.restarts), is_right=True),
    Column("last exit", 25, _last_exit),
    Column("lines", 40, lambda row: (f"{row.plugin.lines:,}", ""), is_right=True),
    Column("dropped", 20, lambda row: _counter(row.plugin.lines_dropped), is_right=True),
    Column("CPU", 70, _cpu, is_right=True),
    Column(
        "memory",
        80,
        lambda row: (size(row.usage.memory_bytes) if row.usage else "", ""),
        is_right=True,
    ),
    Column("package", 10, lambda row: (" ".join(row.plugin.package or ()), "dim")),
)
"""All columns, from left to right."""


def table_lines(
    columns: Sequence[Column[Shown]], shown: Sequence[Shown], width: int | None
) -> list[list[Cell]]:
    """Return heading and lines as padded cells.

    Args:
        columns: The columns, from left to right.
        shown: What the lines show.
        width: Columns of the terminal; None: return every column, also empty ones.
    """
    table = [(column, [(column.title, "bold dim"), *map(column.cell, shown)]) for column in columns]
    if width is not None:
        table = _that_fit([one for one in table if not _is_empty(one[1])], width)
    padded = [_pad(cells, column.is_right) for column, cells in table]
    return [list(line) for line in zip(*padded, strict=True)]


def _is_empty(cells: list[Cell]) -> bool:
    return all(text in ("", "0") for text, _ in cells[1:])


def _that_fit(
    table: list[tuple[Column[Shown], list[Cell]]], width: int
) -> list[tuple[Column[Shown], list[Cell]]]:
    if _width(table) > width:
        table = [(one, _cut(cells) if one.title == "plugin" else cells) for one, cells in table]
    while _width(table) > width and len(table) > 2:
        table.remove(min(table, key=lambda one: one[0].importance))
    return table


def _width(table: list[tuple[Column[Shown], list[Cell]]]) -> int:
    return sum(_widest(cells) for _, cells in table) + len(GAP) * (len(table) - 1)


def _widest(cells: list[Cell]) -> int:
    return max(cell_len(text) for text, _ in cells)


def _cut(cells: list[Cell]) -> list[Cell]:
    return [
        (text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…", style)
        for text, style in cells
    ]


def _pad(cells: list[Cell], is_right: bool) -> list[Cell]:
    width = _widest(cells)
    gaps = [" " * (width - cell_len(text)) for text, _ in cells]
    return [
        (gap + text if is_right else text + gap, style)
        for (text, style), gap in zip(cells, gaps, strict=True)
    ]
