# SPDX-License-Identifier: Apache-2.0
"""Records look as LMCache's do."""

from __future__ import annotations

import re

import pytest

from lmcache_plugin_adapter.contract.log_records import (
    DEBUG,
    ERROR,
    INFO,
    WARNING,
    Clock,
    RecordFormat,
    threshold_from,
    wants_color,
)


def test_plain_record() -> None:
    """Time, LMCache, level, name, text, and file, pid and logger in parentheses."""
    record = RecordFormat("all_x", "all_x.sh", 42, "lmcache_plugin_adapter.worker.0", color=False)
    assert record.frame(WARNING, b"hello", "2026-11-22 07:06:56,699") == (
        b"[2026-11-22 07:06:56,699] LMCache WARNING: [all_x] hello "
        b"(all_x.sh:42:lmcache_plugin_adapter.worker.0)\n"
    )


def test_colours_are_lmcache_s() -> None:
    """Green for INFO, yellow, red; the place in italics: LMCache's own sequences."""
    record = RecordFormat("x", "f", 1, "l", color=True)
    assert record.frame(INFO, b"t", "T") == (
        b"\x1b[32;20m[T] LMCache INFO:\x1b[0m [x] t \x1b[3m(f:1:l)\x1b[0m\n"
    )
    assert record.head(ERROR, "T").startswith(b"\x1b[31;20m[")


def test_block_becomes_one_record_a_line() -> None:
    """Each line of a block has the whole frame."""
    record = RecordFormat("x", "f", 1, "l", color=False)
    assert record.frame(INFO, b"a\nb", "T") == (
        b"[T] LMCache INFO: [x] a (f:1:l)\n[T] LMCache INFO: [x] b (f:1:l)\n"
    )


def test_overhead_is_what_a_record_adds() -> None:
    """The room for a line on a pipe is computed from it."""
    record = RecordFormat("x", "f", 1, "l", color=True)
    longest = max(len(record.frame(level, b"", Clock().stamp())) for level in range(8))
    assert record.overhead == longest


def test_stamp_is_local_time_with_milliseconds() -> None:
    """As Python's logging writes it."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", Clock().stamp())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, DEBUG),
        ("DEBUG", DEBUG),
        ("info", INFO),
        ("WARNING", WARNING),
        ("WARN", WARNING),
        ("nonsense", INFO),
    ],
)
def test_threshold(value, expected) -> None:
    """LMCACHE_LOG_LEVEL counts where it is set; else nothing is held from the log."""
    assert threshold_from({} if value is None else {"LMCACHE_LOG_LEVEL": value}) == expected


def test_no_colour_where_there_is_no_terminal(tmp_path) -> None:
    """A file is no terminal; a descriptor that is closed is none either."""
    with (tmp_path / "log").open("wb") as file:
        assert not wants_color(file.fileno(), {"TERM": "xterm"})
    assert not wants_color(10_000, {"TERM": "xterm"})
