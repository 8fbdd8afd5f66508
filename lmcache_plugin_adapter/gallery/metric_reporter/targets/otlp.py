"""OTLP metrics over HTTP, in protobuf: what OpenTelemetry's collector and many others take."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, Metric

from lmcache_plugin_adapter.contract.version import __version__

from .buffer import Parcel
from .otlp_points import Starts, histograms, plain, summaries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lmcache_plugin_adapter.gallery.http_client.answer import Answer
    from lmcache_plugin_adapter.gallery.metric_reporter.exposition import Family
    from lmcache_plugin_adapter.gallery.metric_reporter.report import Report
    from lmcache_plugin_adapter.gallery.metric_reporter.settings import Otlp

SCOPE = "lmcache_plugin_adapter.gallery.metric_reporter"
_AGAIN = frozenset({429, 502, 503, 504})
_RESOURCE = {"job": "service.name", "instance": "service.instance.id", "host": "host.name"}


class OtlpKind:
    """Requests for a receiver of OTLP.

    Args:
        settings: The target.
        own: The reporter's labels.
        engine_pid: The engine process, for the resource's attributes.
    """

    key = "otlp"
    path = ""

    def __init__(self, settings: Otlp, own: Mapping[str, str], engine_pid: int | None) -> None:
        self.target = settings
        self.headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        attributes: dict[str, str | int] = {
            name: own[label] for label, name in _RESOURCE.items() if label in own
        }
        if engine_pid is not None:
            attributes["process.pid"] = engine_pid
        self._resource = {**attributes, **settings.resource}
        self._starts = Starts()

    def pack(self, report: Report) -> list[Parcel]:
        """Return the one request that carries the report."""
        request = ExportMetricsServiceRequest()
        group = request.resource_metrics.add()
        group.resource.attributes.extend(pairs(self._resource))
        scope = group.scope_metrics.add()
        scope.scope.name = SCOPE
        scope.scope.version = __version__
        self._starts.read(report)
        count = 0
        for family in report.families:
            for metric in self._metrics(family, report.time_ms):
                scope.metrics.append(metric)
                count += 1
        self._starts.forget_others()
        if not count:
            return []
        samples = sum(len(family.samples) for family in report.families)
        body = gzip.compress(request.SerializeToString(), 5, mtime=0)
        return [Parcel(body, samples, report.born)]

    def farewell(self, time_ms: int, born: float) -> list[Parcel]:  # noqa: ARG002 - the protocol
        """Nothing: receivers end a series when nothing more comes."""
        return []

    def try_again(self, answer: Answer) -> bool:
        """Those four only, by the protocol."""
        return answer.status in _AGAIN

    def partly_refused(self, answer: Answer) -> tuple[int, str] | None:
        """Return what ``partial_success`` of an answer says."""
        try:
            partly = ExportMetricsServiceResponse.FromString(answer.raw).partial_success
        except DecodeError:
            return None  # an answer in JSON, or nothing of OTLP's
        if not partly.rejected_data_points and not partly.error_message:
            return None
        return partly.rejected_data_points, answer.quote(partly.error_message) or "no reason given"

    def _metrics(self, family: Family, time_ms: int) -> Iterable[Metric]:
        """Return a family as metrics, named as their samples are."""
        if self._starts.is_start(family):
            return
        if family.kind == "histogram":
            metric = Metric(name=family.name, description=family.help)
            metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
            metric.histogram.data_points.extend(histograms(family, time_ms, self._starts))
            if metric.histogram.data_points:
                yield metric
            return
        if family.kind == "summary":
            metric = Metric(name=family.name, description=family.help)
            metric.summary.data_points.extend(summaries(family, time_ms, self._starts))
            if metric.summary.data_points:
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


def pairs(attributes: Mapping[str, str | int]) -> list[KeyValue]:
    """Return attributes as OTLP has them; whole numbers stay numbers."""
    return [
        KeyValue(
            key=key,
            value=AnyValue(int_value=value)
            if isinstance(value, int)
            else AnyValue(string_value=value),
        )
        for key, value in attributes.items()
    ]
