# SPDX-License-Identifier: Apache-2.0
"""Parse lines of loggers that are neither vLLM's nor LMCache's; never raise.

- A time, and a level among the first fields, as loguru, structlog, Python's logging with a usual
  format, gunicorn, Ray, SGLang and envoy write it: ``2026-11-22 07:06:56.123 | INFO | a:b:1 - x``,
  ``2026-11-22T07:06:56Z [info     ] x``, ``2026-11-22 07:06:56,123 - name - INFO - x``.
- A level before the time, or without a time: ``[ERROR] x``, ``ERROR 2026-11-22 07:06:56 x``,
  ``[07:06:56] ERROR x``, ``<3>x``.
- Python's ``basicConfig``: ``WARNING:name:text``.
- logfmt: ``ts=2026-11-22T07:06:56Z level=warn msg="text"``.
- NCCL: ``host:12:34 [0] NCCL WARN text``; UCX: ``[…] file.c:1 UCX  ERROR text``.
- Access logs in the common format.
"""

from __future__ import annotations

import re

from .local_times import STAMP, any_time_ns, stamped_ns, zoned_ns
from .records import LEVELS, Head, Level, level_of

_UPPER = "|".join(LEVELS)
_STAMPED = re.compile(rf"\[?{STAMP}(?: (?:TP|DP|PP|EP)\d+(?: (?:TP|DP|PP|EP)\d+)*)?\]?")
_LEVELED = re.compile(
    r"[\s|,:\]-]*"
    rf"(?:(?P<upper>{_UPPER})\b\]?|(?:\[ ?|\| ?)(?P<any>[A-Za-z]+) *(?:\]|\|)|"
    r"(?P<short>[IWEDF]) (?=\d+ \d+\]|[\w./-]{1,300}:\d+\]))"
    r"[\s|:,-]*"
)
_NAME = re.compile(r"[\s|,:\]-]*(?:\[?(?P<name>[\w.<>/@-]{1,100})\]?)(?=[\s|\[:,-])")
_RAY_PIDS = re.compile(
    r"(?P<pid>\d{1,9}) \d{1,9}\] (?:\([^()]*\) )?(?P<file>[\w./-]+):(?P<line>\d+): "
)
_LOCATION = re.compile(r"(?P<logger>[\w.<>]+):(?P<function>[\w<>]+):(?P<line>\d{1,9}) +- ")
_FILE = re.compile(r"(?P<file>[\w./-]+\.(?:py|cc|cpp|c|go|rs)):(?P<line>\d{1,9})(?:[:\]]| -+)? +")
_BEFORE = re.compile(
    rf"<([0-7])>|\[([A-Za-z]{{3,11}})\] +|({_UPPER})(?: +-)? +(?=\d{{4}}[-/]\d\d[-/]\d\d[ T])|"
    rf"\[?(?:\d\d/\d\d/\d\d )?\d\d:\d\d:\d\d(?:[.,]\d{{1,9}})?\]? +\[?({_UPPER})\]? +"
)
"""A level before everything else, or after a time without a date or with a short one."""
_BASIC = re.compile(rf"(?P<level>{_UPPER}):(?P<logger>[\w.<>-]{{1,100}}):")
_LOGFMT = re.compile(r"(?:ts|time|t|timestamp|level|lvl|severity)=\S")
_PAIR = re.compile(r'([\w.@-]{1,64})=(?:"((?:[^"\\]|\\.)*)"|(\S*))')
_NCCL = re.compile(
    r"[\w.-]{1,253}:(?P<pid>\d+):\d+ \[-?\d+\] (?:[\w./-]+:\d+ )?NCCL (?P<level>[A-Z]+) "
)
_UCX = re.compile(
    r"\[(?P<second>\d{9,11}\.\d{1,9})\] +\[[^\]]{1,200}\] +(?P<file>[\w./-]+):(?P<line>\d{1,9}) +"
    r"UCX +(?P<level>[A-Z]+) +"
)
_ACCESS = re.compile(
    r"\S{1,253} \S+ \S+ \[(?P<day>\d\d)/(?P<month>[A-Z][a-z]{2})/(?P<year>\d{4}):"
    r'(?P<clock>\d\d:\d\d:\d\d) (?P<zone>[+-]\d{4})\] "'
)
_SHORT = dict(zip("DIWEF", reversed(Level), strict=True))
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MOST_NAMES = 3


