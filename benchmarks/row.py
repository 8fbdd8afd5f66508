# SPDX-License-Identifier: Apache-2.0
"""A row of the table: how one repeat of it is measured and what all of them come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .bench import Bench
from .figures import Sample, Samples
from .table import Line


@dataclass(frozen=True)
class Row:
    """A row.

    Attributes:
        name: For the command line.
        title: For people.
        how: How it is measured; a paragraph.
        repeats: How often, unless the command line says.
        measure: Measures once: all hosts, one after the other.
        lines: Turns all repeats into lines of the table.
    """

    name: str
    title: str
    how: str
    repeats: int
    measure: Callable[[Bench], Sample]
    lines: Callable[[Samples], Sequence[Line]]


class SkipError(Exception):
    """A row cannot be measured here; the text says why."""
