"""A record as messages of RFC 5424, in the frames of RFC 6587 (octet counting): pure."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record

    from .origin import Origin

FACILITIES = {"user": 1, "daemon": 3, **{f"local{number}": 16 + number for number in range(8)}}
"""RFC 5424's numbers."""

_NOT_PRINTABLE = re.compile(r"[^!-~]")
_NEWLINE = 4
_LEAST = 256
"""Bytes of text that a message has room for, however long the rest is."""


class Frame(NamedTuple):
    """What is the same in all messages.

    Attributes:
        facility: Its number.
        host: HOSTNAME.
        app_name: APP-NAME.
        sd_id: SD-ID of the structured data.
        max_bytes: A message's length without the count before it.
        origin: Of all records.
    """

    facility: int
    host: str
    app_name: str
    sd_id: str
    max_bytes: int
    origin: Origin


def messages(record: Record, frame: Frame) -> Iterator[bytes]:
    """Return the record as one message, or as several where it is too long for one."""
    head = (
        f"<{frame.facility * 8 + record.level}>1 {timestamp(record.time_ns)} "
        f"{_field(frame.host, 255)} {_field(frame.app_name, 48)} "
        f"{_field('' if record.pid is None else str(record.pid), 128)} "
        f"{_field(record.format, 32)} "
    )
    values = {
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
        yield _count(f"{head}[{frame.sd_id}{data}] ".encode() + text)
        return
    room = max(frame.max_bytes - overhead - len(' part="9999/9999"'), _LEAST)
    parts = list(split(text, room))
    for number, part in enumerate(parts, 1):
        more = f' part="{number}/{len(parts)}"'
        yield _count(f"{head}[{frame.sd_id}{data}{more}] ".encode() + part)


def split(text: bytes, room: int) -> Iterator[bytes]:
    """Cut UTF-8 into parts of at most ``room`` bytes: at line ends if possible, in no character.

    The newline at which it is cut is left out. One that stays counts for four bytes, as rsyslog
    writes ``#012`` for it.
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
    """Return a time in nanoseconds since 1970 as RFC 5424 writes it, to the microsecond."""
    try:
        moment = datetime.fromtimestamp(time_ns // 1_000_000_000, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return "-"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns // 1000 % 1_000_000:06d}Z"


def _count(message: bytes) -> bytes:
    return b"%d %b" % (len(message), message)


def _field(value: str, limit: int) -> str:
    return _NOT_PRINTABLE.sub("-", value)[:limit] or "-"


def _escape(value: str) -> str:
    value = value.encode("utf-8", "backslashreplace").decode()
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
