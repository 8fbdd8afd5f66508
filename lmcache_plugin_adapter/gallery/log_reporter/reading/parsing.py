# SPDX-License-Identifier: Apache-2.0
r"""Parse lines of vLLM, LMCache, uvicorn, PyTorch and Python's warnings; never raise.

- vLLM: ``(EngineCore_DP0 pid=123) INFO 11-22 07:06:56 [core.py:123] text``; until 0.31 without
  the part in parentheses in the main process. Local time, no year. Earlier versions have no
  ``[`` before the file.
- LMCache, and plugins' lines: ``[2026-11-22 07:06:56,699] LMCache INFO: text (file.py:12:logger)``.
- vLLM's JSON formatter, and python-json-logger's: one object per line.
- uvicorn: ``INFO:     127.0.0.1:5000 - "GET /health HTTP/1.1" 200 OK``.
- PyTorch, Gloo and others in glog's format: ``[W1122 07:06:56.123456789 file.cpp:12] text``.
- Python's warnings: ``/path/file.py:12: UserWarning: text``.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from .line_text import Tail, clean, split_process, split_tail
from .local_times import local_ns, local_ns_without_year
from .records import Level

LEVELS = {
    "TRACE": Level.DEBUG,
    "DEBUG": Level.DEBUG,
    "INFO": Level.INFO,
    "NOTICE": Level.INFO,
    "WARN": Level.WARNING,
    "WARNING": Level.WARNING,
    "ERROR": Level.ERROR,
    "CRITICAL": Level.CRITICAL,
    "FATAL": Level.CRITICAL,
}
"""The levels by the names that loggers write."""

_GLOG_LEVELS = dict(zip("VIWEF", reversed(Level), strict=True))

_NAMES = "|".join(LEVELS)
_VLLM = re.compile(
    rf"(?P<level>{_NAMES}) (?P<day>\d\d-\d\d) (?P<clock>\d\d:\d\d:\d\d) "
    r"(?:\[(?P<file>[^\[\]]*?):(?P<line>\d{1,9})\]|"
    r"(?P<bare_file>[^\[\]\s:]+):(?P<bare_line>\d{1,9})\])(?: |$)"
)
_LMCACHE = re.compile(
    r"\[(?P<day>\d{4}-\d\d-\d\d) (?P<clock>\d\d:\d\d:\d\d),(?P<ms>\d{3})\] "
    rf"LMCache (?P<level>{_NAMES}):(?: |$)"
)
_UVICORN = re.compile(rf"(?=.{{9}} )(?P<level>{_NAMES}): +(?=\S)")
_GLOG = re.compile(
    r"(?:\[rank\d+\]:)?\[?(?P<level>[VIWEF])(?P<day>\d{4}) (?P<clock>\d\d:\d\d:\d\d)"
    r"\.(?P<fraction>\d{3,9})(?: +\d+)? (?P<file>[^\s:\]]+):(?P<line>\d{1,9})\] ?"
)
_WARNING = re.compile(
    r"(?P<file>(?:/|<)[^:]{1,500}):(?P<line>\d{1,9}): (?P<logger>[A-Za-z_.]{0,80}Warning): "
)

_OWN = "lmcache_plugin_adapter."
"""The beginning of the loggers of plugins' lines."""


class Head(NamedTuple):
    """The first line of a record, parsed."""

    level: Level
    time_ns: int | None
    format: str
    text: str
    prefix: str = ""
    """Everything before the text."""
    logger: str = ""
    file: str = ""
    line: int = 0
    process: str = ""
    pid: int | None = None
    open: bool = False
    """Whether a later line ends the record."""


class _Json(msgspec.Struct):
    """The relevant fields of vLLM's JSON formatter, and of python-json-logger's defaults."""

    message: str
    levelname: str = ""
    level: str = ""
    severity: str = ""
    asctime: str = ""
    timestamp: str = ""
    name: str = ""
    processName: str = ""  # noqa: N815 (as the formatter names it)
    vllm_process_name: str = ""
    process: int | None = None
    exc_info: str | None = None


_json = msgspec.json.Decoder(_Json)


