# SPDX-License-Identifier: Apache-2.0
"""Sizes in settings, and that every time and size of the table takes units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter.configuration.durations import read_duration
from lmcache_plugin_adapter.configuration.settings import read_settings
from lmcache_plugin_adapter.configuration.settings_table import PREFIX, SETTINGS
from lmcache_plugin_adapter.configuration.sizes import read_size
from lmcache_plugin_adapter.messages.problem import InvalidValueError


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (64, 64),
        ("0B", 0),
        ("64KiB", 65_536),
        ("64Ki", 65_536),
        ("64 MiB", 67_108_864),
        ("1.5GiB", 1_610_612_736),
        ("10MB", 10_000_000),
        ("10mb", 10_000_000),
        ("2TiB", 2_199_023_255_552),
    ],
)
def test_sizes(value: object, count: int) -> None:
    """Of 1,024 with an i, of 1,000 without."""
    assert read_size(value) == count


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("64", "write it without quotes, or with its unit"),
        ("64M", "units are B, KiB, MiB"),
        ("0.3KiB", "whole number of bytes"),
        ("1MiB 2KiB", ""),
        ("MiB", ""),
        ("-1KiB", ""),
        ("", ""),
        (1.0, ""),
        (True, ""),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_everything_else_is_refused(value: object, hint: str) -> None:
    """It is never 0. A bare M is a million to some programs, 1,048,576 to others."""
    with pytest.raises(InvalidValueError) as refused:
        read_size(value)
    assert hint in str(refused.value)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No other error; 0 only where the text has no other digit."""
    for read in (read_duration, read_size):
        try:
            number = read(text)
        except InvalidValueError:
            continue
        assert number > 0 or not set(text) & set("123456789")


@pytest.mark.parametrize(
    "row", [row for row in SETTINGS if row.kind in ("duration", "size")], ids=lambda row: row.key
)
def test_every_time_and_size_takes_units(row) -> None:
    """A wrong one leaves the default, and the message has the key and what is accepted."""
    group, _, key = row.key.rpartition(".")
    with_unit = {"memory_max": "64MiB"}.get(row.key, "64KiB" if row.kind == "size" else "20s")
    for value, usable in ((with_unit, True), ("5 x", False)):
        section = {group: {key: value}} if group else {key: value}
        if group == "log":
            section[group]["directory"] = "/logs"
        completed = {"every": "7d", "notify": True, **section}  # some have no effect without
        _, problems = read_settings({"runtime_plugins": completed}, {})
        refused = [one.text for one in problems if f"'{PREFIX}.{row.key}'" in one.text]
        assert bool(refused) is not usable, problems
        if refused:
            assert "a number, or text such as" in refused[0]


def test_no_time_and_no_size_is_forgotten() -> None:
    """A number is a duration, a size, or a count of something else."""
    counts = {
        row.key
        for row in SETTINGS
        if isinstance(row.default, (int, float))
        and not isinstance(row.default, bool)
        and row.kind not in ("duration", "size")
    }
    assert all("bytes" not in key and "second" not in key for key in counts)
    assert not {row.key for row in SETTINGS if row.kind in ("bytes", "seconds")}