def parse_other(text: str) -> Head | None:
    """Return the parsed line, or None if it is in none of these formats.

    The format is ``text`` if only a time was found.
    """
    first = text[0]
    if first.isdigit() or (first == "[" and text[1:2].isdigit()):
        found = _STAMPED.match(text)
        if found is not None:
            return _stamped(text, found)
    if first.isdigit() or first.isupper() or first in "[<":
        before = _BEFORE.match(text)
        level = None if before is None else level_of(next(filter(None, before.groups())))
        if before is not None and level is not None:
            return _leveled(text, before.end(), level)
    if first.isupper():
        basic = _BASIC.match(text)
        if basic is not None:
            level, rest = LEVELS[basic["level"]], text[basic.end() :]
            return Head(level, None, "logging", rest, basic[0], logger=basic["logger"])
    if _LOGFMT.match(text) is not None:
        return _logfmt(text)
    if first == "[":
        return _ucx(text)
    return _nccl(text) or _access(text)


def month_number(name: str) -> int | None:
    """Return the number of a month by its English short name."""
    return _MONTHS.index(name) + 1 if name in _MONTHS else None


def _leveled(text: str, position: int, level: Level) -> Head:
    """Return the head of a line whose level comes before its time, if it has a time."""
    found = _STAMPED.match(text, position)
    at = None if found is None else stamped_ns(found)
    if found is not None and at is not None:
        position = len(text) - len(text[found.end() :].lstrip(" -:"))
    return _with_location(Head(level, at, "logging", ""), text, position)


def _stamped(text: str, found: re.Match[str]) -> Head | None:
    at = stamped_ns(found)
    if at is None:
        return None
    position, logger = found.end(), ""
    for _ in range(_MOST_NAMES):
        leveled = _LEVELED.match(text, position)
        level = None
        if leveled is not None:
            word = leveled["upper"] or leveled["any"]
            level = level_of(word) if word else _SHORT[leveled["short"]]
        if leveled is not None and level is not None:
            return _with_location(
                Head(level, at, "logging", "", logger=logger), text, leveled.end()
            )
        name = _NAME.match(text, position)
        if name is None:
            break
        position = name.end()
        logger = logger or ("" if name["name"].isdigit() else name["name"])
    rest = text[found.end() :]
    rest = rest[1:] if rest[:1] == " " else rest
    return Head(Level.INFO, at, "text", rest, text[: len(text) - len(rest)])


def _with_location(head: Head, text: str, position: int) -> Head:
    """Return the head with the text, and with the line of code before it if there is one."""
    for pattern in (_RAY_PIDS, _LOCATION, _FILE):
        found = pattern.match(text, position)
        if found is not None:
            groups = found.groupdict()
            pid = groups.get("pid")
            head = head._replace(
                logger=groups.get("logger") or head.logger,
                file=groups.get("file") or "",
                line=int(groups["line"]),
                pid=int(pid) if pid else None,
            )
            position = found.end()
            break
    return head._replace(text=text[position:].removeprefix("-- "), prefix=text[:position])


def _logfmt(text: str) -> Head | None:
    pairs = {key: quoted or bare for key, quoted, bare in _PAIR.findall(text[:8192])}
    words = [pairs.pop(key, "") for key in ("level", "lvl", "severity")]
    level = level_of(next((word for word in words if word), ""))
    times = [any_time_ns(pairs.get(key)) for key in ("ts", "time", "t", "timestamp")]
    at = next((time for time in times if time is not None), None)
    if level is None and at is None:
        return None
    return Head(level or Level.INFO, at, "logfmt", text)


def _nccl(text: str) -> Head | None:
    found = _NCCL.match(text)
    level = None if found is None else level_of(found["level"])
    if found is None or level is None:
        return None
    return Head(level, None, "nccl", text, pid=int(found["pid"][:9]), logger="nccl")


def _ucx(text: str) -> Head | None:
    found = _UCX.match(text)
    level = None if found is None else level_of(found["level"])
    if found is None or level is None:
        return None
    at = any_time_ns(found["second"])
    return Head(
        *(level, at, "ucx", text[found.end() :], found[0]),
        logger="ucx",
        file=found["file"],
        line=int(found["line"]),
    )


def _access(text: str) -> Head | None:
    found = _ACCESS.match(text) if '] "' in text[:400] else None
    month = None if found is None else month_number(found["month"])
    if found is None or month is None:
        return None
    at = zoned_ns(f"{found['year']}-{month:02d}-{found['day']}", found["clock"], found["zone"])
    return Head(Level.INFO, at, "access", text)
