# SPDX-License-Identifier: Apache-2.0
"""What running plugins costs in memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.figures import Sample, Samples, key
from benchmarks.hosts import EVERYBODY, LAUNCHERS, OURS, Host
from benchmarks.processes import memory_kb
from benchmarks.row import Row
from benchmarks.table import Line, Target, several

COUNTS = (1, 10, 100)
MANY = 1000
SETTLE_SECONDS = 0.7
EMPTY = "import sys; sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read()"

HOW = (
    "PSS (shared pages in equal parts) of all processes that are neither engine nor plugin, plus "
    "what the engine's anonymous memory grew by, minus the PSS of an empty `python -I -S` that "
    "runs beside; plugins are quiet, metrics off. Each further plugin: the difference between "
    "10 and 100, and 100 and 1,000 plugins."
)


def measure(bench: Bench) -> Sample:
    """Weigh all, one after the other."""
    found = {}
    for count in (*COUNTS, MANY):
        for name in bench.turns(EVERYBODY if count < MANY else LAUNCHERS):
            with bench.hosting(name) as host:
                found[key(name, count)] = _weighed(bench, host, count) / 1000
    return found


def _weighed(bench: Bench, host: Host, count: int) -> float:
    """Return kB above an empty interpreter, for a host with so many plugins."""
    plugins = bench.plugins(count)
    engine = host.process.pid if host.process is not None else 0
    empty = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", EMPTY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        if empty.stdout is not None:
            empty.stdout.read(1)
        before = memory_kb(engine, "Pss_Anon") if engine else 0
        host.launch(plugins)
        _, pids = plugins.running()
        plugins.settled(pids)
        time.sleep(SETTLE_SECONDS)
        others = sum(map(memory_kb, host.overhead(pids)))
        if others:
            others -= memory_kb(empty.pid)
        grown = memory_kb(engine, "Pss_Anon") - before if engine else 0
        return others + grown
    finally:
        empty.communicate()


def lines(samples: Samples) -> Sequence[Line]:
    """Return megabytes, and kilobytes for each further plugin."""
    counts = (*COUNTS, MANY)
    cells = {name: several([samples.median(name, count) for count in counts]) for name in EVERYBODY}
    further = {
        name: several([_further(samples, name, 10, 100), _further(samples, name, 100, MANY)])
        for name in EVERYBODY
    }
    most = max(_further(samples, OURS, 10, 100), _further(samples, OURS, 100, MANY))
    return [
        Line(
            "memory above an empty `python -I -S`, 1 / 10 / 100 / 1,000 plugins, MB",
            cells,
            Target("memory with 10 plugins, MB", "10: ≤ 4 MB", samples.median(OURS, 10), 4),
        ),
        Line(
            "each further plugin, 10–100 and 100–1,000, kB",
            further,
            Target("memory of each further plugin, kB", "≤ 20 kB", most, 20),
        ),
    ]


def _further(samples: Samples, name: str, low: int, high: int) -> float:
    """Return kB for each further plugin between two numbers of them."""
    grown = samples.median(name, high) - samples.median(name, low)
    return grown * 1000 / (high - low)


ROW = Row("memory", "Memory", HOW, 2, measure, lines)
