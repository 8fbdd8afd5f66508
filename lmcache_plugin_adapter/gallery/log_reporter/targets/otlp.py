# SPDX-License-Identifier: Apache-2.0
"""Send OTLP logs over HTTP in protobuf."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Level
from lmcache_plugin_adapter.gallery.otlp_attributes import key_values

from .http_log_target import HttpLogTarget
from .target import RecordsRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record
    from lmcache_plugin_adapter.gallery.log_reporter.settings import OtlpTarget

    from .origin import Origin

LOGS = "/v1/logs"
"""The path of batches, if the URL has none."""

SEVERITIES = {
    Level.DEBUG: (5, "DEBUG"),
    Level.INFO: (9, "INFO"),
    Level.WARNING: (13, "WARN"),
    Level.ERROR: (17, "ERROR"),
    Level.CRITICAL: (21, "FATAL"),
}
"""OpenTelemetry's numbers and short names."""


class OtlpLogs(HttpLogTarget):
    """An OpenTelemetry collector.

    Args:
        settings: The server.
        origin: The origin of all records.
    """

    def __init__(self, settings: OtlpTarget, origin: Origin) -> None:
        headers = {"Content-Type": "application/x-protobuf"}
        super().__init__("OTLP", settings, LOGS, compress=settings.gzip, headers=headers)
        self._service = settings.service_name
        self._origin = origin
        self._own = settings.attributes

    def send(self, records: Sequence[Record], timeout: float) -> None:
        """Deliver the records; see :meth:`.target.LogTarget.send`."""
        answer = self.post(encode(records, self._resource), timeout)
        rejected, why = read_answer(answer.raw)
        if rejected:
            why = answer.quote(why) or "no reason given"
            raise RecordsRefusedError(why, min(rejected, len(records)))

    def _resource(self, process: str) -> dict[str, str]:
        labels = self._origin.labels(process)
        return {
            "service.name": self._service,
            "host.name": self._origin.host,
            **{f"lmcache.{name}": value for name, value in labels.items()},
            **self._own,
        }


def encode(records: Sequence[Record], resource: Callable[[str], Mapping[str, str]]) -> bytes:
    """Return the body of an export: one scope for each logger of an engine process.

    Args:
        records: The records.
        resource: Returns the attributes of a process's resource.
    """
    request = ExportLogsServiceRequest()
    known: dict[str, tuple[tuple[str, str], ...]] = {}
    resources: dict[tuple[tuple[str, str], ...], ResourceLogs] = {}
    scopes: dict[tuple[object, str], ScopeLogs] = {}
    for record in records:
        attributes = known.get(record.process)
        if attributes is None:
            attributes = known[record.process] = tuple(resource(record.process).items())
        scope = scopes.get((attributes, record.logger))
        if scope is None:
            logs = resources.get(attributes)
            if logs is None:
                logs = resources[attributes] = request.resource_logs.add()
                logs.resource.attributes.extend(key_values(dict(attributes)))
            scope = scopes[attributes, record.logger] = logs.scope_logs.add()
            scope.scope.name = record.logger or record.format
        _fill(scope.log_records.add(), record)
    body: bytes = request.SerializeToString()
    return body


def read_answer(body: bytes) -> tuple[int, str]:
    """Return how many records the server rejected, and why."""
    answer = ExportLogsServiceResponse()
    try:
        answer.ParseFromString(body)
    except (DecodeError, UnicodeDecodeError):
        return 0, ""
    partial = answer.partial_success
    return max(partial.rejected_log_records, 0), partial.error_message


def _fill(entry: LogRecord, record: Record) -> None:
    entry.time_unix_nano = max(record.time_ns, 0)
    entry.observed_time_unix_nano = record.observed_ns
    number, word = SEVERITIES[record.level]
    entry.severity_number = number  # type: ignore[assignment]
    entry.severity_text = word
    entry.body.string_value = record.text
    attributes: dict[str, str | int | None] = {
        "log.file.path": record.path,
        "lmcache.log.format": record.format or None,
        "code.file.path": record.file or None,
        "code.line.number": record.line or None,
        "lmcache.process": record.process or None,
        "process.pid": record.pid,
    }
    known = {name: value for name, value in attributes.items() if value is not None}
    known = {**(record.extra or {}), **known}
    entry.attributes.extend(key_values(known))
