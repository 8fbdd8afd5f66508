# SPDX-License-Identifier: Apache-2.0
"""Remove the frames of container runtimes from lines: CRI, and Docker's json-file."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

import msgspec

_STAMP = (
    rb"(?P<second>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d{1,9}))?"
    rb"(?P<zone>Z|[+-]\d\d:\d\d)"
)
_TIME = re.compile(_STAMP)
_CRI = re.compile(_STAMP + rb" (?P<stream>stdout|stderr) (?P<tag>[FP])(?::\S*)?(?: |$)")
_JSON = b'{"log":'


class Framed(NamedTuple):
    """A line in the frame of a container runtime."""

    text: bytes
    """The line, or a part of it."""
    stream: str
    """``stdout`` or ``stderr``."""
    time_ns: int
    """When the runtime received it, in nanoseconds since 1970."""
    partial: bool
    """Whether the stream's next line continues it."""


class _DockerEntry(msgspec.Struct):
    log: str
    stream: str
    time: str


_entry = msgspec.json.Decoder(_DockerEntry)


def unframe(raw: bytes) -> Framed | None:
    """Return a line without its frame, or None if it has no frame."""
    if raw.startswith(_JSON):
        return _docker(raw)
    found = _CRI.match(raw) if raw[:1].isdigit() else None
    if found is None:
        return None
    at = _time_ns(found)
    if at is None:
        return None
    return Framed(raw[found.end() :], found["stream"].decode(), at, found["tag"] == b"P")


def _docker(raw: bytes) -> Framed | None:
    try:
        entry = _entry.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    found = _TIME.fullmatch(entry.time.encode())
    at = None if found is None else _time_ns(found)
    if at is None:
        return None
    text = entry.log.encode("utf-8", "backslashreplace")
    return Framed(text.removesuffix(b"\n"), entry.stream, at, not text.endswith(b"\n"))


def _time_ns(found: re.Match[bytes]) -> int | None:
    zone = found["zone"].replace(b"Z", b"+00:00")
    try:
        moment = datetime.fromisoformat((found["second"] + zone).decode())
    except ValueError:
        return None
    fraction = found["fraction"] or b"0"
    return int(moment.timestamp()) * 1_000_000_000 + int(fraction.ljust(9, b"0"))
