# SPDX-License-Identifier: Apache-2.0
"""When rules fire and resolve: the rule machine against what its definition says."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter.gallery.alert_reporter.measuring.measures import MEASURES
from lmcache_plugin_adapter.gallery.alert_reporter.rules import BUILT_IN, Change, Rule, Tracker


class Sample(NamedTuple):
    """A value at a moment."""

    now: float
    value: float | None


def feed(rule: Rule, samples: list[Sample]) -> list[tuple[float, Change]]:
    """Return what happens, and when."""
    tracker = Tracker(rule)
    found = [(sample.now, tracker.take(*sample)) for sample in samples]
    return [(now, change) for now, change in found if change is not None]


def test_above_fires_above_and_not_at_the_limit() -> None:
    """The limit itself is well."""
    rule = Rule(name="x", measure="threads", above=5)
    assert feed(rule, [Sample(0, 5), Sample(1, 5.1), Sample(2, 9), Sample(3, 5)]) == [
        (1, Change.FIRES),
        (3, Change.RESOLVES),
    ]


def test_below_is_the_other_way_round() -> None:
    """With hysteresis upwards."""
    rule = Rule(name="x", measure="threads", below=5, hysteresis=2)
    samples = [Sample(0, 5), Sample(1, 4), Sample(2, 6), Sample(3, 7)]
    assert feed(rule, samples) == [(1, Change.FIRES), (3, Change.RESOLVES)]


def test_one_good_value_begins_for_anew() -> None:
    """``for`` means without a break."""
    rule = Rule(name="x", measure="threads", above=5, for_=2)
    samples = [Sample(0, 9), Sample(1, 1), Sample(2, 9), Sample(3, 9), Sample(4, 9)]
    assert feed(rule, samples) == [(4, Change.FIRES)]


def test_one_bad_value_begins_clear_after_anew() -> None:
    """So does ``clear_after``."""
    rule = Rule(name="x", measure="threads", above=5, clear_after=2)
    values = [9, 1, 9, 1, 1, 1]
    samples = [Sample(now, value) for now, value in enumerate(values)]
    assert feed(rule, samples) == [(0, Change.FIRES), (5, Change.RESOLVES)]


def test_no_value_changes_nothing() -> None:
    """A firing alert goes on, one that is not does not begin; no number counts as no value."""
    rule = Rule(name="x", measure="threads", above=5)
    samples = [
        Sample(0, None),
        Sample(1, 9),
        Sample(2, None),
        Sample(3, float("nan")),
        Sample(4, 1),
    ]
    assert feed(rule, samples) == [(1, Change.FIRES), (4, Change.RESOLVES)]


def test_built_in_rules_are_rules() -> None:
    """Each names a measure, one limit, and a name of its own."""
    assert len({rule.name for rule in BUILT_IN}) == len(BUILT_IN)
    for rule in BUILT_IN:
        assert rule.measure in MEASURES
        assert (rule.above is None) != (rule.below is None)


NUMBERS = st.one_of(st.none(), st.integers(-3, 13).map(float), st.just(float("nan")))
SAMPLES = st.lists(st.tuples(st.integers(1, 4), NUMBERS), max_size=60)


@given(
    SAMPLES,
    st.booleans(),
    st.integers(0, 6),
    st.integers(0, 6),
    st.integers(0, 4),
)
def test_every_change_is_what_the_definition_asks_for(
    steps: list[tuple[int, float | None]], up: bool, for_: int, clear_after: int, hysteresis: int
) -> None:
    """Against the definition, read naively from the whole past at each moment."""
    limit = 5.0
    rule = Rule(
        name="x",
        measure="threads",
        above=limit if up else None,
        below=None if up else limit,
        for_=for_,
        clear_after=clear_after,
        hysteresis=hysteresis,
    )
    now, samples = 0, []
    for step, value in steps:
        now += step
        samples.append(Sample(now, value))

    def bad(value: float | None) -> bool:
        return value is not None and (value > limit if up else value < limit)

    def good(value: float | None) -> bool:
        if value is None:
            return False
        return value <= limit - hysteresis if up else value >= limit + hysteresis

    expected = []
    firing, since = False, 0
    for index, sample in enumerate(samples):
        wanted, seconds = (good, clear_after) if firing else (bad, for_)
        # The unbroken run of wanted values that ends here, since the last change.
        run = index
        while run >= since and wanted(samples[run].value):
            run -= 1
        if run < index and sample.now - samples[run + 1].now >= seconds:
            firing, since = not firing, index + 1
            expected.append((sample.now, Change.FIRES if firing else Change.RESOLVES))
    assert feed(rule, samples) == expected


@given(SAMPLES)
def test_changes_take_turns(steps: list[tuple[int, float | None]]) -> None:
    """It never fires twice without having resolved."""
    now, samples = 0, []
    for step, value in steps:
        now += step
        samples.append(Sample(now, value))
    rule = Rule(name="x", measure="threads", above=5, for_=2, hysteresis=1, clear_after=3)
    changes = [change for _, change in feed(rule, samples)]
    assert changes == [Change.FIRES, Change.RESOLVES] * (len(changes) // 2) + (
        [Change.FIRES] if len(changes) % 2 else []
    )


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_rule_without_a_number_stays_quiet(value: float | None) -> None:
    """However long."""
    rule = Rule(name="x", measure="threads", above=5)
    assert feed(rule, [Sample(now, value) for now in range(100)]) == []
