"""The report of ``check`` for people: a table of what runs, then what is to be said."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmcache_plugin_adapter.messages.problem import quoted

from .command import LEVELS, in_words

if TYPE_CHECKING:
    from lmcache_plugin_adapter.planner.file_report import FileReport

    from .command import Report

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}

MOST_NOTES = 100
"""So many notes are listed; a directory of data may have thousands."""

_UNLIMITED = 100_000


def to_table(report: Report) -> str:
    """Return the report as stdout can show it."""
    console = make_console()
    with console.capture() as capture:
        console.print(_heading(report))
        for location in report.locations:
            running = [f for f in report.files if f.location == location and f.status == "runs"]
            if running and running[0].installed is None:
                console.print()
                console.print(_table(f"in {location}", running))
        installed = [f for f in report.files if f.installed is not None and f.status == "runs"]
        if installed:
            console.print()
            console.print(_table("installed", installed))
        lines = _lines(report)
        if lines:
            console.print()
            console.print(_grid(lines))
        console.print()
        console.print(_summary(report))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _table(title: str, files: list[FileReport]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(_visible(title), overflow="fold")
    table.add_column("runs on", overflow="fold")
    table.add_column("with the command", overflow="fold")
    for file in files:
        name = file.relative
        if file.installed is not None:
            name += f" ({file.installed.package})"
        table.add_row(_visible(name), in_words(file.runs_on), _command(file))
    return table


def _grid(lines: list[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(min_width=max(map(len, LEVELS)))
    grid.add_column(overflow="fold")
    for level, text in lines:
        grid.add_row(Text(level, STYLES[level]), Text(text))
    return grid


def make_console() -> Console:
    """Return a console for stdout.

    On a terminal, text is as wide as that; elsewhere one line stays one line,
    for grep and for logs. Colours follow rich's rules, ``NO_COLOR`` among them.
    """
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _UNLIMITED
    return Console(width=width, highlight=False, emoji=False, markup=False)


def _heading(report: Report) -> str:
    if report.server:
        return (
            f"{quoted(report.config)}: LMCache's multiprocess server\n"
            f"with {quoted(report.python)} as the server's Python"
        )
    workers = "1 worker" if report.world_size == 1 else f"{report.world_size} workers"
    text = f"{quoted(report.config)}: scheduler and {workers}"
    if report.dp_size > 1:
        running = len({identity.dp_rank for identity in report.fleet})
        which = "all run plugins" if running > 1 else "the first of each node runs plugins"
        text += f" in each of {report.dp_size} replicas; {which}"
    return f"{text}\nwith {quoted(report.python)} as the engine's Python"


def _lines(report: Report) -> list[tuple[str, str]]:
    """Return what is to be said, errors first, each with its level."""
    said: dict[str, list[str]] = {level: [] for level in LEVELS}
    for problem in report.problems:
        said[problem.level].append(problem.text)
    for file in report.files:
        for problem in file.problems:
            said[problem.level].append(f"{quoted(_near(file.path))}: {problem.text}")
    notes = said["note"]
    if len(notes) > MOST_NOTES:
        left = f"and {len(notes) - MOST_NOTES:,} more notes: --json lists them all"
        said["note"] = [*notes[:MOST_NOTES], left]
    return [(level, text) for level, texts in said.items() for text in texts]


def _summary(report: Report) -> Text:
    running = sum(file.status == "runs" for file in report.files)
    text = Text(_counted(running, "plugin"))
    for level in LEVELS:
        count = report.count(level)
        text.append(", ")
        text.append(_counted(count, level), STYLES[level] if count else "")
    return text


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _near(path: str) -> str:
    """Return a path as one would type it here."""
    here = os.getcwd()
    return os.path.relpath(path, here) if path.startswith(here + "/") else path


def _visible(text: str) -> Text:
    """Return text that fits on a line and in every encoding."""
    return Text(quoted(text)[1:-1])


def _command(file: FileReport) -> Text:
    words = [os.fsdecode(word) for word in file.command]
    return _visible(shlex.join(_near(word) if word == file.path else word for word in words))
