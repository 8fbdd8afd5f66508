# SPDX-License-Identifier: Apache-2.0
"""Send to Loki's push API in JSON: streams of lines with labels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from .http_log_target import HttpLogTarget
from .target import RecordsRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lmcache_plugin_adapter.gallery.http_client.answer import Answer
    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record
    from lmcache_plugin_adapter.gallery.log_reporter.settings import LokiTarget

    from .origin import Origin

PUSH = "/loki/api/v1/push"
"""The path of batches, if the URL has none."""

_NAME = re.compile(r"^(?=\d)|[^A-Za-z0-9_]")

_IGNORED = re.compile(r"total ignored: (\d+) out of \d+")
"""In the answer to a push of which Loki took a part."""


class Loki(HttpLogTarget):
    """A Loki server.

    Args:
        settings: The server.
        origin: The origin of all records.
    """

    def __init__(self, settings: LokiTarget, origin: Origin) -> None:
        headers = {"Content-Type": "application/json"}
        if settings.tenant is not None:
            headers["X-Scope-OrgID"] = settings.tenant
        super().__init__("Loki", settings, PUSH, compress=settings.gzip, headers=headers)
        self._origin = origin
        self._own = settings.labels
        self._metadata = settings.structured_metadata

    def send(self, records: Sequence[Record], timeout: float) -> None:
        """Deliver the records; see :meth:`.target.LogTarget.send`."""
        self.post(encode(records, self._labels, metadata=self._metadata), timeout)

    def refusal(self, answer: Answer, *, too_large: bool) -> RecordsRefusedError:
        """Return what the answer says: how many records it ignored, and why, at its end."""
        ignored = _IGNORED.search(answer.body)
        return RecordsRefusedError(
            answer.ending(), None if ignored is None else int(ignored[1]), too_large=too_large
        )

    def _labels(self, process: str) -> dict[str, str]:
        origin = self._origin
        return {"job": "vllm", "host": origin.host, **origin.labels(process), **self._own}


def encode(
    records: Sequence[Record], labels: Callable[[str], Mapping[str, str]], *, metadata: bool
) -> bytes:
    """Return the body of a push: the records in streams, in their order.

    Each file has its own streams. Loki refuses records that are an hour older than the newest one
    of their stream, and one file may lag behind another.

    Args:
        records: The records.
        labels: Returns the labels of a process's streams; level, file and process are added.
        metadata: Whether to add the other fields as structured metadata.
    """
    streams: dict[tuple[str, str, str], list[list[object]]] = {}
    for record in records:
        entry: list[object] = [str(time_of(record)), record.text]
        if metadata:
            entry.append(_metadata(record))
        streams.setdefault((record.path, record.level.word, record.process), []).append(entry)
    return msgspec.json.encode(
        {
            "streams": [
                {"stream": _stream(labels(process), path, level, process), "values": values}
                for (path, level, process), values in streams.items()
            ]
        }
    )


def time_of(record: Record) -> int:
    """Return a record's time, with the record's file position in the missing fraction digits.

    vLLM's times are whole seconds, and Loki drops lines of a stream with equal time and text. The
    position makes times unique, keeps the order, and is the same in a retry.
    """
    for unit in (1_000_000_000, 1_000_000):
        if record.time_ns % unit == 0:
            return record.time_ns + record.end % unit
    return record.time_ns


def _stream(labels: Mapping[str, str], path: str, level: str, process: str) -> dict[str, str]:
    stream = {**labels, "filename": path, "level": level, "process": process}
    return {name: value for name, value in stream.items() if value}


def _metadata(record: Record) -> dict[str, str]:
    values = {_NAME.sub("_", name): value for name, value in (record.extra or {}).items()}
    values |= {
        "logger": record.logger,
        "source": record.source,
        "pid": "" if record.pid is None else str(record.pid),
        "format": record.format,
    }
    return {name: value for name, value in values.items() if value}
