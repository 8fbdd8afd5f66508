# SPDX-License-Identifier: Apache-2.0
"""How long ``launch_plugins()`` blocks the engine."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.figures import Sample, Samples, key, median
from benchmarks.hosts import LAUNCHERS, LMCACHE, OURS, EngineHost
from benchmarks.plugins import Plugins
from benchmarks.processes import Ends, threads_of, wait_until
from benchmarks.row import Row
from benchmarks.table import Line, Target, several

COUNTS = (1, 10, 50, 100)
MOST = COUNTS[-1]
HEAPS = {"small": 0, "4 GB": 4 << 30}
ROUNDS = 3
SECONDS = 60.0

HOW = (
    "The time from the call of `launch_plugins()` to its return, in an engine that has imported "
    "the launcher. Each repeat has two engines, one of them with a heap of 4 GB, every page of it "
    "written to; both launchers take turns in both, with one plugin, 10, 50 and 100 (`sleep`), "
    f"{ROUNDS} times, after one launch that is not counted. Each is stopped and seen gone before "
    "the next."
)


def measure(bench: Bench) -> Sample:
    """Launch in turns, in an engine with a small heap and in one with a large one."""
    found: dict[str, list[float]] = {}
    plugins = {count: bench.plugins(count) for count in COUNTS}
    engines = {heap: bench.engine(OURS) for heap in HEAPS}
    for heap, engine in engines.items():
        engine.do("load", who=LMCACHE)
        if HEAPS[heap]:
            engine.do("touch", size=HEAPS[heap])
        for who in LAUNCHERS:
            _launch(bench, engines, heap, plugins[1], who)
    for _ in range(ROUNDS):
        for count in bench.turns(COUNTS):
            for heap in HEAPS:
                for who in LAUNCHERS:
                    took = _launch(bench, engines, heap, plugins[count], who)
                    found.setdefault(key(who, heap, count), []).append(took * 1000)
    return {name: median(values) for name, values in found.items()}


def _launch(
    bench: Bench, engines: dict[str, EngineHost], heap: str, plugins: Plugins, who: str
) -> float:
    """Launch and stop; return how long the launch blocked, in seconds."""
    engine = engines[heap]
    plugins.forget()
    began, took = engine.blocked(plugins, who=who)
    _, pids = plugins.running()
    ends = Ends(pids)
    engine.stop(who)
    ends.last(began + SECONDS)
    # Nothing of it may run on beside the next launch: no supervisor, no capturing thread.
    mains = {one.process.pid for one in engines.values() if one.process is not None}
    wait_until(lambda: bench.marked() == mains, SECONDS, "no process of plugins is left")
    wait_until(
        lambda: all(len(threads_of(pid)) == 1 for pid in mains), SECONDS, "no thread is left"
    )
    return took


def lines(samples: Samples) -> Sequence[Line]:
    """Return times by heap, and the ratios that matter."""
    found = []
    for heap in HEAPS:
        cells = {
            who: several([samples.median(who, heap, count) for count in COUNTS])
            for who in LAUNCHERS
        }
        counts = " / ".join(map(str, COUNTS))
        found.append(Line(f"{heap} heap: blocked with {counts} plugins, ms", cells))
    found.append(
        _ratios(
            samples,
            "100 plugins, in times of 1",
            [(key("{}", heap, MOST), key("{}", heap, 1)) for heap in HEAPS],
        )
    )
    found.append(
        _ratios(
            samples,
            "4 GB heap, in times of a small one; 1 and 100 plugins",
            [(key("{}", "4 GB", count), key("{}", "small", count)) for count in (1, MOST)],
        )
    )
    share = max(
        samples.ratio(key(OURS, heap, MOST), key(LMCACHE, heap, MOST)) * 100 for heap in HEAPS
    )
    found.append(
        Line(
            "100 plugins, in % of LMCache's launcher",
            {OURS: several([share])},
            Target("launch of 100 plugins blocks, in % of LMCache's launcher", "≤ 10 %", share, 10),
        )
    )
    return found


def _ratios(samples: Samples, title: str, pairs: Sequence[tuple[str, str]]) -> Line:
    cells, ours = {}, 0.0
    for who in LAUNCHERS:
        values = [samples.ratio(over.format(who), under.format(who)) for over, under in pairs]
        cells[who] = several(values)
        if who == OURS:
            ours = max(values)
    return Line(title, cells, Target(f"launch blocks: {title}", "≤ 1.2 ×", ours, 1.2))


ROW = Row("launch-blocked", "Engine blocked by `launch_plugins()`", HOW, 5, measure, lines)
