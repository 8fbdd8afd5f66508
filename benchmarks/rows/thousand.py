# SPDX-License-Identifier: Apache-2.0
"""Whether launch, stop and memory stay linear up to a thousand plugins in one engine."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.figures import NEVER, Sample, Samples, key
from benchmarks.hosts import LAUNCHERS, OURS
from benchmarks.processes import Ends, memory_kb
from benchmarks.row import Row
from benchmarks.table import Line, Target, number, several

COUNTS = (100, 250, 500, 1000)
LIMIT = 1.5
SECONDS = 60.0
FIGURES = {
    "running": "launch to running",
    "stop": "stop until all are gone",
    "memory": "memory (PSS of supervisor)",
}

HOW = (
    "One engine with 100, 250, 500 and 1,000 plugins: launch until the last runs, stop until the "
    "last is gone and `stop_plugins()` has returned, PSS of the supervisor between the two. "
    "Linear: what each plugin takes from the 500th to the 1,000th is at most "
    f"{LIMIT} × what it takes from the 100th to the 500th. "
    "LMCache's launcher has no process of its own, so no memory is shown for it."
)


def measure(bench: Bench) -> Sample:
    """Launch and stop ever more."""
    found = {}
    for count in bench.turns(COUNTS):
        for name in bench.turns(LAUNCHERS):
            with bench.hosting(name) as host:
                plugins = bench.plugins(count)
                began = host.launch(plugins)
                now, pids = plugins.running()
                found[key(name, "running", count)] = (now - began) * 1000
                plugins.settled(pids)
                time.sleep(0.3)
                others = host.overhead(pids)
                if others:
                    found[key(name, "memory", count)] = sum(map(memory_kb, others)) / 1000
                ends = Ends(pids)
                began, returned = host.stop()
                last = ends.last(began + SECONDS)
                took = NEVER if last is None else (max(last, returned) - began) * 1000
                found[key(name, "stop", count)] = took
    return found


def lines(samples: Samples) -> Sequence[Line]:
    """Return figures by count, and how they bend."""
    found = []
    counts = " / ".join(f"{count:,}" for count in COUNTS)
    for figure, title in FIGURES.items():
        unit = "MB" if figure == "memory" else "ms"
        cells = {
            name: several([samples.median(name, figure, count) for count in COUNTS])
            for name in LAUNCHERS
        }
        bend = bend_of([samples.median(OURS, figure, count) for count in COUNTS])
        found.append(
            Line(
                f"{title}, {counts} plugins, {unit}",
                cells,
                Target(
                    f"1,000 plugins: {title}, slope",
                    f"linear: slope ≤ {number(LIMIT)} ×",
                    bend,
                    LIMIT,
                ),
            )
        )
    return found


def bend_of(values: Sequence[float]) -> float:
    """Return by how much the last stretch is steeper than the one before.

    Args:
        values: At ``COUNTS``.
    """
    low, _, middle, high = values
    first = (middle - low) / (COUNTS[2] - COUNTS[0])
    last = (high - middle) / (COUNTS[3] - COUNTS[2])
    return last / first if first > 0 else float("nan")


ROW = Row("thousand", "A thousand plugins in one engine", HOW, 3, measure, lines)
