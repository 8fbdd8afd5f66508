# SPDX-License-Identifier: Apache-2.0
"""First examples that need the small HTTP APIs of stand-in engines work as they stand."""

from __future__ import annotations

import re
from pathlib import Path

from cli_under_test import Running, until

PAGES = Path(__file__).parents[2] / "docs/plugin-authors/gallery"
MARK = "<!-- test: first example -->"


def example(page: str) -> str:
    """Return the first configuration of a page."""
    text = (PAGES / page).read_text(encoding="utf-8")
    first = text.index("```yaml\n")
    assert text[:first].rstrip().endswith(MARK)
    return text[first:].removeprefix("```yaml\n").partition("```")[0]


def shown(tmp_path: Path, page: str, *patterns: str) -> None:
    """Run the first example of a page until its log has each pattern."""
    path = tmp_path / page
    path.write_text(example(page), encoding="utf-8")
    with Running(tmp_path, "-c", path) as running:
        for pattern in patterns:
            until(lambda: re.search(pattern, running.log), f"{pattern} in\n{running.log}", 60)  # noqa: B023
        log = running.log
        running.stop()
    assert "WARNING" not in log
    assert "ERROR" not in log


def test_they_print_what_they_would_send(tmp_path: Path) -> None:
    """One after the other: both use the default ports."""
    shown(
        tmp_path,
        "metric-reporter.md",
        r"Would send \d+ samples:",
        r'vllm:num_requests_running\{.*role="scheduler".*\} 0\.0',
        r'up\{.*role="worker".*\} 1\.0',
    )
    shown(
        tmp_path,
        "heartbeat.md",
        r"The engine works",
        r'Would register \{"service":"vllm".*"tags":\["h100"\]',
        r"Would refresh the entry",
    )
