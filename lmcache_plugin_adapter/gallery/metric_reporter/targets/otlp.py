# SPDX-License-Identifier: Apache-2.0
"""Send OTLP metrics over HTTP in protobuf, as OpenTelemetry's collector accepts them."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, Metric

from lmcache_plugin_adapter.contract.version import __version__
from lmcache_plugin_adapter.gallery.otlp_attributes import key_values

from .buffer import Batch
from .kind import Kind
from .otlp_points import Starts, histograms, plain, summaries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lmcache_plugin_adapter.gallery.http_client.answer import Answer
    from lmcache_plugin_adapter.gallery.metric_reporter.exposition import Family
    from lmcache_plugin_adapter.gallery.metric_reporter.reading import Reading
    from lmcache_plugin_adapter.gallery.metric_reporter.settings import Otlp

METRICS = "/v1/metrics"
"""The path of requests."""
SCOPE = "lmcache_plugin_adapter.gallery.metric_reporter"
_RESOURCE = {"job": "service.name", "instance": "service.instance.id", "host": "host.name"}


class OtlpKind(Kind):
    """Requests to a receiver of OTLP.

    Args:
        settings: The target.
        own: The reporter's labels.
        engine_pid: The engine process, for the attributes of the resource.
    """

    key = "otlp"

    def __init__(self, settings: Otlp, own: Mapping[str, str], engine_pid: int | None) -> None:
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        super().__init__(settings, headers, METRICS)
        attributes: dict[str, str | int] = {
            name: own[label] for label, name in _RESOURCE.items() if label in own
        }
        if engine_pid is not None:
            attributes["process.pid"] = engine_pid
        self._resource = {**attributes, **settings.resource}
        self._starts = Starts()

    def encode(self, report: Reading) -> list[Batch]:
        """Return the one batch with the report."""
        request = ExportMetricsServiceRequest()
        group = request.resource_metrics.add()
        group.resource.attributes.extend(key_values(self._resource))
        scope = group.scope_metrics.add()
        scope.scope.name = SCOPE
        scope.scope.version = __version__
        self._starts.read(report)
        for family in report.families:
            scope.metrics.extend(self._metrics(family, report.time_ms))
        self._starts.forget_others()
        if not scope.metrics:
            return []
        body = gzip.compress(request.SerializeToString(), 5, mtime=0)
        # The server counts points, and a histogram's point has many samples: count points, too.
        points = sum(map(_points, scope.metrics))
        return [Batch(body, points, report.born)]

    def partly_refused(self, answer: Answer) -> tuple[int, str] | None:
        """Return number and reason in the answer's ``partial_success``."""
        try:
            partly = ExportMetricsServiceResponse.FromString(answer.raw).partial_success
        except DecodeError:
            return None  # JSON, or not an answer of OTLP
        if not partly.rejected_data_points and not partly.error_message:
            return None
        return partly.rejected_data_points, answer.quote(partly.error_message) or "no reason given"

    def _metrics(self, family: Family, time_ms: int) -> Iterable[Metric]:
        """Yield a family as metrics, each named like its samples."""
        if self._starts.is_start(family):
            return
        if family.kind in ("histogram", "summary"):
            metric = Metric(name=family.name, description=family.help)
            if family.kind == "histogram":
                metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
                metric.histogram.data_points.extend(histograms(family, time_ms, self._starts))
            else:
                metric.summary.data_points.extend(summaries(family, time_ms, self._starts))
            if metric.histogram.data_points or metric.summary.data_points:
                yield metric
            return
        by_name: dict[str, Metric] = {}
        for sample in family.samples:
            metric = by_name.setdefault(
                sample.name, Metric(name=sample.name, description=family.help)
            )
            if family.kind == "counter":
                metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
                metric.sum.is_monotonic = True
                metric.sum.data_points.append(plain(sample, time_ms, self._starts))
            else:
                metric.gauge.data_points.append(plain(sample, time_ms, None))
        yield from by_name.values()


def _points(metric: Metric) -> int:
    """Return how many points a metric has; it is of one of these kinds."""
    kinds = (metric.gauge, metric.sum, metric.histogram, metric.summary)
    return sum(len(kind.data_points) for kind in kinds)
