# SPDX-License-Identifier: Apache-2.0
"""Run every fault on this launcher and on LMCache's own, and write both beside each other.

Usage: ``python tests/faults/side_by_side.py [--write] [--jobs 4]``. ``--write`` replaces the table
of all cases in ``side_by_side.md``, and the summary in the guarantees' page.

LMCache's launcher needs of its package the one module only; it is installed
from PyPI, without what it depends on, into ``.venv-lmcache``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import re
import subprocess
import sys
import venv
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSION = "0.5.6"
BEGIN, END = "<!-- side by side -->", "<!-- end of side by side -->"
PAGE = Path(__file__).with_name("side_by_side.md")
SUMMARY_BEGIN, SUMMARY_END = "<!-- summary of side by side -->", "<!-- end of summary -->"
SUMMARY_PAGE = ROOT / "docs" / "how-it-works" / "guarantees.md"
MARKS = {"passed": "✓", "failed": "✗", "skipped": "–"}
MARKS_IN_ROW = re.compile(r"\| [✓✗–]")
NOT_OURS = "LMCache's launcher "


def lmcache_python() -> str:
    """Return an interpreter that has LMCache's launcher; install it if need be."""
    directory = ROOT / ".venv-lmcache"
    python = directory / "bin" / "python"
    probe = f"from importlib.metadata import version; assert version('lmcache') == '{VERSION}'"
    if not python.exists() or subprocess.run([python, "-c", probe], check=False).returncode:
        venv.create(directory, with_pip=True, clear=True)
        wanted = ["--quiet", "--no-deps", f"lmcache=={VERSION}"]
        subprocess.run([python, "-m", "pip", "install", *wanted], check=True)
    module = "lmcache.v1.plugin.runtime_plugin_launcher"
    subprocess.run([python, "-c", f"import {module}"], check=True, capture_output=True)
    return str(python)


def run(name: str, jobs: int, *options: str) -> dict[str, dict[str, str]]:
    """Try all faults on a launcher; return its cases."""
    table = ROOT / f".faults-{name}.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(jobs)]
    command += ["--tb=no", "tests/faults", "--launcher", name, "--table", str(table), *options]
    subprocess.run(command, cwd=ROOT, check=False)
    cases = json.loads(table.read_text())
    table.unlink()
    return {case["id"]: case for case in cases}


def cell(case: dict[str, str] | None) -> str:
    """Return what the table says of a case."""
    if case is None:
        return "–"
    note = case.get("reason") or case.get("detail", "")
    if case["outcome"] == "skipped" and note.startswith(NOT_OURS):
        note = note.removeprefix(NOT_OURS)
    note = note.replace("|", "\\|").replace("<", "&lt;")
    return f"{MARKS[case['outcome']]} {note}".strip()


def summary(cases: dict[str, dict[str, str]]) -> str:
    """Count outcomes."""
    counts = Counter(case["outcome"] for case in cases.values())
    return f"{counts['passed']} of {len(cases) - counts['skipped']}"


def page(ours: dict[str, dict[str, str]], theirs: dict[str, dict[str, str]]) -> str:
    """Return the table as Markdown."""
    day = dt.datetime.now(tz=dt.timezone.utc).date()
    both = [key for key in ours if theirs.get(key, {}).get("outcome") in ("passed", "failed")]
    lines = [
        (
            f"Measured on {day:%-d %B %Y}: Linux {platform.release()}, {os.cpu_count()} cores that "
            f"other work shared, Python {platform.python_version()}, LMCache {VERSION}. "
            "✓ holds, ✗ does not, – cannot be tried (it says why)."
        ),
        "",
        "| | this launcher | LMCache's |",
        "|---|---|---|",
        f"| cases that hold | **{summary(ours)}** | {summary(theirs)} |",
        (
            f"| of the {len(both)} that were tried on both | "
            f"**{summary({key: ours[key] for key in both})}** | "
            f"{summary({key: theirs[key] for key in both})} |"
        ),
    ]
    group = ""
    for key, case in ours.items():
        if case["group"] != group:
            group = case["group"]
            lines += ["", f"### {group}", "", "| case | shows | this launcher | LMCache's |"]
            lines += ["|---|---|---|---|"]
        title = case["title"].replace("|", "\\|").replace("_", "\\_")
        lines.append(f"| {title} | {case['guarantees']} | {cell(case)} | {cell(theirs.get(key))} |")
    return "\n".join(lines)


def summary_of_page(text: str) -> str:
    """Return how many cases of each section hold, as a table."""
    measured, _, rest = text.partition("\n\n")
    lines = [measured, "", "| cases | this launcher | LMCache's |", "|---|---|---|"]
    totals = [0, 0, 0, 0]
    for section in rest.split("\n### ")[1:]:
        rows = [
            re.split(r" (?<!\\)\| ", row)
            for row in section.splitlines()
            if MARKS_IN_ROW.search(row)
        ]
        counts = []
        for cells in zip(*(row[-2:] for row in rows), strict=True):
            tried = [cell for cell in cells if cell[0] != MARKS["skipped"]]
            counts += [sum(cell[0] == MARKS["passed"] for cell in tried), len(tried)]
        totals = [one + more for one, more in zip(totals, counts, strict=True)]
        title = section.partition("\n")[0]
        link = (
            f"../../tests/faults/side_by_side.md#{title.lower().replace(',', '').replace(' ', '-')}"
        )
        lines.append(
            f"| [{title}]({link}) | {counts[0]} of {counts[1]} | {counts[2]} of {counts[3]} |"
        )
    lines.append(f"| all | **{totals[0]} of {totals[1]}** | {totals[2]} of {totals[3]} |")
    return "\n".join(lines)


def replace(path: Path, begin: str, end: str, text: str) -> None:
    """Put a text between two marks of a page."""
    before, _, rest = path.read_text().partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def main() -> None:
    """Run both, write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="replace the tables in the pages")
    parser.add_argument("--jobs", type=int, default=4)
    options = parser.parse_args()
    python = lmcache_python()
    ours = run("ours", options.jobs)
    theirs = run("lmcache", options.jobs, "--engine-python", python)
    text = page(ours, theirs)
    if options.write:
        replace(PAGE, BEGIN, END, text)
        replace(SUMMARY_PAGE, SUMMARY_BEGIN, SUMMARY_END, summary_of_page(text))
    else:
        print(text)
    print(f"this launcher: {summary(ours)}; LMCache's: {summary(theirs)}")
    sys.exit(any(case["outcome"] == "failed" for case in ours.values()))


if __name__ == "__main__":
    main()
