# SPDX-License-Identifier: Apache-2.0
"""Runs rows, keeps what they measured, writes tables and plots."""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from .bench import Bench
from .installation import ROOT
from .processes import LateError
from .report import page, write_between_marks
from .results import Results
from .row import Row, SkipError
from .rows import ROWS
from .table import markdown

FAILURES = (LateError, OSError, KeyError, ValueError, ZeroDivisionError, subprocess.SubprocessError)
PAGE = ROOT / "benchmarks" / "figures.md"
PICTURES = ROOT / "docs" / "images"


def main() -> int:
    """Measure what is asked for; return the exit code: 1 if a row could not be measured."""
    options = _options()
    if options.list:
        for row in ROWS:
            print(f"{row.name:20} {row.repeats:2} x  {row.title}")
        return 0
    # So that what was started is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    results = Results(options.output)
    command = shlex.join(["benchmarks/run", *sys.argv[1:]])
    failed = 0
    if not options.render:
        chosen = options.rows or [row for row in ROWS if row.name != "completion"]
        for row in chosen:
            failed += not _measured(row, options, results, command)
    text = page(ROWS, results)
    (options.output / "figures.md").write_text(text + "\n")
    from .plots import draw

    draw(results, PICTURES if options.docs else options.output)
    if options.docs:
        write_between_marks(PAGE, text)
    print(f"Written to {options.output}{f' and {PAGE}' if options.docs else ''}")
    return int(failed > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/run",
        description="Measure this launcher beside LMCache's own, supervisord, circus and honcho.",
    )
    parser.add_argument(
        "--rows",
        type=_rows,
        metavar="A,B",
        help="only these (default: all but completion, which needs real vLLM); see --list",
    )
    parser.add_argument("--repeats", type=int, help="of each row (default: see --list)")
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "build" / "benchmarks",
        help="for figures.md, plots and results.json, to which rows are added (%(default)s)",
    )
    parser.add_argument("--scratch", type=Path, help="for files meanwhile (default: /dev/shm)")
    parser.add_argument(
        "--docs",
        action="store_true",
        help="write tables into benchmarks/figures.md and plots into docs/, too",
    )
    parser.add_argument("--render", action="store_true", help="measure nothing, write again")
    parser.add_argument("--list", action="store_true", help="print the rows")
    return parser.parse_args()


def _rows(text: str) -> list[Row]:
    known = {row.name: row for row in ROWS}
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"no row '{name}'; there are {', '.join(known)}")
    return [known[name] for name in names]


def _measured(row: Row, options: argparse.Namespace, results: Results, command: str) -> bool:
    """Measure a row and print its table; False if nothing came of it."""
    print(f"\n## {row.title} ({row.name})", flush=True)
    repeats: list[dict[str, float]] = []
    began = time.monotonic()
    bench = Bench(options.scratch)
    try:
        for number in range(options.repeats or row.repeats):
            bench.repeat = number
            try:
                sample = row.measure(bench)
                bench.clear()
                repeats.append(dict(sample))
            except SkipError as reason:
                print(f"Skipped: {reason}", flush=True)
                return True
            except FAILURES as error:
                print(f"Repeat {number + 1} failed: {error!r}", flush=True)
                bench.clear()
    except LateError as error:
        print(f"Cannot clear up: {error}", flush=True)
    finally:
        bench.close()
    if not repeats:
        return False
    took = time.monotonic() - began
    results.keep(row.name, repeats, command, took)
    _print_table(row, results, took)
    return True


def _print_table(row: Row, results: Results, took: float) -> None:
    print(markdown(row.lines(results.samples(row.name))))
    print(f"({took:.0f} s)", flush=True)
