# SPDX-License-Identifier: Apache-2.0
"""Print what would be delivered: a trial that needs no server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from lmcache_plugin_adapter import kit

from .syslog_message import timestamp
from .target import LogTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record

    from .origin import Origin

_BEGINNING = "Would deliver: "


class Console(LogTarget):
    """The plugin's own output.

    Args:
        origin: The origin of all records.
    """

    def __init__(self, origin: Origin) -> None:
        super().__init__("the console only", 10.0)
        self._origin = origin

    def send(self, records: Sequence[Record], timeout: float) -> None:  # noqa: ARG002
        """Print the records; see :meth:`.target.LogTarget.send`."""
        for record in records:
            fields = {
                "time": timestamp(record.time_ns),
                "level": record.level.word,
                **self._origin.labels(record.process),
                "process": record.process,
                "pid": "" if record.pid is None else str(record.pid),
                "logger": record.logger,
                "source": record.source,
                "format": record.format,
                "filename": record.path,
                **(record.extra or {}),
                "text": record.text,
            }
            known = {name: value for name, value in fields.items() if value}
            kit.info(_BEGINNING + msgspec.json.encode(known).decode())


def own_lines(plugin: str) -> re.Pattern[str]:
    """Return a pattern of the lines that a console prints into a log that it may follow."""
    return re.compile(rf"^\[{re.escape(plugin)}\] {_BEGINNING}")
