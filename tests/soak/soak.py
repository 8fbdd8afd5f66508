# SPDX-License-Identifier: Apache-2.0
"""Run 50 plugins that print, crash and restart, and watch that nothing grows.

Usage: ``python tests/soak/soak.py [--minutes 30] [--plugins 50] [--output DIRECTORY]``

Memory (anonymous: what it has of its own), descriptors and threads of engine and supervisor
are taken every second. Writes ``soak.csv``, a summary, and, where matplotlib
is installed, ``soak.png``. Exits with 1 if a figure of the last quarter is
above that of the second by more than its tolerance.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "faults")]

from world import PRELUDE, UnderTest, World  # noqa: E402

KINDS = {
    # Each of ten plugins: what it does between its restarts.
    "prints.sh": 'while :; do echo "line $SECONDS of $$"; sleep 0.5; done\n',
    "floods.sh": 'while :; do for n in 1 2 3 4 5 6 7 8 9; do printf "%0300d\\n" $n; done; '
    "sleep 1; done\n",
    "crashes.sh": 'echo "about to crash"; sleep $((RANDOM % 8 + 2)); exit 1\n',
    "ends.sh": 'echo "done soon"; sleep $((RANDOM % 10 + 5)); exit 0\n',
    "leaves.sh": "setsid sleep 60 & sleep $((RANDOM % 20 + 10)); exit 3\n",
}

TOLERANCE = {"memory": 0.6, "descriptors": 4, "threads": 0}
"""How much the last quarter's median may be above the second's: MB, and counts."""


def sample(pid: int) -> tuple[float, int, int, float]:
    """Return memory (MB, anonymous), descriptors, threads and CPU seconds of a process."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Anonymous:\s+(\d+)", rollup, re.MULTILINE)
    assert match is not None
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return (
        int(match[1]) / 1024,
        len(os.listdir(f"/proc/{pid}/fd")),
        len(os.listdir(f"/proc/{pid}/task")),
        ticks / os.sysconf("SC_CLK_TCK"),
    )


def watch(world: World, minutes: float) -> tuple[list[list[float]], dict[str, float]]:
    """Run the soak and return a row a second, and what was counted."""
    engine = world.engine(
        settings={
            "restart": "always",
            "stop_grace": 2,
            "backoff": {"initial": 0.5, "max": 5, "reset_after": 10},
            "log_buffer_bytes": 4096,  # soon full: what grows after that is no remembered line
        },
    )
    world.wait(lambda: engine.do("launcher.status() is not None"), 20, "the supervisor answers")
    pid = engine.do("launcher.status()")["supervisor_pid"]
    begun = time.monotonic()
    rows = []
    size = 0
    while (now := time.monotonic() - begun) < minutes * 60:
        rows.append([round(now, 1), *sample(engine.pid), *sample(pid)])
        # The log is not the matter: it would fill the disk.
        if engine.log_path.stat().st_size > 50 << 20:
            size += engine.log_path.stat().st_size
            os.truncate(engine.log_path, 0)
        time.sleep(1)
    status = engine.do("launcher.status()")
    assert status["supervisor_pid"] == pid, "the supervisor was replaced"
    counts = {
        "restarts": sum(plugin["restarts"] for plugin in status["plugins"]),
        "lines": sum(plugin["lines"] for plugin in status["plugins"]),
        "dropped": sum(plugin["lines_dropped"] for plugin in status["plugins"]),
        "processes": len(world.processes()),
        "internal errors": engine.log().count("Internal error"),
    }
    begun = time.monotonic()
    engine.kill()
    world.expect_nothing(10)
    counts["seconds until all were gone"] = round(time.monotonic() - begun, 2)
    return rows, counts


COLUMNS = [
    "seconds",
    *(
        f"{who} {what}"
        for who in ("engine", "supervisor")
        for what in ("memory", "descriptors", "threads", "cpu")
    ),
]


def judge(rows: list[list[float]]) -> list[str]:
    """Compare the second quarter with the last; return a line for each figure."""
    quarter = len(rows) // 4
    lines = []
    for index, name in enumerate(COLUMNS):
        what = name.split()[-1]
        if what not in TOLERANCE:
            continue
        before = statistics.median(row[index] for row in rows[quarter : 2 * quarter])
        after = statistics.median(row[index] for row in rows[-quarter:])
        most = max(row[index] for row in rows[quarter:])
        grown = after - before > TOLERANCE[what]
        unit = " MB" if what == "memory" else ""
        lines.append(
            f"{'GROWS' if grown else 'flat '} {name}: {before:.4g}{unit} in the second quarter, "
            f"{after:.4g}{unit} in the last, {most:.4g}{unit} at most"
        )
    return lines


def draw(rows: list[list[float]], path: Path, title: str) -> None:
    """Draw the figures over time; without matplotlib, do nothing."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture: matplotlib is not installed")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(9, 7))
    minutes = [row[0] / 60 for row in rows]
    for axis, what, label in zip(
        axes,
        ("memory", "descriptors", "threads"),
        ("memory (anonymous, MB)", "descriptors", "threads"),
        strict=True,
    ):
        for who in ("engine", "supervisor"):
            index = COLUMNS.index(f"{who} {what}")
            axis.plot(minutes, [row[index] for row in rows], label=who, linewidth=1)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_title(title, fontsize=10)
    axes[0].legend()
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run, judge, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--plugins", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path("soak"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    directory.chmod(0o755)
    world = World(directory, UnderTest("ours", "lmcache_plugin_adapter", sys.executable))
    world.file("all_polite.py", PRELUDE + "polite(); stay()\n")
    kinds = list(KINDS.items())
    for number in range(options.plugins - 1):
        name, text = kinds[number % len(kinds)]
        world.file(f"all_n{number:02}_{name}", text)
    try:
        rows, counts = watch(world, options.minutes)
    finally:
        left = world.leave()
    with (options.output / "soak.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    title = (
        f"{options.plugins} plugins, {options.minutes:g} minutes: {counts['lines']:,} lines, "
        f"{counts['restarts']:,} restarts"
    )
    draw(rows, options.output / "soak.png", title)
    lines = [title, *judge(rows), f"counted: {counts}", f"left behind: {left or 'nothing'}"]
    lines.append(
        f"CPU of the supervisor: {100 * (rows[-1][8] - rows[0][8]) / rows[-1][0]:.2f} % of a core"
    )
    (options.output / "soak.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    shutil.rmtree(directory, ignore_errors=True)
    sys.exit(bool(left) or any(line.startswith("GROWS") for line in lines))


if __name__ == "__main__":
    main()
