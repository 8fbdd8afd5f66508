# SPDX-License-Identifier: Apache-2.0
"""How much of its speed an engine keeps beside plugins that burn CPU, one on each core."""

from __future__ import annotations

import array
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figures import Sample, Samples, key
from benchmarks.hosts import LAUNCHERS, LMCACHE, OURS
from benchmarks.processes import wait_until
from benchmarks.row import Row
from benchmarks.table import Line, Target, several

STEP_MS = 1.0
WINDOW = 0.5
SETTLING = 0.05
SECONDS = 20.0
BEAT = 1.0

NICE_0 = "ours, nice: 0"
HOW = (
    "An engine that computes in one process on each core, and a plugin for each core that burns "
    f"CPU. All plugins are stopped and go on in turns of {WINDOW:g} s, so that both conditions "
    "share one engine and the machine's drift. A figure is the engine's speed while they burn, in "
    "% of its speed while they are stopped. A further plugin, a heartbeat, sleeps until each "
    f"multiple of {BEAT:g} s; a deadline is missed if it wakes up after the next one."
)

BURNS = "say_so()\nwhile True:\n    pass\n"
BEATS = """\
say_so()
due = time.monotonic()
with open({path!r}, "w", buffering=1) as file:
    while True:
        due += {beat}
        time.sleep(max(due - time.monotonic(), 0))
        now = time.monotonic()
        print(now, now - due, file=file)
        due = max(due, now - {beat})
"""


def measure(bench: Bench) -> Sample:
    """Burn beside both launchers, and beside this one without its default."""
    found = {}
    for name in bench.turns((OURS, NICE_0, LMCACHE)):
        settings = {"nice": 0} if name == NICE_0 else {}
        engine = bench.engine(OURS if name == NICE_0 else name)
        cpus = sorted(os.sched_getaffinity(0))
        beats = bench.directory() / "beats"
        plugins = bench.plugins(0)
        plugins.add_python("all_beat.py", BEATS.format(path=str(beats), beat=BEAT))
        for number in cpus:
            plugins.add_python(f"all_burn{number}.py", BURNS)
        engine.launch(plugins, settings)
        pids = set(plugins.running()[1])
        wait_until(beats.exists, 60, "a heartbeat")
        burners = pids - {_heartbeat(pids, beats)}
        into = bench.directory()
        arguments = {"seconds": SECONDS, "milliseconds": STEP_MS, "cpus": cpus, "into": str(into)}
        engine.begin("steps_on_all", **arguments)
        windows = list(_windows(burners))
        engine.answer()
        speed = {burning: _speed(into, windows, burning) for burning in (False, True)}
        late = [late for now, late in _beats(beats) if _is_burning(windows, now)]
        found[key(name, "speed")] = speed[True] / speed[False] * 100
        found[key(name, "missed")] = sum(each > BEAT for each in late) / max(len(late), 1) * 100
        found[key(name, "latest")] = max(late, default=0.0) * 1000
        bench.clear()
    return found


def _heartbeat(pids: set[int], beats: Path) -> int:
    """Return the process that has the file of beats open."""
    for pid in pids:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            if os.readlink(entry.path) == str(beats):
                return pid
    raise ValueError("no heartbeat")


def _windows(pids: set[int]) -> Iterator[tuple[bool, float, float]]:
    """Let the plugins burn and stop in turns; yield whether, from when, and until when."""
    end = time.monotonic() + SECONDS - 2 * WINDOW
    burning = False
    while time.monotonic() < end:
        for pid in pids:
            os.kill(pid, signal.SIGCONT if burning else signal.SIGSTOP)
        began = time.monotonic() + SETTLING
        time.sleep(WINDOW)
        yield burning, began, time.monotonic()
        burning = not burning
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def _speed(into: Path, windows: Sequence[tuple[bool, float, float]], burning: bool) -> float:
    """Return steps in a second, over all processes of the engine."""
    count = sum(
        any(began <= end < until for wanted, began, until in windows if wanted is burning)
        for path in into.iterdir()
        for end in array.array("d", path.read_bytes())
    )
    return count / sum(until - began for wanted, began, until in windows if wanted is burning)


def _beats(path: Path) -> Iterator[tuple[float, float]]:
    """Yield when each beat was, and how late."""
    for line in path.read_text().split("\n")[:-1]:
        now, late = map(float, line.split())
        yield now, late


def _is_burning(windows: Sequence[tuple[bool, float, float]], now: float) -> bool:
    return any(burning and began <= now < until for burning, began, until in windows)


def lines(samples: Samples) -> Sequence[Line]:
    """Return the engine's speed and the heartbeat's deadlines."""

    def cells(part: str) -> dict[str, str]:
        return {name: several([samples.median(name, part)]) for name in LAUNCHERS}

    speed = samples.median(OURS, "speed")
    missed = samples.median(OURS, "missed")
    what = "engine's speed beside a burning plugin on each core, % of its speed without"
    return [
        Line(what, cells("speed"), Target(what, "≥ 95 %", speed, 95, at_least=True)),
        Line("… with `nice: 0`", {OURS: several([samples.median(NICE_0, "speed")])}),
        Line(
            "deadlines that a heartbeat plugin misses beside them, %",
            cells("missed"),
            Target("deadlines missed beside burning plugins, %", "0", missed, 0),
        ),
        Line("… its latest beat, ms", cells("latest")),
    ]


ROW = Row("burners", "An engine beside burning plugins", HOW, 3, measure, lines)
