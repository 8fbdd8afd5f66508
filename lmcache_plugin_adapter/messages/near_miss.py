"""Which of a few known words someone probably meant to write."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def near_miss(word: str, choices: Iterable[str]) -> str | None:
    """Find the choice that ``word`` is a slip of the keyboard away from.

    A slip is a letter too many, too few, wrong, or two neighbours swapped.
    Case and ``-`` for ``_`` do not count. Words of up to seven letters may
    hold one slip, longer ones two; short words are held to more
    (:func:`_plausible`), since there one letter makes another word.

    Args:
        word: What was written.
        choices: The words that would have been right.

    Returns:
        The nearest choice as it is spelled there (the first of several as
        near), or None when none is near enough.
    """
    folded = _fold(word)
    best: str | None = None
    best_slips = (1 if len(folded) <= 7 else 2) + 1
    for choice in choices:
        if choice == word:
            return choice
        target = _fold(choice)
        if _too_far(folded, target, best_slips) or _too_far(target, folded, best_slips):
            continue
        slips = slips_between(folded, target)
        if slips < best_slips and (slips == 0 or _plausible(folded, target)):
            best, best_slips = choice, slips
    return best


def slips_between(left: str, right: str) -> int:
    """Count the slips that turn one word into the other.

    Args:
        left: A word.
        right: Another word.

    Returns:
        How many letters are inserted, left out, replaced or swapped with
        their neighbour (the optimal string alignment distance).
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


def _too_far(word: str, other: str, slips: int) -> bool:
    """Rule out cheaply what takes ``slips`` or more: one slip brings in one letter at most."""
    if len(word) - len(other) >= slips:
        return True
    return sum(letter not in other for letter in word) >= slips


def _plausible(word: str, target: str) -> bool:
    """Tell a slip from another short word: ``alll`` means ``all``; ``call`` and ``alt`` do not."""
    if len(word) < 3:
        return False
    if len(target) > 4:
        return True
    if word[0] != target[0]:
        return False
    return len(word) != len(target) or len(word) > 3 or sorted(word) == sorted(target)


def _fold(word: str) -> str:
    return word.casefold().replace("-", "_")
