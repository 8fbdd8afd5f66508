# SPDX-License-Identifier: Apache-2.0
"""Find the known word that a user probably meant, and word the hint."""

from __future__ import annotations

from .problem import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(word: object, choices: Iterable[str], before: str = "") -> str:
    """Return the hint ``did you mean 'CHOICE'?``, or nothing if no choice is near.

    Args:
        word: The unknown word, of any type.
        choices: The known words.
        before: Text to put before the hint, such as ``"; "``.
    """
    meant = near_miss(word, choices) if isinstance(word, str) else None
    return "" if meant is None else f"{before}did you mean {quoted(meant)}?"


def near_miss(word: str, choices: Iterable[str]) -> str | None:
    """Find the choice that differs from ``word`` by a typing error.

    A typing error is an extra letter, a missing letter, a wrong letter, or two
    neighbours swapped. Case, and ``-`` instead of ``_``, do not count. Words of
    up to seven letters may have one error, longer ones two. Short words must
    also pass :func:`_plausible`, since one letter makes another word of them.

    Args:
        word: The unknown word.
        choices: The known words.

    Returns:
        The nearest choice (the first of several), or None if none is near.
    """
    folded = _fold(word)
    best: str | None = None
    fewest = (1 if len(folded) <= 7 else 2) + 1
    for choice in choices:
        if choice == word:
            return choice
        target = _fold(choice)
        if _too_far(folded, target, fewest) or _too_far(target, folded, fewest):
            continue
        distance = edit_distance(folded, target)
        if distance < fewest and (distance == 0 or _plausible(folded, target)):
            best, fewest = choice, distance
    return best


def edit_distance(left: str, right: str) -> int:
    """Return the optimal string alignment distance of two words.

    It is the number of letters inserted, left out, replaced or swapped with
    their neighbour.
    """
    before: list[int] = []
    previous = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        current = [i]
        for j, b in enumerate(right, 1):
            cost = min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            current.append(cost)
        before, previous = previous, current
    return previous[-1]


def _too_far(word: str, other: str, limit: int) -> bool:
    """Rule out cheaply a distance of ``limit`` or more: one error adds one letter at most."""
    if len(word) - len(other) >= limit:
        return True
    return sum(letter not in other for letter in word) >= limit


def _plausible(word: str, target: str) -> bool:
    """Distinguish a typing error from another short word: ``alll`` is ``all``, ``call`` is not."""
    if len(word) < 3:
        return False
    if len(target) > 4:
        return True
    if word[0] != target[0]:
        return False
    return len(word) != len(target) or len(word) > 3 or sorted(word) == sorted(target)


def _fold(word: str) -> str:
    return word.casefold().replace("-", "_")
