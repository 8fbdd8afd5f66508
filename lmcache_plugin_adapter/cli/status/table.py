# SPDX-License-Identifier: Apache-2.0
"""The output of ``status`` for people: a summary, one table, and the reasons of failures."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from rich.console import Group
from rich.live import Live
from rich.text import Text

from lmcache_plugin_adapter.cli.console import captured, rich_console
from lmcache_plugin_adapter.cli.supervisors.status_answer import with_reason
from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.messages.wording import counted

from .columns import COLUMNS, GAP, STYLES, Row, last_exit, table_lines, until
from .process_columns import PROCESS_COLUMNS, ProcessRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lmcache_plugin_adapter.cli.supervisors.status_answer import ShownPlugin, SupervisorStatus

    from .columns import Cell
    from .report import StatusReport

T = TypeVar("T")

_URGENCY = {state: place for place, state in enumerate(STYLES)}

_PROMPT_LINES = 2
"""Lines of a terminal that the shell's prompt may take."""


def to_table(report: StatusReport, before: StatusReport | None, *, wide: bool = False) -> str:
    """Return the report as stdout can show it.

    Args:
        report: The state of the plugins.
        before: The previous report, for the use of CPU since then.
        wide: Show every column, every row and the engine processes.
    """
    height = None
    if not wide and sys.stdout.isatty():
        height = shutil.get_terminal_size().lines - _PROMPT_LINES
    return captured(_render(report, before, wide=wide, height=height), is_unlimited=wide)


def show_live(look: Callable[[], StatusReport], interval: float, *, wide: bool = False) -> None:
    """Show a new report on the terminal every ``interval`` seconds until KeyboardInterrupt."""
    before: StatusReport | None = None
    console = rich_console()
    with Live(console=console, auto_refresh=False, screen=True) as screen:
        while True:
            report = look()
            failures = [Text(failure, "yellow") for failure in report.survey.failures]
            height = console.height - len(failures)
            shown = _render(report, before, wide=wide, height=height)
            screen.update(Group(shown, *failures), refresh=True)
            before = report
            time.sleep(interval)


def describe_state(plugin: ShownPlugin) -> str:
    """Return the state of a plugin with the reason for it."""
    text = plugin.state.value
    if plugin.next_start_in is not None:
        text += f", next start in {until(plugin.next_start_in)}"
    if plugin.state is State.RUNNING and plugin.ready is False:
        text += ", not ready"
        return f"{text}: {plugin.status_text}" if plugin.status_text else text
    if plugin.reason:
        return with_reason(text, plugin.reason)
    if plugin.state is not State.RUNNING and plugin.last_exit is not None:
        text += f", last exit: {last_exit(plugin)}"
    return text


def _render(
    report: StatusReport, before: StatusReport | None, *, wide: bool, height: int | None
) -> Group:
    survey = report.survey
    if not survey.supervisors:
        if survey.none_selected:
            return Group()
        return Group(Text(survey.why_empty[:1].upper() + survey.why_empty[1:]))
    rows = _rows(report, before)
    if report.names and not rows:
        return Group()
    width = rich_console().width
    lines = [_summary(rows)]
    notes = _notes(rows, survey.supervisors, width, all_shown=not report.names)
    shown_rows, shown_notes = rows, notes
    if height is not None:
        room = height - 2  # beside the summary and the heading
        for_notes = min(len(notes), max(room // 2, room - len(rows)))
        shown_rows, shown_notes = _fit(rows, room - for_notes), _fit(notes, for_notes)
    if rows:
        # Lines of text, not rich's tables: those take 0.1 ms a cell.
        lines += map(_line, table_lines(COLUMNS, shown_rows, None if wide else width))
    if left := rows[len(shown_rows) :]:
        states = ", ".join(f"{count} {state.value}" for state, count in _count_states(left))
        lines.append(_one_line(f"+{counted(len(left), 'row')} ({states})", "dim"))
    lines += shown_notes
    if hidden := len(notes) - len(shown_notes):
        lines.append(_one_line(f"+{counted(hidden, 'line')} (--wide shows all)", "dim"))
    if wide:
        processes = [ProcessRow(one, report) for one in survey.supervisors]
        lines += [Text(), *map(_line, table_lines(PROCESS_COLUMNS, processes, None))]
    return Group(*lines)


def _rows(report: StatusReport, before: StatusReport | None) -> list[Row]:
    """Return the rows, those that need attention first, else by process and path."""
    identities = Counter(one.identity for one in report.survey.supervisors)
    rows = [
        Row(
            owner,
            plugin,
            report.usage.get(plugin.pid or 0),
            report.cpu_percent(plugin, before),
            is_ambiguous=identities[owner.identity] > 1,
        )
        for owner, plugin in report.plugins
    ]
    return sorted(rows, key=lambda row: _URGENCY[row.plugin.state])


def _summary(rows: list[Row]) -> Text:
    """Return such as ``24 plugins, 1 failed, 23 running``."""
    out = _one_line("")
    out.append(counted(len(rows), "plugin"), "bold")
    for state, count in _count_states(rows):
        out.append(", ")
        out.append(f"{count} {state.value}", STYLES[state])
    return out


def _count_states(rows: list[Row]) -> list[tuple[State, int]]:
    counts = Counter(row.plugin.state for row in rows)
    return [(state, counts[state]) for state in STYLES if counts[state]]


def _notes(
    rows: Sequence[Row], supervisors: Sequence[SupervisorStatus], width: int, *, all_shown: bool
) -> list[Text]:
    """Return why plugins do not run and what they report, and which processes have no plugin."""
    reasons: dict[tuple[str, str, State], list[str]] = {}
    for row in rows:
        plugin = row.plugin
        for text in filter(None, (plugin.reason, plugin.status_text)):
            key = plugin.title, text, plugin.state
            reasons.setdefault(key, []).append(row.process)
    notes = [
        Text(line, STYLES[state])
        for (title, reason, state), processes in reasons.items()
        for line in _wrap(f"{title} ({_grouped(processes)}): {reason}", width)
    ]
    idle = [one.identity for one in supervisors if not one.plugins]
    if idle and all_shown:
        notes += [Text(line, "dim") for line in _wrap(f"no plugins: {_grouped(idle)}", width)]
    return notes


def _grouped(processes: Sequence[str]) -> str:
    """Return ``worker 0``, ``worker 0, worker 1`` or ``worker 0 and 7 more``."""
    if len(processes) > 3:
        return f"{processes[0]} and {len(processes) - 1} more"
    return ", ".join(processes)


def _wrap(text: str, width: int) -> list[str]:
    if width >= len(text):
        return [text]
    return textwrap.wrap(
        text,
        width,
        subsequent_indent="    ",
        break_on_hyphens=False,
    )


def _fit(lines: list[T], room: int) -> list[T]:
    """Return the lines that ``room`` lines hold, beside one that counts the rest."""
    return lines if len(lines) <= room else lines[: max(room - 1, 0)]


def _one_line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _line(cells: list[Cell]) -> Text:
    line = _one_line("")
    for i, (text, style) in enumerate(cells):
        line.append(GAP if i else "")
        line.append(text, style or None)
    line.rstrip()
    return line
