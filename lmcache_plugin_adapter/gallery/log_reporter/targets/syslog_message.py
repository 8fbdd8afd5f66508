# SPDX-License-Identifier: Apache-2.0
"""Format a record as messages of RFC 5424, and of RFC 3164 for the local daemon."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

from lmcache_plugin_adapter.gallery.log_reporter.settings import FACILITIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record
    from lmcache_plugin_adapter.gallery.log_reporter.settings import SyslogTarget

    from .origin import Origin


_NOT_PRINTABLE = re.compile(r"[^!-~]")
_NOT_NAME = re.compile(r"[^!#-<>-\\^-~]")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NEWLINE = 4
_LEAST = 256
"""The least bytes of text in a message, even if its header is longer than the limit."""


class Frame(NamedTuple):
    """The common part of all messages."""

    facility: int
    """The number of the facility."""
    host: str
    """HOSTNAME."""
    app_name: str
    """APP-NAME."""
    sd_id: str
    """SD-ID of the structured data."""
    max_bytes: int
    """The longest message, without the count before it."""
    origin: Origin
    """The origin of all records."""

    @classmethod
    def of(cls, settings: SyslogTarget, origin: Origin) -> Frame:
        """Return the common part of the messages to a configured target."""
        return cls(
            FACILITIES[settings.facility],
            origin.host,
            settings.app_name,
            settings.sd_id,
            settings.max_message_bytes,
            origin,
        )


def framed_messages(record: Record, frame: Frame) -> Iterator[bytes]:
    """Yield the messages of a record, framed by octet counting."""
    for message in messages(record, frame):
        yield b"%d %b" % (len(message), message)


def local_messages(record: Record, frame: Frame) -> Iterator[bytes]:
    """Yield a record in the older format (RFC 3164 without a host), as local daemons expect it."""
    moment = time.localtime(record.time_ns // 1_000_000_000)
    pid = "" if record.pid is None else f"[{record.pid}]"
    process = f"({record.process}) " if record.process else ""
    head = (
        f"<{frame.facility * 8 + record.level}>{_MONTHS[moment.tm_mon - 1]} {moment.tm_mday:2d} "
        f"{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d} {frame.app_name}{pid}: "
        f"{process}"
    ).encode()
    text = record.text.encode("utf-8", "backslashreplace")
    for part in split(text, max(frame.max_bytes - len(head), _LEAST)):
        yield head + part


def messages(record: Record, frame: Frame) -> Iterator[bytes]:
    """Yield a record as one message, or as several if it is too long."""
    head = (
        f"<{frame.facility * 8 + record.level}>1 {timestamp(record.time_ns)} "
        f"{_field(frame.host, 255)} {_field(frame.app_name, 48)} "
        f"{_field('' if record.pid is None else str(record.pid), 128)} "
        f"{_field(record.format, 32)} "
    )
    values = {
        **{_NOT_NAME.sub("_", name)[:32]: one for name, one in (record.extra or {}).items()},
        **frame.origin.labels(record.process),
        "process": record.process,
        "logger": record.logger,
        "source": record.source,
        "file": record.path,
    }
    data = "".join(f' {name}="{_escape(value)}"' for name, value in values.items() if value)
    text = record.text.encode("utf-8", "backslashreplace")
    overhead = len(f"{head}[{frame.sd_id}{data}] ".encode())
    if overhead + len(text) + text.count(b"\n") * (_NEWLINE - 1) <= frame.max_bytes:
        yield f"{head}[{frame.sd_id}{data}] ".encode() + text
        return
    room = max(frame.max_bytes - overhead - len(' part="9999/9999"'), _LEAST)
    parts = list(split(text, room))
    for number, part in enumerate(parts, 1):
        more = f' part="{number}/{len(parts)}"'
        yield f"{head}[{frame.sd_id}{data}{more}] ".encode() + part


def split(text: bytes, room: int) -> Iterator[bytes]:
    """Split UTF-8 into parts of at most ``room`` bytes, preferably at newlines.

    The newline at a split is left out. Any other counts as four bytes, because rsyslog writes it
    as ``#012``.
    """
    part: bytes | None = None
    cost = 0
    for line in text.split(b"\n"):
        for piece in _pieces(line, room):
            if part is not None and cost + _NEWLINE + len(piece) <= room:
                part += b"\n" + piece
                cost += _NEWLINE + len(piece)
                continue
            if part is not None:
                yield part
            part, cost = piece, len(piece)
    yield part or b""


def _pieces(line: bytes, room: int) -> Iterator[bytes]:
    while len(line) > room:
        end = room
        while end > room - 4 and line[end] & 0xC0 == 0x80:
            end -= 1
        yield line[:end]
        line = line[end:]
    yield line


def timestamp(time_ns: int) -> str:
    """Return a time in nanoseconds since 1970 in the format of RFC 5424, to the microsecond."""
    try:
        moment = datetime.fromtimestamp(time_ns // 1_000_000_000, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return "-"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns // 1000 % 1_000_000:06d}Z"


def _field(value: str, limit: int) -> str:
    return _NOT_PRINTABLE.sub("-", value)[:limit] or "-"


def _escape(value: str) -> str:
    value = value.encode("utf-8", "backslashreplace").decode()
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
