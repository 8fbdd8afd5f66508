# SPDX-License-Identifier: Apache-2.0
"""How fast output is taken from a plugin and logged line by line."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figures import Sample, Samples, key
from benchmarks.hosts import EVERYBODY, LMCACHE, OURS, Host
from benchmarks.processes import LateError, count_in, cpu_seconds
from benchmarks.row import Row
from benchmarks.table import Line, Target, several

LINES = 1_000_000
SECONDS = 180.0
FILL = b"x" * 86
LAST = b"the last line of all"
SETTINGS = {"rate_limit": False, "restart": "never", "backoff": {"initial": 0.1}}

HOW = (
    "A plugin that is told to begin by a pipe becomes `cat` of a file in memory of "
    f"{LINES:,} different lines of 100 bytes; the rate limit is off. From then until the last "
    "line is in the log, a file in memory. With this launcher and LMCache's it is the engine's "
    "stderr, with honcho its stdout; each line there has a prefix. supervisord and circus copy "
    "bytes into a log file. The CPU time is that of all but the plugin. Lines that are missing "
    "in the log are counted."
)


def measure(bench: Bench) -> Sample:
    """Have all of them log the same file, one after the other."""
    found: dict[str, float] = {}
    for name in bench.turns(EVERYBODY):
        with bench.hosting(name) as host:
            seconds, cpu, missing = _drained(bench, host)
            found[key(name, "lines/s")] = LINES / seconds
            found[key(name, "cpu")] = cpu
            found[key(name, "missing")] = missing
    return found


def _drained(bench: Bench, host: Host) -> tuple[float, float, int]:
    """Return seconds, CPU seconds and the number of lines that are missing."""
    directory = bench.directory()
    data = directory / "data"
    _write(data)
    go = directory / "go"
    os.mkfifo(go)
    body = f"read word <{go}\ncat {data}\necho {LAST.decode()}\nexec sleep 1000000\n"
    plugins = bench.plugins(1, body)
    host.launch(plugins, SETTINGS)
    _, pids = plugins.running()
    time.sleep(1.2)  # what starts with it is over: supervisord waits a second
    ours = [*host.overhead([*pids])]
    if host.process is not None and host.process.pid not in ours:
        ours.append(host.process.pid)
    size = host.log.stat().st_size if host.log.exists() else 0
    before = sum(map(cpu_seconds, ours))
    fd = os.open(go, os.O_WRONLY)
    began = time.monotonic()
    os.write(fd, b"go\n")
    os.close(fd)
    while not _ended(host.log, size):
        if time.monotonic() > began + SECONDS:
            raise LateError(f"{host.name} has not logged all after {SECONDS:g} s")
        time.sleep(0.005)
    took = time.monotonic() - began
    cpu = sum(map(cpu_seconds, ours)) - before
    return took, cpu, LINES - count_in(host.log, FILL)


def _write(path: Path) -> None:
    with path.open("wb") as out:
        for start in range(0, LINES, 10_000):
            out.write(b"".join(b"line %07d %s\n" % (n, FILL) for n in range(start, start + 10_000)))


def _ended(log: Path, since: int) -> bool:
    """Whether the last line is in the log."""
    try:
        with log.open("rb") as file:
            file.seek(max(log.stat().st_size - 4096, since))
            return LAST in file.read()
    except FileNotFoundError:
        return False


def lines(samples: Samples) -> Sequence[Line]:
    """Return rates and their ratios."""
    rate = "lines/s"
    cells = {name: several([samples.median(name, rate) / 1000]) for name in EVERYBODY}
    ours = key(OURS, rate)
    found = [Line("logged, 1,000 lines/s", cells)]
    for name, text, limit in (
        (LMCACHE, "≥ 10 ×", 10.0),
        ("honcho", "≥ 10 ×", 10.0),
        ("circus", "≥ 1 ×", 1.0),
    ):
        ratio = samples.ratio(ours, key(name, rate))
        title = "LMCache's launcher" if name == LMCACHE else name
        found.append(
            Line(
                f"… in times of {title}",
                {OURS: several([ratio])},
                Target(f"lines a second, in times of {title}", text, ratio, limit, at_least=True),
            )
        )
    cpu = {name: several([samples.median(name, "cpu")]) for name in EVERYBODY}
    found.append(Line("CPU for 1,000,000 lines, s", cpu))
    missing = {name: several([samples.median(name, "missing")]) for name in EVERYBODY}
    found.append(
        Line(
            "lines missing in the log",
            missing,
            Target(
                "lines missing in the log",
                "0",
                max(samples.of(OURS, "missing"), default=float("nan")),
                0,
            ),
        )
    )
    return found


ROW = Row("drain", "Output drained and logged", HOW, 3, measure, lines)
