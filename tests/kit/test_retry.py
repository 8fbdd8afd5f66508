# SPDX-License-Identifier: Apache-2.0
"""Waits between tries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter import kit


def test_it_doubles_up_to_the_maximum_and_begins_anew() -> None:
    """Without chance, exactly."""
    backoff = kit.Backoff(initial=0.5, maximum=3, jitter=0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1, 2, 3, 3]
    backoff.reset()
    assert backoff.next() == 0.5


@given(st.floats(0.001, 10), st.floats(1, 100), st.floats(0, 1))
def test_chance_makes_it_longer_but_not_too_long(
    initial: float, factor: float, jitter: float
) -> None:
    """Never shorter than without, never longer than the maximum."""
    maximum = initial * factor
    backoff = kit.Backoff(initial, maximum, jitter)
    plain = kit.Backoff(initial, maximum, 0)
    for _ in range(10):
        least = plain.next()
        assert least <= backoff.next() <= min(least * (1 + jitter), maximum) * (1 + 1e-9)


def test_two_do_not_meet() -> None:
    """A fleet does not come back in the same moment."""
    waits = {kit.Backoff(jitter=0.5).next() for _ in range(20)}
    assert len(waits) > 15


@pytest.mark.parametrize("wrong", [{"initial": 0}, {"initial": 9, "maximum": 1}, {"jitter": -1}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    """At once."""
    with pytest.raises(ValueError, match="'initial'"):
        kit.Backoff(**wrong)
