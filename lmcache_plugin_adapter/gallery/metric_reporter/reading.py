# SPDX-License-Identifier: Apache-2.0
"""One reading of the engine's metrics, as every target receives it."""

from __future__ import annotations

from typing import NamedTuple

from .exposition import Family, Sample


class Reading(NamedTuple):
    """The samples of one moment, with their labels."""

    time_ms: int
    """Milliseconds since 1970: when the reading began."""
    born: float
    """The same moment by the monotonic clock, in seconds."""
    families: list[Family]

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(len(family.samples) for family in self.families)


def gauge(name: str, help_text: str, value: float, labels: dict[str, str] | None = None) -> Family:
    """Return a gauge of the reporter itself."""
    return Family(name, "gauge", help_text, [Sample(name, labels or {}, value)])


def counter(name: str, help_text: str, values: list[tuple[dict[str, str], float]]) -> Family:
    """Return a counter of the reporter itself, with a value for each set of labels."""
    samples = [Sample(name, labels, value) for labels, value in values]
    return Family(name, "counter", help_text, samples)
