# SPDX-License-Identifier: Apache-2.0
"""What quiet plugins cost while nothing happens."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.figures import Sample, Samples, key
from benchmarks.hosts import EVERYBODY, LAUNCHERS, OURS, Host
from benchmarks.processes import cpu_seconds, switches
from benchmarks.row import Row
from benchmarks.table import Line, Target, several

COUNT = 10
SETTLE_SECONDS = 3.0
SECONDS = 60.0

HOW = (
    f"All at once for {SECONDS:g} s, each with {COUNT} plugins that sleep, metrics off: the "
    "context switches (voluntary or not) and the CPU time of all that is not a plugin, as "
    "the scheduler counts them; of an engine, all threads but its main one."
)


def measure(bench: Bench) -> Sample:
    """Let all of them idle at once."""
    running: list[tuple[Host, list[int]]] = []
    for name in EVERYBODY:
        host = bench.host(name)
        plugins = bench.plugins(COUNT)
        host.launch(plugins)
        _, pids = plugins.running()
        running.append((host, pids))
    time.sleep(SETTLE_SECONDS)
    before = [_cost(host, pids) for host, pids in running]
    time.sleep(SECONDS)
    found = {}
    for (host, pids), (wakes, cpu) in zip(running, before, strict=True):
        now = _cost(host, pids)
        found[key(host.name, "wakes")] = float(now[0] - wakes)
        found[key(host.name, "cpu")] = (now[1] - cpu) * 1000
    return found


def _cost(host: Host, plugins: list[int]) -> tuple[int, float]:
    """Return context switches and CPU seconds so far."""
    others = host.overhead(plugins)
    wakes, cpu = sum(map(switches, others)), sum(map(cpu_seconds, others))
    if host.process is not None and host.name in LAUNCHERS:
        wakes += switches(host.process.pid, main_thread=False)
        cpu += cpu_seconds(host.process.pid, main_thread=False)
    return wakes, cpu


def lines(samples: Samples) -> Sequence[Line]:
    """Return wake-ups and CPU."""
    wakes = {name: several([samples.median(name, "wakes")]) for name in EVERYBODY}
    cpu = {name: several([samples.median(name, "cpu")]) for name in EVERYBODY}
    return [
        Line(
            f"idle, {COUNT} quiet plugins, {SECONDS:g} s: context switches",
            wakes,
            Target("idle: context switches", "0", samples.median(OURS, "wakes"), 0),
        ),
        Line("… CPU, ms", cpu, Target("idle: CPU, ms", "0", samples.median(OURS, "cpu"), 0)),
    ]


ROW = Row("idle", "Idle", HOW, 1, measure, lines)
