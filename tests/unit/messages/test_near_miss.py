# SPDX-License-Identifier: Apache-2.0
"""Near-miss suggestions: slips are found, other words are left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter.messages.near_miss import edit_distance, near_miss

ROLES = ("scheduler", "worker", "all", "server")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("woker", "worker"),
        ("wroker", "worker"),
        ("workers", "worker"),
        ("Workr", "worker"),
        ("orker", "worker"),
        ("sheduler", "scheduler"),
        ("schedular", "scheduler"),
        ("schedluer", "scheduler"),
        ("sevrer", "server"),
        ("alll", "all"),
        ("WORKER", "worker"),
    ],
)
def test_a_slip_is_recognised(word: str, meant: str) -> None:
    """One slip in a short word, two in a long one."""
    assert near_miss(word, ROLES) == meant


@pytest.mark.parametrize(
    "word",
    ["", "a", "al", "alt", "ale", "call", "wall", "foo", "utils", "__init__", "walker", "plugin"],
)
def test_another_word_is_left_alone(word: str) -> None:
    """A word that is nobody's slip gets no suggestion."""
    assert near_miss(word, ROLES) is None


@pytest.mark.parametrize(
    ("word", "meant"),
    [("stop-grace", "stop_grace"), ("evn", "env"), ("arg", "args"), ("restrat", "restart")],
)
def test_slips_in_settings_keys_are_recognised(word: str, meant: str) -> None:
    """Short keys too; a dash for an underscore is no slip at all."""
    assert near_miss(word, ["restart", "stop_grace", "env", "args", "log"]) == meant


@given(st.lists(st.text(max_size=12), max_size=6), st.text(max_size=12))
def test_a_suggestion_is_always_one_of_the_choices(choices: list[str], word: str) -> None:
    """Whatever is asked, the answer is one of the choices or none; a right word is itself."""
    answer = near_miss(word, choices)
    assert answer in {None, *choices}
    if word in choices:
        assert answer == word


@given(st.text(alphabet="abc", max_size=8), st.text(alphabet="abc", max_size=8))
def test_slips_are_counted_alike_in_both_directions(left: str, right: str) -> None:
    """The count is symmetric, bounded by the longer word, and zero only for the same word."""
    count = edit_distance(left, right)
    assert count == edit_distance(right, left)
    assert abs(len(left) - len(right)) <= count <= max(len(left), len(right))
    assert (count == 0) == (left == right)


@given(st.text(alphabet="abcde", min_size=5, max_size=12), st.data())
def test_every_word_within_the_allowed_slips_is_recognised(word: str, data: st.DataObject) -> None:
    """The shortcut that rules words out cheaply rules out none that is near."""
    other = data.draw(st.text(alphabet="abcde", min_size=5, max_size=12))
    allowed = 1 if len(word) <= 7 else 2
    assert (near_miss(word, [other]) == other) == (edit_distance(word, other) <= allowed)


@given(st.text(alphabet="abcde", min_size=8, max_size=12), st.integers(0, 11), st.integers(0, 11))
def test_two_slips_in_a_long_word_are_recognised(word: str, first: int, second: int) -> None:
    """Leave a letter out, and put another one in."""
    first, second = first % len(word), second % len(word)
    slipped = word[:first] + word[first + 1 :]
    slipped = slipped[:second] + "z" + slipped[second:]
    assert near_miss(slipped, [word]) == word
