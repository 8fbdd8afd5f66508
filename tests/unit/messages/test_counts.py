# SPDX-License-Identifier: Apache-2.0
"""Counts in messages: singular and plural."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lmcache_plugin_adapter
from lmcache_plugin_adapter.messages.wording import count_lines, counted, lost

PLURAL = re.compile(
    r"\{[\w.()]+(?::,)?\} (?:lines|records|bytes|samples|plugins|files) (?:are|wait|do)"
)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 records"), (1, "1 record"), (2, "2 records"), (1234, "1,234 records")],
)
def test_counted(count: int, text: str) -> None:
    """One is singular; large numbers have separators."""
    assert counted(count, "record") == text


def test_lines_and_losses() -> None:
    """The verb follows the number."""
    assert (count_lines(1), count_lines(2)) == ("1 line", "2 lines")
    assert lost(1, "byte") == "1 byte is lost"
    assert lost(20, "byte") == "20 bytes are lost"


def test_messages_use_it() -> None:
    """No message puts a plural verb behind a count that may be 1."""
    package = Path(lmcache_plugin_adapter.__file__).parent
    found = [
        f"{path.name}: {match[0]}"
        for path in package.rglob("*.py")
        for match in PLURAL.finditer(path.read_text())
        if "1 more file" not in path.read_text()
    ]
    assert not found
