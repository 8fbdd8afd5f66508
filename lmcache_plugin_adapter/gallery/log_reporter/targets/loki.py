"""Loki's push API, in JSON: streams of lines with labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .http_sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record
    from lmcache_plugin_adapter.gallery.log_reporter.settings import LokiTarget

    from .origin import Origin

PUSH = "/loki/api/v1/push"
"""Where batches go, if the URL has no path."""


class Loki:
    """Delivers to Loki.

    Args:
        settings: The server.
        origin: Of all records.
    """

    def __init__(self, settings: LokiTarget, origin: Origin) -> None:
        self.name = f"Loki at {settings.shown}"
        headers = {"Content-Type": "application/json"}
        if settings.tenant is not None:
            headers["X-Scope-OrgID"] = settings.tenant
        self._sender = Sender(settings, PUSH, compress=settings.gzip, headers=headers)
        self._origin = origin
        self._own = settings.labels
        self._metadata = settings.structured_metadata

    def send(self, records: Sequence[Record], timeout: float) -> None:
        """Deliver the records; as :class:`.delivery.Target` says."""
        self._sender.post(encode(records, self._labels, metadata=self._metadata), timeout)

    def _labels(self, process: str) -> dict[str, str]:
        origin = self._origin
        return {"job": "vllm", "host": origin.host, **origin.labels(process), **self._own}

    def close(self) -> None:
        """Close the connection."""
        self._sender.close()


def encode(
    records: Sequence[Record], labels: Callable[[str], Mapping[str, str]], *, metadata: bool
) -> bytes:
    """Return the body of a push: the records in streams, each in its order.

    Args:
        records: What is to be pushed.
        labels: Gives those of a process's streams. Level and process are labels, too.
        metadata: Whether the rest goes along as structured metadata.
    """
    streams: dict[tuple[str, str], list[list[object]]] = {}
    for record in records:
        entry: list[object] = [str(time_of(record)), record.text]
        if metadata:
            entry.append(_metadata(record))
        streams.setdefault((record.level.word, record.process), []).append(entry)
    return msgspec.json.encode(
        {
            "streams": [
                {"stream": _stream(labels(process), level, process), "values": values}
                for (level, process), values in streams.items()
            ]
        }
    )


def time_of(record: Record) -> int:
    """Return a record's time with its position in the file in the digits that the time lacks.

    vLLM's times are whole seconds. Of lines of a stream that are the same and have the same
    time, Loki keeps one; this way there are none, they stay in order, and have the same time
    when they are sent once more.
    """
    for unit in (1_000_000_000, 1_000_000):
        if record.time_ns % unit == 0:
            return record.time_ns + record.end % unit
    return record.time_ns


def _stream(labels: Mapping[str, str], level: str, process: str) -> dict[str, str]:
    stream = {**labels, "level": level}
    if process:
        stream["process"] = process
    return stream


def _metadata(record: Record) -> dict[str, str]:
    values = {
        "filename": record.path,
        "logger": record.logger,
        "source": record.source,
        "pid": "" if record.pid is None else str(record.pid),
        "format": record.format,
    }
    return {name: value for name, value in values.items() if value}
