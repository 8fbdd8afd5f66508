"""One look at an engine, as every target gets it."""

from __future__ import annotations

from typing import NamedTuple

from .exposition import Family, Sample


class Report(NamedTuple):
    """What was read at one moment, with its labels."""

    time_ms: int
    """Milliseconds since 1970: when the reading began."""
    born: float
    """The same by the monotonic clock, in seconds."""
    families: list[Family]


def gauge(name: str, help_text: str, value: float, labels: dict[str, str] | None = None) -> Family:
    """Return a gauge of the reporter's own."""
    return Family(name, "gauge", help_text, [Sample(name, labels or {}, value)])


def counter(name: str, help_text: str, values: list[tuple[dict[str, str], float]]) -> Family:
    """Return a counter of the reporter's own, a value for each set of labels."""
    samples = [Sample(name, labels, value) for labels, value in values]
    return Family(name, "counter", help_text, samples)
