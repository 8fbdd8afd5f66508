# SPDX-License-Identifier: Apache-2.0
"""Durations in settings."""

from __future__ import annotations

import pytest

from lmcache_plugin_adapter.configuration.durations import read_duration
from lmcache_plugin_adapter.messages.problem import InvalidValueError


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (2.5, 2.5),
        ("500ms", 0.5),
        ("30s", 30.0),
        ("0.5s", 0.5),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1d", 86_400.0),
        ("1h30m", 5400.0),
        ("1 h 30 m", 5400.0),
    ],
)
def test_a_number_of_seconds_or_text_with_units_is_a_duration(
    value: object, seconds: float
) -> None:
    """Also several parts, as Go and systemd write them."""
    assert read_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        *(True, None, [], {}, float("nan"), float("inf"), 10**400),
        *("", "5", "s", "-5s", "5 minutes", "5min", "5M", "30sec", "1h30", "x5s", "5s!", "٣s"),
    ],
)
def test_everything_else_is_refused(value: object) -> None:
    """Other types, missing or unknown units, signs, infinity."""
    with pytest.raises(InvalidValueError):
        read_duration(value)


def test_a_number_in_quotes_gets_a_hint() -> None:
    """The likely mistake."""
    with pytest.raises(InvalidValueError, match="without quotes"):
        read_duration("5")
