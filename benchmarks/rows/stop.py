# SPDX-License-Identifier: Apache-2.0
"""How long a stop takes until all plugins are seen gone."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.figures import NEVER, Sample, Samples, key
from benchmarks.hosts import EVERYBODY, OURS
from benchmarks.processes import Ends
from benchmarks.row import Row
from benchmarks.table import Line, Target, several

COUNTS = (1, 10, 100)
SECONDS = 10.0
SETTLE_SECONDS = 0.3

HOW = (
    "From the call of `stop_plugins()` (peers: from their SIGTERM) until the kernel says of the "
    "last plugin, a `sleep`, that it has ended; with this launcher, until `stop_plugins()` has "
    "returned as well, for it waits. LMCache's sends signals and waits for nothing. supervisord "
    "has the plugins in one group: it ends single programs one after another."
)


def measure(bench: Bench) -> Sample:
    """Start and stop all, one after the other."""
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
                began, returned = host.stop()
                last = ends.last(began + SECONDS)
                if last is not None and name == OURS:
                    found[key("plugins", count)] = (last - began) * 1000
                    last = max(last, returned)
                found[key(name, count)] = NEVER if last is None else (last - began) * 1000
    return found


def lines(samples: Samples) -> Sequence[Line]:
    """Return times."""
    cells = {name: several([samples.median(name, count) for count in COUNTS]) for name in EVERYBODY}
    counts = " / ".join(map(str, COUNTS))
    most = COUNTS[-1]
    return [
        Line(
            f"stop until {counts} that obey are gone, ms",
            cells,
            Target(
                "stop of 100 until all are gone, ms", "100: ≤ 40 ms", samples.median(OURS, most), 40
            ),
        ),
    ]


ROW = Row("stop", "Stop", HOW, 5, measure, lines)
