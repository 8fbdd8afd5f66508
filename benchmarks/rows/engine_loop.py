# SPDX-License-Identifier: Apache-2.0
"""How fast the engine's own Python runs beside a plugin that prints."""

from __future__ import annotations

import array
import os
import signal
import time
from bisect import bisect_left
from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.figures import Sample, Samples, key, median, quantile
from benchmarks.hosts import LAUNCHERS, LMCACHE, OURS, EngineHost
from benchmarks.processes import count_in, marked, pin
from benchmarks.row import Row, SkipError
from benchmarks.table import Line, Target, number, several

RATES = {"1,000 lines/s": 1_000, "20,000 lines/s": 20_000, "flat out": 0}
STEP_MS = 1.0
WINDOW = 0.1
SETTLING = 0.015
SECONDS = 9.0
CONDITIONS = ("off", "null", "log")
SETTINGS = {"rate_limit": False}

LINE = b"x" * 99
PRINTS = """\
if {null}:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
say_so()
line = {line!r}
rate = {rate}
due = time.monotonic()
while True:
    if rate == 0:
        print(line)
        continue
    now = time.monotonic()
    if now - due > 0.02:
        due = now
    while due <= now:
        print(line)
        due += 1 / rate
    time.sleep(0.001)
"""

HOW = (
    f"An engine whose main thread runs pure Python in steps of {STEP_MS:g} ms, alone on the first "
    "core; its other threads, the supervisor, the plugins and the measuring program are on the "
    "other cores. It has two plugins that print 100-byte lines, one to its log (rate limit off) "
    f"and one to `/dev/null`. Every {WINDOW:g} s both are stopped and one, the other or none goes "
    "on, so that all conditions share one process and the machine's drift. A figure is the "
    "engine's while the first plugin runs, in % of its while the second does (the floor: a busy "
    "neighbour, nothing to log). A launcher that takes lines slowly holds the plugin back, which "
    "then is less of a neighbour; how many lines were logged is shown. Noise: the even windows of "
    "the floor against its odd ones."
)


def measure(bench: Bench) -> Sample:
    """Run the loop under both launchers at all rates."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise SkipError("needs two cores")
    others = set(cpus[1:])
    found = {}
    os.sched_setaffinity(0, others)
    try:
        for rate, lines_a_second in RATES.items():
            for name in bench.turns(LAUNCHERS):
                engine = bench.engine(name)
                try:
                    sample = _watched(bench, engine, lines_a_second, cpus[0], others)
                finally:
                    bench.clear()
                found.update({key(name, rate, part): value for part, value in sample.items()})
    finally:
        os.sched_setaffinity(0, cpus)
    return found


def _watched(
    bench: Bench, engine: EngineHost, rate: int, cpu: int, others: set[int]
) -> dict[str, float]:
    pids = {}
    # The names decide neither order nor anything else: each says its own pid.
    plugins = bench.plugins(0)
    for condition in CONDITIONS[1:]:
        path = plugins.directory / f"all_{condition}.pid"
        source = PRINTS.format(null=condition == "null", rate=rate, line=LINE.decode())
        source = f"open({str(path)!r}, 'w').write(str(os.getpid()))\n{source}"
        plugins.add_python(f"all_{condition}.py", source)
    engine.launch(plugins, SETTINGS)
    plugins.running()
    for condition in CONDITIONS[1:]:
        path = plugins.directory / f"all_{condition}.pid"
        pids[condition] = int(path.read_text())
        os.kill(pids[condition], signal.SIGSTOP)
    main = engine.process.pid if engine.process is not None else 0
    pin(marked(engine.mark), others, but=main)
    times = bench.directory() / "times"
    engine.begin("steps", seconds=SECONDS, milliseconds=STEP_MS, cpu=cpu, into=str(times))
    windows = _toggled(pids)
    engine.answer()
    logging = sum(ended - began + SETTLING for name, began, ended in windows if name == "log")
    found = judged(array.array("d", times.read_bytes()), windows)
    return {**found, "logged": count_in(engine.log, LINE) / logging}


def _toggled(pids: dict[str, int]) -> list[tuple[str, float, float]]:
    """Let none, one or the other run; return condition, begin and end of each window."""
    windows = []
    end = time.monotonic() + SECONDS - 2 * WINDOW
    number_of = 0
    while time.monotonic() < end:
        condition = CONDITIONS[(number_of + number_of // 3) % 3]
        number_of += 1
        if condition in pids:
            os.kill(pids[condition], signal.SIGCONT)
        began = time.monotonic() + SETTLING
        time.sleep(WINDOW)
        windows.append((condition, began, time.monotonic()))
        if condition in pids:
            os.kill(pids[condition], signal.SIGSTOP)
    return windows


def judged(times: Sequence[float], windows: Sequence[tuple[str, float, float]]) -> dict[str, float]:
    """Return speed and p99 of a step beside logging, in % of the floor.

    Args:
        times: Begin and end of each step, in turn, monotonic.
        windows: Condition, begin and end.
    """
    lengths: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for name, began, ended in windows:
        counts[name] = turn = counts.get(name, 0) + 1
        first = (bisect_left(times, began) + 1) // 2
        last = bisect_left(times, ended) // 2
        steps = [times[2 * n + 1] - times[2 * n] for n in range(first, last)]
        lengths.setdefault(name, []).extend(steps)
        lengths.setdefault(f"{name} {'even' if turn % 2 else 'odd'}", []).extend(steps)

    def speed(name: str) -> float:
        return len(lengths[name]) / sum(lengths[name])

    def tail(name: str) -> float:
        return quantile(lengths[name], 0.99)

    return {
        "speed": speed("log") / speed("null") * 100,
        "tail": tail("log") / tail("null") * 100,
        "floor": speed("null") / speed("off") * 100,
        "noise speed": speed("null even") / speed("null odd") * 100,
        "noise tail": tail("null even") / tail("null odd") * 100,
        "step": median(lengths["off"]) * 1000,
    }


def lines(samples: Samples) -> Sequence[Line]:
    """Return speed and tail by rate."""
    found = []
    for part, title in (("speed", "speed"), ("tail", f"p99 of a {STEP_MS:g} ms step")):
        for rate in RATES:
            value = samples.median(OURS, rate, part)
            what = f"engine's loop beside {rate}: {title}, % of the floor"
            if part == "speed":
                target = Target(what, "≥ 98 %", value, 98, at_least=True)
            else:
                target = Target(what, "≤ 102 %", value, 102)
            cells = {name: several([samples.median(name, rate, part)]) for name in LAUNCHERS}
            found.append(Line(f"{title} beside {rate}, % of the floor", cells, target))
    floor = {
        name: several([samples.median(name, rate, "floor") for rate in RATES]) for name in LAUNCHERS
    }
    rates = " / ".join(RATES)
    found.append(Line(f"the floor: speed beside {rates} to `/dev/null`, % of undisturbed", floor))
    logged = {
        name: several([samples.median(name, rate, "logged") for rate in RATES])
        for name in LAUNCHERS
    }
    found.append(Line(f"lines logged in a second, of {rates}", logged))
    noise = {}
    for name in (OURS, LMCACHE):
        spread = [
            abs(value - 100)
            for rate in RATES
            for part in ("noise speed", "noise tail")
            for value in samples.of(name, rate, part)
        ]
        noise[name] = f"± {number(quantile(spread, 0.9))}" if spread else "–"
    found.append(Line("noise of these figures (the floor against itself), %", noise))
    return found


ROW = Row("engine-loop", "The engine's own loop beside a plugin", HOW, 3, measure, lines)
