# SPDX-License-Identifier: Apache-2.0
"""The parts of the benchmarks that decide the figures: statistics, tables, the page."""

from __future__ import annotations

import math
import random
import re
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from cli_under_test import ROOT

if TYPE_CHECKING:
    from pathlib import Path

sys.path.insert(0, str(ROOT))

from benchmarks import report
from benchmarks.figures import NEVER, Samples, key, quantile
from benchmarks.results import Results
from benchmarks.rows import ROWS, completion, engine_loop, thousand
from benchmarks.table import Line, Target, markdown, number, several, verdict

PAGE = (ROOT / "benchmarks" / "figures.md").read_text()
SUMMARY = (ROOT / "docs" / "how-it-works" / "performance.md").read_text()


def test_medians_and_quartiles() -> None:
    """Values may be in any order; ones that were not measured are skipped."""
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile([4, 1, 2, 3], 0.5) == 2.5
    assert quantile([1, math.nan, 3], 0.25) == 1.5
    assert math.isnan(quantile([], 0.5))
    assert quantile([1, 2, NEVER], 0.5) == 2


def test_ratios_are_taken_within_each_repeat() -> None:
    """One repeat on a machine half as fast does not change them."""
    samples = Samples([{"a": 2, "b": 1}, {"a": 40, "b": 20}, {"a": 3}])
    assert samples.ratio("a", "b") == 2
    assert samples.median("a") == 3
    assert key("ours", 100) == "ours/100"
    assert math.isnan(samples.ratio("a", "missing"))


@pytest.mark.parametrize(
    ("value", "limit", "at_least", "word"),
    [
        (1.2, 1.2, False, "met: 1.20"),
        (1.21, 1.2, False, "**not met**: 1.21"),
        (9.9, 10, True, "**not met**: 9.90"),
        (NEVER, 200, False, "**not met**: never"),
        (0, 0, False, "met: 0"),
        (102.3, 102, False, "**not met**: 102.300"),
        (math.nan, 1, True, "not measured"),
    ],
)
def test_a_target_is_met_or_not(value: float, limit: float, at_least: bool, word: str) -> None:
    """A target is an upper or a lower bound; a value that never came misses it."""
    assert verdict(Target("", "", value, limit, at_least)) == word


def test_figures_have_three_digits() -> None:
    """Large numbers have a comma."""
    assert [number(value) for value in (0.123, 1.234, 12.34, 123.4, 12345.6)] == [
        "0.12",
        "1.23",
        "12.3",
        "123",
        "12,346",
    ]
    assert several([1, NEVER]) == "1.00 / never"
    assert several([math.nan, math.nan]) == "–"


def test_a_table_has_the_columns_that_its_lines_need() -> None:
    """Columns without values are left out."""
    table = markdown(
        [
            Line("x, ms", {"ours": "1", "honcho": "2"}, Target("x", "≤ 3", 1, 3)),
            Line("y", {"ours": "4"}),
        ]
    )
    assert table.splitlines() == [
        "|  | this launcher | honcho | target | reached |",
        "| --- | --- | --- | --- | --- |",
        "| x, ms | 1 | 2 | ≤ 3 | met: 1.00 |",
        "| y | 4 | – |  |  |",
    ]


def test_steps_are_counted_in_their_window() -> None:
    """An engine that is 10 % slower beside logging gets 90 %; its floor is 100 %."""
    times, windows, now = [], [], 0.0
    chance = random.Random(1)
    for turn in range(60):
        condition = engine_loop.CONDITIONS[turn % 3]
        began = now
        for _ in range(100):
            times.append(now)
            now += (0.0011 if condition == "log" else 0.001) * chance.uniform(0.999, 1.001)
            times.append(now)
        windows.append((condition, began, now))
    found = engine_loop.judged(times, windows)
    assert found["speed"] == pytest.approx(100 / 1.1, rel=0.001)
    assert found["tail"] == pytest.approx(110, rel=0.01)
    assert found["floor"] == pytest.approx(100, rel=0.001)
    assert found["noise speed"] == pytest.approx(100, rel=0.001)


def test_a_bend_is_seen() -> None:
    """A linear cost has bend 1, a quadratic one more than the limit."""
    assert thousand.bend_of([float(count) for count in thousand.COUNTS]) == 1
    assert thousand.bend_of([count**2 for count in thousand.COUNTS]) > thousand.LIMIT


def test_completions_are_compared_within_a_round() -> None:
    """Rounds on a slow machine have the same weight as others."""
    rounds = [
        {
            f"{condition}/{figure}": slow * (1.1 if condition == "on" else 1)
            for condition in ("off", *completion.TITLES)
            for figure in ("latency", "throughput")
        }
        for slow in (1, 10, 3)
    ]
    found = completion.compared(rounds)
    assert found["on/latency"] == pytest.approx(110)
    assert found["off again/latency"] == 100
    assert found["off/latency"] == 3


def test_results_are_kept_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later run replaces the rows that it measures; "never" stays "never"."""
    monkeypatch.setattr("benchmarks.results.machine", lambda: "a machine")
    monkeypatch.setattr("benchmarks.results.commit", lambda: "0123abc")
    Results(tmp_path).keep("stop", [{"ours/100": 1.0, "honcho/100": NEVER}], "run", 1)
    Results(tmp_path).keep("idle", [{"ours/cpu": 0.0}], "run", 1)
    Results(tmp_path).keep("idle", [{"ours/cpu": 5.0}, {"ours/cpu": 6.0}], "run", 1)
    results = Results(tmp_path)
    assert results.samples("stop").median("honcho", 100) == NEVER
    assert results.samples("idle").of("ours", "cpu") == [5.0, 6.0]
    text = report.page(ROWS, results)
    assert "### Stop" in text
    assert "2 repeats" in text
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_between_marks(page, text)
    assert page.read_text() == f"before\n{report.BEGIN}\n{text}\n{report.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the marks"):
        report.write_between_marks(page, text)


def test_the_page_is_whole() -> None:
    """The page has both marks, a table for each row in order, and each picture."""
    assert PAGE.count(report.BEGIN) == PAGE.count(report.END) == 1
    block = PAGE.split(report.BEGIN)[1].split(report.END)[0]
    titles = re.findall(r"^### (.+)$", block, re.MULTILINE)
    assert titles == [row.title for row in ROWS if row.title in titles]
    assert len(titles) >= len(ROWS) - 1
    for table in re.findall(r"(?:^\|.*\n)+", block, re.MULTILINE):
        widths = [line.count(" | ") for line in table.splitlines()]
        assert all(one == other for one, other in pairwise(widths)), table
    pictures = re.findall(r"\]\(\.\./(images/[^)]+)\)", SUMMARY)
    assert len(pictures) == 5
    for picture in pictures:
        assert (ROOT / "docs" / picture).is_file()


def test_the_headlines_are_figures_of_the_page() -> None:
    """Each figure of the summary's table stands in the tables of all figures."""
    table = SUMMARY.split("<!-- headlines -->\n\n")[1].split("\n\n")[0]
    cells = re.findall(r"\|[^|]*\|[^|]*\|$", table, re.MULTILINE)
    figures = re.findall(r"[\d.,]*\d", "".join(cells))
    assert len(figures) > 20
    for figure in figures:
        assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d])", PAGE), figure


def test_the_command_refuses_rows_that_are_not_there() -> None:
    """The error names the rows that exist, and no environment is made."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[1:] = ['--rows', 'x']\n"
    program += "from benchmarks.runner import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"no row 'x'; there are launch-blocked, engine-loop, drain" in done.stderr
