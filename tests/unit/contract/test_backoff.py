# SPDX-License-Identifier: Apache-2.0
"""The backoff doubles, is bounded, and spreads by jitter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter.contract.backoff import JITTER, backoff_delay


def test_doubles_to_the_maximum() -> None:
    """0.5 s doubles to 30 s and stays there."""
    delays = [backoff_delay(attempt, 0.5, 30) for attempt in range(1, 9)]
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30]


@given(st.integers(0, 10**9), st.floats(0.001, 1e6), st.floats(0.001, 1e6), st.floats(0, 0.999))
def test_is_always_finite_and_bounded(
    attempt: int, initial: float, maximum: float, random: float
) -> None:
    """No number of attempts overflows, and the jitter adds at most its share."""
    assert 0 < backoff_delay(attempt, initial, maximum, random) <= maximum * (1 + JITTER)
