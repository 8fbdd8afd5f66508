# SPDX-License-Identifier: Apache-2.0
"""Remove what others put before lines: container runtimes (CRI, Docker's json-file) and journald.

``docker logs --timestamps`` and ``kubectl logs --timestamps`` add a time with nanoseconds.

journald's prefix is that of ``journalctl`` and of syslog files: ``Nov 22 07:06:56 host vllm[12]: ``
or ``2026-11-22T07:06:56+0100 host vllm[12]: ``.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from .local_times import STAMP, local_ns_without_year, stamped_ns
from .other_loggers import month_number

if TYPE_CHECKING:
    from .records import Level

_TIME = re.compile(STAMP)
_CRI = re.compile(STAMP + r" (?P<stream>stdout|stderr) (?P<tag>[FP])(?::\S*)?(?: |$)")
_NANO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)T(?P<clock>\d\d:\d\d:\d\d)\.(?P<fraction>\d{7,9})"
    r"(?P<zone>Z|[+-]\d\d:\d\d)(?: |$)"
)
_IDENT = r" (?P<host>[\w.:-]{1,255}) (?P<ident>[^\s\[\]:]{1,64})"
_JOURNAL = re.compile(STAMP + _IDENT + r"(?:\[(?P<pid>\d{1,10})\]|(?<= kernel)): ?")
_SYSLOG = re.compile(
    r"(?P<month>[A-Z][a-z]{2}) (?P<day>[ \d]\d) (?P<clock>\d\d:\d\d:\d\d)"
    r"(?:\.(?P<fraction>\d{1,9}))?" + _IDENT + r"(?:\[(?P<pid>\d{1,10})\])?: ?"
)
_JSON = b'{"log":'
_PREFIX = 640
"""Bytes in which a prefix ends."""


class Framed(NamedTuple):
    """A line without what was put before it."""

    text: bytes
    """The line, or a part of it."""
    stream: str
    """``stdout`` or ``stderr``; with journald's prefix, program and process."""
    time_ns: int
    """When it was received, in nanoseconds since 1970."""
    partial: bool
    """Whether the stream's next line continues it."""
    process: str = ""
    """The program's name in journald's prefix."""
    pid: int | None = None
    level: Level | None = None
    """journald's priority."""


class _DockerEntry(msgspec.Struct):
    log: str
    stream: str
    time: str


_entry = msgspec.json.Decoder(_DockerEntry)


def unframe(raw: bytes) -> Framed | None:
    """Return a line without its frame, or None if it has no frame."""
    if raw.startswith(_JSON):
        return _docker(raw)
    if raw[:1].isdigit():
        start = raw[:_PREFIX].decode("latin-1")  # a position is the same in characters and bytes
        found = _CRI.match(start)
        if found is not None:
            at = stamped_ns(found) if found["zone"] else None
            if at is None:
                return None
            return Framed(raw[found.end() :], found["stream"], at, found["tag"] == "P")
        found = _JOURNAL.match(start)
        if found is not None:
            return _journal(raw, found, stamped_ns(found))
        found = _NANO.match(start)
        at = None if found is None else stamped_ns(found)
        return None if found is None or at is None else Framed(raw[found.end() :], "", at, False)
    if raw[:1].isupper() and raw[3:4] == b" ":
        found = _SYSLOG.match(raw[:_PREFIX].decode("latin-1"))
        return None if found is None else _journal(raw, found, _syslog_ns(found))
    return None


def _journal(raw: bytes, found: re.Match[str], at: int | None) -> Framed | None:
    if at is None:
        return None
    ident, pid = found["ident"], found["pid"]
    ident = ident.encode("latin-1").decode("utf-8", "backslashreplace")
    stream = f"{ident}[{pid}]"
    number = int(pid) if pid and int(pid) < 2**31 else None
    return Framed(raw[found.end() :], stream, at, False, ident, number)


def _syslog_ns(found: re.Match[str]) -> int | None:
    month = month_number(found["month"])
    if month is None:
        return None
    day = f"{month:02d}-{found['day'].strip():0>2}"
    at = local_ns_without_year(day, found["clock"], int(time.time() // 3600))
    return None if at is None else at + int((found["fraction"] or "0").ljust(9, "0"))


def _docker(raw: bytes) -> Framed | None:
    try:
        entry = _entry.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    found = _TIME.fullmatch(entry.time)
    at = None if found is None else stamped_ns(found)
    if at is None:
        return None
    text = entry.log.encode("utf-8", "backslashreplace")
    return Framed(text.removesuffix(b"\n"), entry.stream, at, not text.endswith(b"\n"))
