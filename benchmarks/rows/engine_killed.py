# SPDX-License-Identifier: Apache-2.0
"""When the last plugin is gone after SIGKILL of the engine."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.figures import NEVER, Sample, Samples, key
from benchmarks.hosts import EVERYBODY, OURS
from benchmarks.processes import Ends
from benchmarks.row import Row
from benchmarks.table import Line, Target, several

COUNTS = (10, 100)
PATIENCE = 1.0
SETTLE_SECONDS = 0.3

HOW = (
    "From SIGKILL of the engine (peers: of the supervisor, nothing of them is an engine) until "
    f"the kernel says of the last plugin, a `sleep`, that it has ended. Never: not in "
    f"{PATIENCE:g} s."
)


def measure(bench: Bench) -> Sample:
    """Kill all, one after the other."""
    found = {}
    for count in COUNTS:
        for name in bench.turns(EVERYBODY):
            with bench.hosting(name) as host:
                plugins = bench.plugins(count)
                host.launch(plugins)
                _, pids = plugins.running()
                plugins.settled(pids)
                time.sleep(SETTLE_SECONDS)
                ends = Ends(pids)
                began = host.kill()
                last = ends.last(began + PATIENCE)
                found[key(name, count)] = NEVER if last is None else (last - began) * 1000
    return found


def lines(samples: Samples) -> Sequence[Line]:
    """Return times."""
    cells = {name: several([samples.median(name, count) for count in COUNTS]) for name in EVERYBODY}
    most = max(samples.median(OURS, count) for count in COUNTS)
    counts = " / ".join(map(str, COUNTS))
    return [
        Line(
            f"SIGKILL of the engine until {counts} that obey are gone, ms",
            cells,
            Target(
                "SIGKILL of the engine until the last of 10, and of 100, is gone",
                "≤ 200 ms",
                most,
                200,
            ),
        )
    ]


ROW = Row("engine-killed", "The engine is killed", HOW, 3, measure, lines)
