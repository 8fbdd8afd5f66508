# SPDX-License-Identifier: Apache-2.0
"""The tables of ``check`` for people: plugins that run, then problems, errors first."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from lmcache_plugin_adapter.cli.console import captured, printable
from lmcache_plugin_adapter.contract.frozen import replaced
from lmcache_plugin_adapter.contract.identity import Role
from lmcache_plugin_adapter.messages.problem import quoted
from lmcache_plugin_adapter.messages.wording import counted
from lmcache_plugin_adapter.planner.installed_plugin import RUNNER

from .report import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from lmcache_plugin_adapter.contract.identity import ProcessIdentity
    from lmcache_plugin_adapter.planner.file_report import FileReport

    from .report import CheckReport

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}

MAX_NOTES = 100
"""Limit of the notes in the table; a directory of data may have thousands."""


def to_table(report: CheckReport) -> str:
    """Return the report as stdout can show it."""
    parts: list[RenderableType] = []
    for location in report.locations:
        running = [file for file in report.running if file.location == location]
        if running and running[0].installed is None:
            parts.append(_table(f"in {location}", running))
    installed = [file for file in report.running if file.installed is not None]
    if installed:
        parts.append(_table("installed", installed, "as the function"))
    problems = _problems(report)
    if problems:
        parts.append(_grid(problems))
    parts.append(_summary(report))
    return captured(_heading(report), *(line for part in parts for line in ("", part)))


def _table(title: str, files: list[FileReport], runs: str = "with the command") -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(Text(printable(title)), overflow="fold")
    table.add_column("runs on", overflow="fold")
    table.add_column(runs, overflow="fold")
    for file in files:
        name = file.relative
        if file.installed is not None:
            name += f" ({file.installed.package})"
        table.add_row(Text(printable(name)), describe_processes(file.runs_on), _command(file))
    return table


def _grid(lines: list[tuple[str, str]]) -> Table:
    width = max(map(len, LEVELS)) + 1
    grid = Table.grid(padding=0)  # versions of rich pad the columns of a grid differently
    grid.add_column(min_width=width)
    grid.add_column(overflow="fold")
    for level, text in lines:
        grid.add_row(Text(level, STYLES[level]), Text(text))
    return grid


def _heading(report: CheckReport) -> str:
    if report.engine.server:
        return (
            f"{quoted(report.config)}: LMCache's multiprocess server\n"
            f"with {quoted(report.python)} as the server's Python"
        )
    workers = counted(report.engine.world_size, "worker")
    text = f"{quoted(report.config)}: scheduler and {workers}"
    if report.engine.dp_size > 1:
        running = len({identity.dp_rank for identity in report.processes})
        which = "all run plugins" if running > 1 else "the first of each node runs plugins"
        text += f" in each of {report.engine.dp_size} replicas; {which}"
    return f"{text}\nwith {quoted(report.python)} as the engine's Python"


def _problems(report: CheckReport) -> list[tuple[str, str]]:
    """Return level and text of each problem, errors first."""
    texts: dict[str, list[str]] = {level: [] for level in LEVELS}
    for problem in report.problems:
        texts[problem.level].append(problem.text)
    for file in report.files:
        for problem in file.problems:
            texts[problem.level].append(f"{quoted(_relative(file.path))}: {problem.text}")
    notes = texts["note"]
    if len(notes) > MAX_NOTES:
        left = f"and {counted(len(notes) - MAX_NOTES, 'more note')}: --json lists them all"
        texts["note"] = [*notes[:MAX_NOTES], left]
    return [(level, text) for level, found in texts.items() for text in found]


def _summary(report: CheckReport) -> Text:
    text = Text(counted(len(report.running), "plugin"))
    for level in LEVELS:
        count = report.count(level)
        text.append(", ")
        text.append(counted(count, level), STYLES[level] if count else "")
    return text


def _relative(path: str) -> str:
    """Return a path below the working directory in its short form."""
    here = os.getcwd()
    return os.path.relpath(path, here) if path.startswith(here + "/") else path


def _command(file: FileReport) -> Text:
    """Return the command; of an installed plugin, the function and its arguments."""
    words = [os.fsdecode(word) for word in file.command]
    if file.installed is not None and RUNNER in words:
        # Python, the runner, the name, the function, the directory of the package.
        words = [file.installed.reference, *words[words.index(RUNNER) + 4 :]]
    shown = shlex.join(_relative(word) if word == file.path else word for word in words)
    return Text(printable(shown))


def describe_processes(identities: Iterable[ProcessIdentity]) -> str:
    """Return the processes in words: ``scheduler, workers 0-3``.

    Replicas with the same processes share one entry: ``dp 0-1: scheduler, worker 0``.
    """
    replicas: dict[int, list[ProcessIdentity]] = {}
    dp_size = 1
    for identity in identities:
        replicas.setdefault(identity.dp_rank, []).append(identity)
        dp_size = identity.dp_size
    ranks_of: dict[str, list[int]] = {}
    for rank, members in replicas.items():
        ranks_of.setdefault(_describe_replica(members), []).append(rank)
    if dp_size == 1:
        return "".join(ranks_of)
    return "; ".join(f"dp {_ranges(ranks)}: {words}" for words, ranks in ranks_of.items())


def _describe_replica(members: list[ProcessIdentity]) -> str:
    words = [replaced(one, dp_size=1).label for one in members if one.role is not Role.WORKER]
    ranks = [one.worker_id for one in members if one.role is Role.WORKER]
    if ranks:
        words.append(f"{'worker' if len(ranks) == 1 else 'workers'} {_ranges(ranks)}")
    return ", ".join(words)


def _ranges(numbers: list[int]) -> str:
    """Return ``0-3, 7`` for ``[0, 1, 2, 3, 7]``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in ranges)
