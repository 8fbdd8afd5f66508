"""Prometheus' remote write 1.0: every sample, with the time at which it was read."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cramjam

from .buffer import Parcel
from .remote_write_schema import WriteRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lmcache_plugin_adapter.gallery.http_client.answer import Answer
    from lmcache_plugin_adapter.gallery.metric_reporter.report import Report
    from lmcache_plugin_adapter.gallery.metric_reporter.settings import RemoteWrite

Series = tuple[tuple[str, str], ...]
"""Names and values of a series' labels, by name; ``__name__`` among them."""

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""The one NaN that means "this series has ended" to Prometheus."""

_OURS = -1
"""Stands for the timestamp of a series that has none of its own."""


class RemoteWriteKind:
    """Requests for a receiver of remote write.

    Args:
        settings: The target.
    """

    key = "remote_write"
    path = ""

    def __init__(self, settings: RemoteWrite) -> None:
        self.target = settings
        self.headers = {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        self._most = settings.request_samples
        self._marks = settings.stale_markers
        self._last: dict[Series, int] = {}
        self._last_ms = 0

    def pack(self, report: Report) -> list[Parcel]:
        """Return the report's samples, and an end for each series that is not in it any more."""
        now: dict[Series, int] = {}
        points: list[tuple[Series, float, int]] = []
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
        return self._parcels(points, report.born)

    def farewell(self, time_ms: int, born: float) -> list[Parcel]:
        """Return an end for every series."""
        ends = list(self._ends({}, max(time_ms, self._last_ms + 1)))
        self._last = {}
        return self._parcels(ends, born)

    def try_again(self, answer: Answer) -> bool:
        """429 and 5xx, by the protocol; a 4xx is the same the next time."""
        return answer.transient

    def partly_refused(
        self,
        answer: Answer,  # noqa: ARG002 - the kinds' protocol
    ) -> tuple[int, str] | None:
        """Version 1.0 knows nothing of the kind."""
        return None

    def _ends(self, now: dict[Series, int], time_ms: int) -> Iterable[tuple[Series, float, int]]:
        if not self._marks:
            return
        for series, timestamp in self._last.items():
            # One with timestamps of its own may only pause; Prometheus lets it be, too.
            if series not in now and timestamp == _OURS:
                yield series, STALE, time_ms

    def _parcels(self, points: list[tuple[Series, float, int]], born: float) -> list[Parcel]:
        parcels = []
        for at in range(0, len(points), self._most):
            some = points[at : at + self._most]
            parcels.append(Parcel(encode(some), len(some), born))
        return parcels


def series_of(name: str, labels: dict[str, str]) -> Series:
    """Return a series as the protocol wants it: labels sorted by name, the metric's among them."""
    return tuple(sorted([("__name__", name), *labels.items()]))


def encode(points: Iterable[tuple[Series, float, int]]) -> bytes:
    """Return the body of a request: one sample for each series, in snappy's block format."""
    request = WriteRequest()
    for series, value, time_ms in points:
        one = request.timeseries.add()
        for name, text in series:
            one.labels.add(name=name, value=text)
        one.samples.add(value=value, timestamp=time_ms)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))
