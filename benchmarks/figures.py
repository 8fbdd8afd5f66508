# SPDX-License-Identifier: Apache-2.0
"""Samples of repeats, and what they come to: medians, quartiles, ratios of pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Sample = Mapping[str, float]
"""What one repeat measured, by key; infinite: it never happened."""

NEVER = math.inf


def key(*parts: object) -> str:
    """Return the key of a figure: ``key("ours", 100)`` is ``ours/100``."""
    return "/".join(map(str, parts))


def median(values: Sequence[float]) -> float:
    """Return the middle value, or the mean of the two in the middle."""
    return quantile(values, 0.5)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share lies, interpolated; NaN: there are none.

    Args:
        values: In any order.
        share: From 0 to 1.
    """
    ordered = sorted(value for value in values if not math.isnan(value))
    if not ordered:
        return math.nan
    place = share * (len(ordered) - 1)
    low, part = int(place), place % 1
    if part == 0:
        return ordered[low]
    return ordered[low] + (ordered[low + 1] - ordered[low]) * part


class Samples:
    """The repeats of one row.

    Args:
        repeats: One sample each.
    """

    def __init__(self, repeats: Sequence[Sample]) -> None:
        self.repeats = list(repeats)

    def __contains__(self, name: str) -> bool:
        return any(name in repeat for repeat in self.repeats)

    def of(self, *parts: object) -> list[float]:
        """Return all values of a figure."""
        name = key(*parts)
        return [repeat[name] for repeat in self.repeats if name in repeat]

    def median(self, *parts: object) -> float:
        """Return a figure's median; NaN: it was not measured."""
        return median(self.of(*parts))

    def quartiles(self, *parts: object) -> tuple[float, float]:
        """Return a figure's lower and upper quartile."""
        values = self.of(*parts)
        return quantile(values, 0.25), quantile(values, 0.75)

    def ratio(self, over: str, under: str) -> float:
        """Return the median of the ratios that the repeats have, each within itself."""
        return median(
            [
                repeat[over] / repeat[under]
                for repeat in self.repeats
                if over in repeat and under in repeat and repeat[under] not in (0, NEVER)
            ]
        )
