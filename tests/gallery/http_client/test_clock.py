# SPDX-License-Identifier: Apache-2.0
"""A clock that is off shows in the dates of answers."""

from __future__ import annotations

import email.utils

import pytest

from lmcache_plugin_adapter.gallery.http_client.clock import ClockCheck

NOW = 1795331216.5


def said(capsys: pytest.CaptureFixture[str], **headers: str) -> str:
    """Return what a new check prints for an answer, twice looked at."""
    check = ClockCheck()
    for _ in range(2):
        check.look(headers, NOW - 1, NOW, "http://server")
    return capsys.readouterr().out


def date(seconds: float) -> str:
    """Return a date so many seconds from now."""
    return email.utils.formatdate(NOW + seconds, usegmt=True)


@pytest.mark.parametrize(("ahead", "side"), [(-600, "ahead of"), (3600, "behind")])
def test_a_clock_that_is_off_is_one_warning(
    capsys: pytest.CaptureFixture[str], ahead: float, side: str
) -> None:
    """With the difference, which way, and what to do."""
    text = said(capsys, Date=date(ahead))
    assert text.count("The clock of this host is ") == 1
    assert f" s {side} that of 'http://server'" in text
    assert "NTP" in text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Date": "yesterday"},
        {"Date": date(0)},
        {"Date": date(-25)},
        {"Date": date(25)},
        {"Date": date(-600), "Age": "600"},
    ],
)
def test_clocks_that_agree(capsys: pytest.CaptureFixture[str], headers: dict[str, str]) -> None:
    """Nor is a cached answer a sign."""
    assert said(capsys, **headers) == ""
