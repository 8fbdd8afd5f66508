# SPDX-License-Identifier: Apache-2.0
"""The rate limit passes a burst, then a rate, and counts what it holds back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter.supervisor.output.rate_limit import LineLimiter, TokenBucket


def test_burst_then_rate() -> None:
    """A full bucket passes its burst at once, then its lines per period."""
    bucket = TokenBucket(100, 10, 50, now=0.0)
    assert bucket.take(80, 0.0) == 50
    assert bucket.take(80, 0.0) == 0
    assert bucket.take(80, 1.0) == 10
    assert bucket.take(80, 1000.0) == 50


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 5)), max_size=50))
def test_never_more_than_burst_and_rate(demands: list[tuple[int, float]]) -> None:
    """Over any history, what passed is bounded by the burst and the rate; nothing gets lost."""
    limiter = LineLimiter(10, 1, 100, now=0.0)
    now, passed, wanted = 0.0, 0, 0
    for lines, pause in demands:
        now += pause
        wanted += lines
        passed += limiter.admit(lines, urgent=False, now=now)
    assert passed <= 100 + 10 * now + 1e-6
    assert passed + limiter.collect() == wanted
    assert limiter.collect() == 0


def test_urgent_lines_have_an_allowance_of_their_own() -> None:
    """After a flood of ordinary lines, errors still pass, up to the burst."""
    limiter = LineLimiter(1, 1, 10, now=0.0)
    assert limiter.admit(1000, urgent=False, now=0.0) == 10
    assert limiter.admit(25, urgent=True, now=0.0) == 10
    assert limiter.suppressed == 990 + 15


def test_clock_that_stands_still_or_steps_back_gives_nothing() -> None:
    """Only time that passes fills the bucket."""
    bucket = TokenBucket(10, 1, 5, now=100.0)
    bucket.take(5, 100.0)
    assert bucket.take(5, 100.0) == 0
    assert bucket.take(5, 50.0) == 0


def test_limit_is_spent_until_time_has_passed() -> None:
    """Whether the next line would be held back, asked before there is one."""
    limiter = LineLimiter(10, 1, 5, now=0.0)
    assert not limiter.exhausted(0.0)
    limiter.admit(7, urgent=False, now=0.0)
    assert limiter.exhausted(0.09)
    assert not limiter.exhausted(0.11)
