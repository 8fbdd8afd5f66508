# SPDX-License-Identifier: Apache-2.0
"""Lines of the table: figures beside each other, and whether the target is met."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

COLUMNS = {
    "ours": "this launcher",
    "lmcache": "LMCache's",
    "supervisord": "supervisord",
    "circus": "circus",
    "honcho": "honcho",
    "bare": "bare",
}


@dataclass(frozen=True)
class Target:
    """What a figure must reach.

    Attributes:
        what: What must reach it, said so that it stands alone.
        text: The bound, for people.
        value: What was reached.
        limit: The bound.
        at_least: Whether it is a lower bound.
    """

    what: str
    text: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None: it was not measured."""
        if math.isnan(self.value):
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        title: What is measured, with its unit.
        cells: By host, what it came to.
        target: What this launcher must reach; None: no target, for comparison.
    """

    title: str
    cells: Mapping[str, str] = field(default_factory=dict)
    target: Target | None = None


def number(value: float) -> str:
    """Return a figure with three digits that say something."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "never"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:.{digits}f}"


def several(values: Sequence[float]) -> str:
    """Return figures in one cell; a dash if there is none at all."""
    if all(math.isnan(value) for value in values):
        return "–"
    return " / ".join(map(number, values))


def verdict(target: Target | None) -> str:
    """Return what the last column says."""
    if target is None:
        return ""
    if target.met is None:
        return "not measured"
    shown = number(target.value)
    if target.value != target.limit and shown == number(target.limit):
        shown = f"{target.value:.3f}"  # or it would seem to be the limit
    return f"{'met' if target.met else '**not met**'}: {shown}"


def markdown(lines: Sequence[Line]) -> str:
    """Return the lines as a table, with the hosts that any of them has."""
    hosts = [name for name in COLUMNS if any(name in line.cells for line in lines)]
    head = ["", *(COLUMNS[name] for name in hosts), "target", "reached"]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        cells = [line.cells.get(name, "–") for name in hosts]
        text = line.target.text if line.target is not None else ""
        rows.append([line.title, *cells, text, verdict(line.target)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
