# SPDX-License-Identifier: Apache-2.0
"""How long it takes from the launch until all plugins run."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figures import Sample, Samples, key
from benchmarks.hosts import EVERYBODY, OURS
from benchmarks.plugins import Plugins
from benchmarks.processes import MARK, end_marked
from benchmarks.row import Row
from benchmarks.table import Line, Target, number, several

COUNTS = (1, 10, 100)
MOST = COUNTS[-1]
BARE = ("posix_spawn", "xargs")
SOURCE = Path(__file__).parents[1] / "spawn_loop.c"

HOW = (
    "From the call of `launch_plugins()` (peers: from their start, for they are started for their "
    "plugins) until the last plugin, a shell script, has written its pid into a pipe; then it "
    "becomes `sleep`. `posix_spawn` is a loop in C that starts the same scripts and does nothing "
    "else (no pipes, no sessions, no environment), `xargs` is `xargs -P 0 -n 1`."
)


def measure(bench: Bench) -> Sample:
    """Start all, one after the other."""
    found = {}
    for count in COUNTS:
        for name in bench.turns(EVERYBODY):
            with bench.hosting(name) as host:
                plugins = bench.plugins(count)
                began = host.launch(plugins)
                now, _ = plugins.running()
                found[key(name, count)] = (now - began) * 1000
    plugins = bench.plugins(MOST)
    for name in bench.turns(BARE):
        command = _bare(name, bench)
        if command:
            found[key(name, MOST)] = _bare_time(command, plugins, bench) * 1000
    bench.clear()
    return found


def _bare(name: str, bench: Bench) -> list[str]:
    """Return the command before the plugins' names; empty: there is none here."""
    if name == "xargs":
        return ["xargs", "-P", "0", "-n", "1", "/bin/sh"] if shutil.which("xargs") else []
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return []
    program = bench.directory() / "spawn_loop"
    subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE)], check=True)
    return [str(program)]


def _bare_time(command: list[str], plugins: Plugins, bench: Bench) -> float:
    plugins.forget()
    names = [str(file) for file in plugins.files]
    through_stdin = command[0] == "xargs"
    data = "\n".join(names).encode()
    mark = f"{bench.mark}-bare"
    began = time.monotonic()
    process = subprocess.Popen(
        command if through_stdin else [*command, *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={MARK: mark},
    )
    try:
        if process.stdin is not None:
            if through_stdin:
                process.stdin.write(data)
            process.stdin.close()
        now, _ = plugins.running()
    finally:
        process.kill()
        process.wait()
        end_marked(mark)
    return now - began


def lines(samples: Samples) -> Sequence[Line]:
    """Return times, and the ratios to the fastest peer and to the bare loops."""
    cells = {name: several([samples.median(name, count) for count in COUNTS]) for name in EVERYBODY}
    counts = " / ".join(map(str, COUNTS))
    ours = key(OURS, MOST)
    fastest = max(
        samples.ratio(ours, key(name, MOST))
        for name in EVERYBODY
        if name != OURS and key(name, MOST) in samples
    )
    found = [
        Line(
            f"from launch until {counts} run, ms",
            cells,
            Target(
                "100 plugins from launch to running, in times of the fastest peer",
                "100: ≤ 1 × the fastest",
                fastest,
                1,
            ),
        )
    ]
    for name in BARE:
        bare = samples.median(name, MOST)
        ratio = samples.ratio(ours, key(name, MOST))
        found.append(
            Line(
                f"100, in times of `{name}`",
                {OURS: number(ratio), "bare": f"{number(bare)} ms"},
                Target(
                    f"100 plugins from launch to running, in times of `{name}`", "≤ 3 ×", ratio, 3
                ),
            )
        )
    return found


ROW = Row("launch-to-running", "From launch to running", HOW, 5, measure, lines)
