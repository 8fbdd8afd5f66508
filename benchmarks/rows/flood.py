# SPDX-License-Identifier: Apache-2.0
"""What a plugin that floods costs under the default rate limit."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.figures import Sample, Samples, key
from benchmarks.hosts import LAUNCHERS, OURS
from benchmarks.processes import cpu_seconds
from benchmarks.row import Row
from benchmarks.table import Line, Target, several

BURST_SECONDS = 1.5
SECONDS = 4.0
PYTHON = "say_so()\nline = 'x' * 99\nwhile True:\n    print(line)\n"
YES = "exec yes\n"

HOW = (
    "Default settings, thus the default rate limit. A plugin prints without a pause: a Python "
    "program lines of 100 bytes, or `yes`. CPU time over "
    f"{SECONDS:g} s, after the {BURST_SECONDS} s in which the burst is let through: "
    "of the supervisor with this launcher, of the engine with LMCache's."
)


def measure(bench: Bench) -> Sample:
    """Flood both launchers with both plugins."""
    found = {}
    for flood in ("python", "yes"):
        for name in bench.turns(LAUNCHERS):
            with bench.hosting(name) as host:
                made = (
                    bench.plugins(1, source=PYTHON) if flood == "python" else bench.plugins(1, YES)
                )
                host.launch(made)
                _, pids = made.running()
                time.sleep(BURST_SECONDS)
                who = host.overhead(pids)
                if host.process is not None:
                    who.append(host.process.pid)
                before = sum(map(cpu_seconds, who)), sum(map(cpu_seconds, pids))
                began = time.monotonic()
                time.sleep(SECONDS)
                after = sum(map(cpu_seconds, who)), sum(map(cpu_seconds, pids))
                wall = time.monotonic() - began
                cost, burnt = after[0] - before[0], after[1] - before[1]
                found[key(name, flood, "of a core")] = cost / wall * 100
                found[key(name, flood, "of the plugin")] = cost / burnt * 100 if burnt else 0.0
                found[key(name, flood, "plugin")] = burnt / wall * 100
    return found


def lines(samples: Samples) -> Sequence[Line]:
    """Return shares."""

    def cells(*parts: str) -> dict[str, str]:
        return {name: several([samples.median(name, *parts)]) for name in LAUNCHERS}

    return [
        Line(
            "Python plugin: CPU in % of what the plugin burns",
            cells("python", "of the plugin"),
            Target(
                "flooding Python plugin: CPU, of what it burns",
                "≤ 25 %",
                samples.median(OURS, "python", "of the plugin"),
                25,
            ),
        ),
        Line("Python plugin: what the plugin burns, in % of a core", cells("python", "plugin")),
        Line(
            "`yes`: CPU in % of a core",
            cells("yes", "of a core"),
            Target("`yes`: CPU, of a core", "≤ 10 %", samples.median(OURS, "yes", "of a core"), 10),
        ),
    ]


ROW = Row("flood", "A flooding plugin, default rate limit", HOW, 3, measure, lines)
