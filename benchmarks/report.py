# SPDX-License-Identifier: Apache-2.0
"""The page: one table for each row, written between marks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path

from .results import Results
from .row import Row
from .table import Line, markdown, verdict

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def page(rows: Sequence[Row], results: Results) -> str:
    """Return all tables as Markdown."""
    measured = [row for row in rows if row.name in results]
    if not measured:
        return "Nothing was measured yet."
    lines = {row.name: row.lines(results.samples(row.name)) for row in measured}
    targets = [line.target for part in lines.values() for line in part if line.target is not None]
    met = sum(target.met is True for target in targets)
    parts = []
    machines = sorted({results.about(row.name)["machine"] for row in measured})
    parts.append("\n".join(f"Measured on: {machine}." for machine in machines))
    parts.append(f"**{met} of {len(targets)} targets are met.**")
    parts.append(_summary(measured, lines))
    missing = [row.title for row in rows if row.name not in results]
    if missing:
        parts.append(f"Not measured: {'; '.join(missing)}.")
    parts += [_section(row, lines[row.name], results) for row in measured]
    return "\n\n".join(parts)


def _summary(rows: Sequence[Row], lines: Mapping[str, Sequence[Line]]) -> str:
    """Return all targets in one table."""
    cells = [["", "target", "reached"], ["---"] * 3]
    for row in rows:
        for line in lines[row.name]:
            if line.target is not None:
                target = line.target
                cells.append([target.what, target.text, verdict(target)])
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def _section(row: Row, lines: Sequence[Line], results: Results) -> str:
    about = results.about(row.name)
    when = dt.datetime.fromisoformat(about["measured"])
    repeats = len(about["repeats"])
    note = (
        f"{when:%-d %B %Y, %H:%M} UTC, commit {about['commit']}, `{about['command']}`; "
        f"{repeats} repeat{'s' * (repeats != 1)}, {about['seconds']:.0f} s, "
        f"load {about['load']:.1f}."
    )
    return f"### {row.title}\n\n{row.how}\n\n{markdown(lines)}\n\n{note}"


def write_between_marks(path: Path, text: str) -> None:
    """Replace what is between the marks of a page.

    Raises:
        ValueError: The page lacks a mark.
    """
    old = path.read_text()
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"'{path}' lacks the marks '{BEGIN}' and '{END}'")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
