# SPDX-License-Identifier: Apache-2.0
"""Send in Prometheus' remote write 1.0: every sample, with the time at which it was read."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cramjam

from lmcache_plugin_adapter.gallery.http_client.address import parse

from .buffer import Batch
from .kind import Kind
from .remote_write_schema import WriteRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lmcache_plugin_adapter.gallery.metric_reporter.reading import Reading
    from lmcache_plugin_adapter.gallery.metric_reporter.settings import RemoteWrite

WRITE = "/api/v1/write"
"""Prometheus' path of requests."""

Series = tuple[tuple[str, str], ...]
"""The labels of a series as sorted pairs, ``__name__`` included."""

Point = tuple[Series, float, int]
"""A series with a value and its time, in milliseconds since 1970."""

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""The NaN with which Prometheus marks the end of a series."""

_OURS = -1
"""Stands for the timestamp of a series without timestamps of its own."""


class RemoteWriteKind(Kind):
    """Requests to a receiver of remote write.

    Args:
        settings: The target.
    """

    key = "remote_write"

    def __init__(self, settings: RemoteWrite) -> None:
        headers = {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        # Servers have different paths: a path that is not the beginning of this one is complete.
        own = parse(settings.url).path.rstrip("/")
        super().__init__(settings, headers, WRITE if WRITE.startswith(own) else "")
        self._most = settings.request_samples
        self._marks = settings.stale_markers
        self._last: dict[Series, int] = {}
        self._last_ms = 0

    def encode(self, report: Reading) -> list[Batch]:
        """Return the report's samples, and an end for each series that is gone."""
        now: dict[Series, int] = {}
        points: list[Point] = []
        for family in report.families:
            for sample in family.samples:
                series = series_of(sample.name, sample.labels)
                if sample.timestamp is None:
                    now[series] = _OURS
                    points.append((series, sample.value, report.time_ms))
                    continue
                now[series] = sample.timestamp
                if self._last.get(series, _OURS) != sample.timestamp:
                    points.append((series, sample.value, sample.timestamp))
        points += self._ends(now, report.time_ms)
        self._last = now
        self._last_ms = report.time_ms
        return self._batches(points, report.born)

    def encode_end(self, time_ms: int, born: float) -> list[Batch]:
        """Return an end for every series."""
        ends = list(self._ends({}, max(time_ms, self._last_ms + 1)))
        self._last = {}
        return self._batches(ends, born)

    def _ends(self, now: dict[Series, int], time_ms: int) -> Iterable[Point]:
        if not self._marks:
            return
        for series, timestamp in self._last.items():
            # A series with its own timestamps may only pause; Prometheus does not end it either.
            if series not in now and timestamp == _OURS:
                yield series, STALE, time_ms

    def _batches(self, points: list[Point], born: float) -> list[Batch]:
        parts = (points[at : at + self._most] for at in range(0, len(points), self._most))
        return [Batch(compress(part), len(part), born) for part in parts]


def series_of(name: str, labels: dict[str, str]) -> Series:
    """Return a series as the protocol demands: labels sorted by name, with the metric's name."""
    return tuple(sorted([("__name__", name), *labels.items()]))


def compress(points: Iterable[Point]) -> bytes:
    """Return the body of a request: one sample for each point, in snappy's block format."""
    request = WriteRequest()
    for series, value, time_ms in points:
        one = request.timeseries.add()
        for name, text in series:
            one.labels.add(name=name, value=text)
        one.samples.add(value=value, timestamp=time_ms)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))