class Parser:
    """Parse the first lines of records.

    Args:
        prefix: The engine's ``VLLM_LOGGING_PREFIX``, which begins vLLM's lines.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def parse(self, text: str, now: float) -> Head | None:
        """Return the parsed line, or None if no record starts here.

        Args:
            text: A line from :func:`.line_text.clean`.
            now: Seconds since 1970, for dates without a year.
        """
        rest = text
        if self._prefix and rest.startswith(self._prefix):
            rest = rest[len(self._prefix) :]
        before, process, pid = split_process(rest)
        rest = rest[len(before) :]
        if not rest or rest[0] in " \t":
            return None
        head = _dispatch(rest, now)
        if head is None:
            return None
        prefix = text[: len(text) - len(rest)] + head.prefix
        found: dict[str, Any] = {"process": process, "pid": pid} if process else {}
        return head._replace(prefix=prefix, **found)


def _dispatch(rest: str, now: float) -> Head | None:
    first = rest[0]
    if first == "[":
        return _lmcache(rest) or _glog(rest, now)
    if first == "{":
        return _object(rest)
    if first in "/<":
        return _warning(rest)
    if first.isupper():
        return _vllm(rest, now) or _uvicorn(rest) or _glog(rest, now)
    return None


def _head(
    found: re.Match[str], level: Level, time_ns: int | None, log_format: str, **fields: Any
) -> Head:
    """Return the head of the line that begins with ``found``, whose groups name file and line."""
    groups = found.groupdict()
    if "file" in groups and "file" not in fields:
        fields = {"file": groups["file"], "line": int(groups["line"]), **fields}
    text = found.string[found.end() :]
    return Head(level, time_ns, log_format, text, prefix=found[0], **fields)


def _vllm(rest: str, now: float) -> Head | None:
    found = _VLLM.match(rest)
    if found is None:
        return None
    at = local_ns_without_year(found["day"], found["clock"], int(now // 3600))
    file = found["file"] or found["bare_file"]
    line = int(found["line"] or found["bare_line"])
    return _head(found, LEVELS[found["level"]], at, "vllm", file=file or "", line=line)


def _lmcache(rest: str) -> Head | None:
    found = _LMCACHE.match(rest)
    if found is None:
        return None
    at = local_ns(found["day"], found["clock"])
    if at is not None:
        at += int(found["ms"]) * 1_000_000
    head = _head(found, LEVELS[found["level"]], at, "lmcache")
    tail = split_tail(head.text)
    return head._replace(open=True) if tail is None else _with_tail(head, tail)


def _with_tail(head: Head, tail: Tail) -> Head:
    # A plugin's line has its process id instead of a line number.
    number: dict[str, Any] = {"pid" if tail.logger.startswith(_OWN) else "line": tail.line}
    return head._replace(text=tail.text, file=tail.file, logger=tail.logger, **number)


def _uvicorn(rest: str) -> Head | None:
    found = _UVICORN.match(rest)
    if found is None or found.end() != 10:
        return None
    return _head(found, LEVELS[found["level"]], None, "uvicorn", logger="uvicorn")


def _glog(rest: str, now: float) -> Head | None:
    found = _GLOG.match(rest)
    if found is None:
        return None
    day = f"{found['day'][:2]}-{found['day'][2:]}"
    at = local_ns_without_year(day, found["clock"], int(now // 3600))
    if at is not None:
        at += int(found["fraction"].ljust(9, "0"))
    return _head(found, _GLOG_LEVELS[found["level"]], at, "torch")


def _warning(rest: str) -> Head | None:
    found = _WARNING.match(rest)
    if found is None:
        return None
    head = _head(found, Level.WARNING, None, "warning")
    return head._replace(text=f"{found['logger']}: {head.text}")


def _object(rest: str) -> Head | None:
    try:
        entry = _json.decode(rest)
    except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError):
        return None
    word = entry.levelname or entry.level or entry.severity
    # python-json-logger writes no level unless it is configured.
    level = LEVELS.get(word.upper()) if word else Level.ERROR if entry.exc_info else Level.INFO
    if level is None:
        return None
    at = _time_of(entry.asctime or entry.timestamp)
    text = entry.message if not entry.exc_info else f"{entry.message}\n{entry.exc_info}"
    values: dict[str, Any] = {"logger": _one_line(entry.name)}
    process = entry.vllm_process_name or entry.processName
    if process:
        values["process"] = _one_line(process)
    if entry.process is not None and 0 <= entry.process < 2**31:
        values["pid"] = entry.process
    return Head(level, at, "json", _many_lines(text), prefix="", **values)


def _time_of(text: str) -> int | None:
    """Return the time of ``2026-11-22 07:06:56,123`` (local) or ISO 8601, as far as known."""
    day, _, clock = text.partition(" ")
    second, _, fraction = clock.partition(",")
    at = local_ns(day, second) if second else None
    if at is not None:
        if fraction.isascii() and fraction.isdigit():
            at += int(fraction[:3].ljust(3, "0")) * 1_000_000
        return at
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return round(moment.timestamp() * 1000) * 1_000_000
    except (ValueError, OverflowError, OSError):
        return None


def _one_line(text: str) -> str:
    return clean(text.encode("utf-8", "backslashreplace"))


def _many_lines(text: str) -> str:
    return "\n".join(_one_line(line) for line in text.split("\n"))
