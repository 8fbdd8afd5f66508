# SPDX-License-Identifier: Apache-2.0
"""Convert Prometheus' samples to OTLP's data points, with the start time of each series."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    HistogramDataPoint,
    NumberDataPoint,
    SummaryDataPoint,
)

from lmcache_plugin_adapter.gallery.otlp_attributes import key_values

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    from lmcache_plugin_adapter.gallery.metric_reporter.exposition import Family, Sample
    from lmcache_plugin_adapter.gallery.metric_reporter.reading import Reading

Key = tuple[str, frozenset[tuple[str, str]]]

_MS = 1_000_000
_LATEST_MS = 2**63 // _MS
_CREATED = "_created"
_ON_RESOURCE = ("job", "instance")


class Starts:
    """Track the start time of each cumulative series.

    The start is the time in prometheus_client's ``_created``. Without one, it is the time of the
    first sample, or of the last sample before the value fell.
    """

    def __init__(self) -> None:
        self._created: dict[Key, float] = {}
        self._families: set[str] = set()
        self._seen: dict[Key, tuple[int, float, int, int]] = {}
        self._now: dict[Key, tuple[int, float, int, int]] = {}

    def read(self, report: Reading) -> None:
        """Take the ``_created`` samples of a report and the series they belong to."""
        cumulative = {
            _name_of_start(family.name, family.kind == "counter")
            for family in report.families
            if family.kind in ("counter", "histogram", "summary")
        }
        self._created = {}
        self._families = set()
        for family in report.families:
            for sample in family.samples:
                base = sample.name.removesuffix(_CREATED)
                if base != sample.name and base in cumulative:
                    self._families.add(sample.name)
                    if 0 < sample.value < math.inf:
                        self._created[base, frozenset(sample.labels.items())] = sample.value
        self._now = {}

    def is_start(self, family: Family) -> bool:
        """Tell whether a family holds only the start times of another."""
        return family.name in self._families

    def start(
        self,
        name: str,
        labels: dict[str, str],
        value: float,
        time_ms: int,
        *,
        is_counter: bool = False,
    ) -> int:
        """Return the start time of a series, in nanoseconds since 1970.

        Args:
            name: The metric's name, ``_total`` included.
            labels: The labels without ``le`` and ``quantile``.
            value: The cumulative value.
            time_ms: The time of the value.
            is_counter: Whether the series is a counter, whose ``_created`` has no ``_total``.
        """
        key = (name, frozenset(labels.items()))
        start_key = (_name_of_start(name, is_counter), key[1])
        created = int(self._created.get(start_key, 0.0) * 1000)
        seen = self._seen.get(key)
        if seen is None:
            begun = created or time_ms
        else:
            begun, last, last_ms, known = seen
            if value < last or created != known:
                begun = max(last_ms, created)
        # A series created during the reading is younger than the reading.
        begun = min(begun, time_ms)
        self._now[key] = (begun, value, time_ms, created)
        return begun * _MS

    def forget_others(self) -> None:
        """Forget the series that are not in the report."""
        self._seen = self._now


def _name_of_start(name: str, is_counter: bool) -> str:
    """Return a metric's name as it stands before ``_created``."""
    return name.removesuffix("_total") if is_counter else name


def plain(sample: Sample, time_ms: int, starts: Starts | None) -> NumberDataPoint:
    """Return the point of a gauge, or of a counter if there are ``starts``."""
    if sample.timestamp is not None:
        time_ms = min(max(sample.timestamp, 0), _LATEST_MS)  # OTLP has no time before 1970
    begun = 0
    if starts is not None:
        begun = starts.start(sample.name, sample.labels, sample.value, time_ms, is_counter=True)
    return NumberDataPoint(
        attributes=attributes(sample.labels),
        start_time_unix_nano=begun,
        time_unix_nano=time_ms * _MS,
        as_double=sample.value,
    )


def histograms(family: Family, time_ms: int, starts: Starts) -> list[HistogramDataPoint]:
    """Return a point for each set of labels; leave out points with inconsistent buckets."""
    points = []
    for labels, samples in _grouped(family, "le"):
        total = _value(samples, f"{family.name}_sum")
        try:
            buckets = _buckets(samples, _value(samples, f"{family.name}_count"))
            counts = [round(value - below) for value, below in _steps([v for _, v in buckets])]
        except (KeyError, ValueError, OverflowError):
            continue  # a bucket without a bound, or a count that is NaN
        if not counts or any(one < 0 for one in counts):
            continue
        point = HistogramDataPoint(
            attributes=attributes(labels),
            start_time_unix_nano=starts.start(family.name, labels, buckets[-1][1], time_ms),
            time_unix_nano=time_ms * _MS,
            count=sum(counts),
            explicit_bounds=[bound for bound, _ in buckets[:-1]],
            bucket_counts=counts,
        )
        if total is not None and not math.isnan(total):
            point.sum = total
        points.append(point)
    return points


def summaries(family: Family, time_ms: int, starts: Starts) -> list[SummaryDataPoint]:
    """Return a point for each set of labels; leave out points with an invalid count."""
    points = []
    for labels, samples in _grouped(family, "quantile"):
        count = _value(samples, f"{family.name}_count") or 0.0
        if not 0 <= count < math.inf:
            continue
        points.append(
            SummaryDataPoint(
                attributes=attributes(labels),
                start_time_unix_nano=starts.start(family.name, labels, count, time_ms),
                time_unix_nano=time_ms * _MS,
                count=round(count),
                sum=_value(samples, f"{family.name}_sum") or 0.0,
                quantile_values=[
                    SummaryDataPoint.ValueAtQuantile(quantile=quantile, value=s.value)
                    for s in samples
                    if s.name == family.name and (quantile := _quantile(s)) is not None
                ],
            )
        )
    return points


def _buckets(samples: list[Sample], count: float | None) -> list[tuple[float, float]]:
    """Return bounds and counts of the buckets, the infinite one last; none if it is unknown.

    Raises:
        KeyError: A bucket has no bound.
        ValueError: A bound is not a number.
    """
    buckets = sorted(
        (float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")
    )
    if not buckets or not math.isinf(buckets[-1][0]):
        if count is None:
            return []
        buckets.append((math.inf, count))
    return buckets


def _quantile(sample: Sample) -> float | None:
    try:
        return float(sample.labels["quantile"])
    except (KeyError, ValueError):
        return None


def attributes(labels: dict[str, str]) -> list[KeyValue]:
    """Return labels as attributes, without those that name the resource."""
    return key_values({name: text for name, text in labels.items() if name not in _ON_RESOURCE})


def _grouped(family: Family, by: str) -> list[tuple[dict[str, str], list[Sample]]]:
    groups: dict[frozenset[tuple[str, str]], tuple[dict[str, str], list[Sample]]] = {}
    for sample in family.samples:
        if sample.name.endswith(_CREATED):
            continue
        labels = {name: text for name, text in sample.labels.items() if name != by}
        groups.setdefault(frozenset(labels.items()), (labels, []))[1].append(sample)
    return list(groups.values())


def _value(samples: list[Sample], name: str) -> float | None:
    return next((s.value for s in samples if s.name == name), None)


def _steps(values: list[float]) -> list[tuple[float, float]]:
    return list(zip(values, [0.0, *values], strict=False))
