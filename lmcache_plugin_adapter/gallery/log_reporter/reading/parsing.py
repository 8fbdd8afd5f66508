r"""Read the lines of vLLM, LMCache, uvicorn, PyTorch and Python's warnings: pure, never raises.

- vLLM: ``(EngineCore_DP0 pid=123) INFO 11-22 07:06:56 [core.py:123] text``; until 0.31 without
  the part in parentheses in the main process. Local time, no year.
- LMCache, and plugins' lines: ``[2026-11-22 07:06:56,699] LMCache INFO: text (file.py:12:logger)``.
- vLLM's JSON formatter: one object a line.
- uvicorn: ``INFO:     127.0.0.1:5000 - "GET /health HTTP/1.1" 200 OK``.
- PyTorch, Gloo and others with glog's frame: ``[W1122 07:06:56.123456789 file.cpp:12] text``.
- Python's warnings: ``/path/file.py:12: UserWarning: text``.
"""

from __future__ import annotations

import functools
import re
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

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
"""Names of levels as loggers write them."""

_GLOG_LEVELS = {
    "V": Level.DEBUG,
    "I": Level.INFO,
    "W": Level.WARNING,
    "E": Level.ERROR,
    "F": Level.CRITICAL,
}

_NAMES = "|".join(LEVELS)
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_PROCESS = re.compile(r"(?:\((?P<process>[^()]{1,128}?) pid=(?P<pid>\d{1,10})(?:, [^()]*)?\) )+")
_VLLM = re.compile(
    rf"(?P<level>{_NAMES}) (?P<day>\d\d-\d\d) (?P<clock>\d\d:\d\d:\d\d) "
    r"\[(?P<file>[^\[\]]*?):(?P<line>\d{1,9})\](?: |$)"
)
_LMCACHE = re.compile(
    r"\[(?P<day>\d{4}-\d\d-\d\d) (?P<clock>\d\d:\d\d:\d\d),(?P<ms>\d{3})\] "
    rf"LMCache (?P<level>{_NAMES}):(?: |$)"
)
_LMCACHE_TAIL = re.compile(r" ?\((?P<file>[^()]*?):(?P<line>\d{1,10}):(?P<logger>[^():]*)\)$")
_UVICORN = re.compile(rf"(?=.{{9}} )(?P<level>{_NAMES}): +(?=\S)")
_GLOG = re.compile(
    r"(?:\[rank\d+\]:)?\[?(?P<level>[VIWEF])(?P<day>\d{4}) (?P<clock>\d\d:\d\d:\d\d)"
    r"\.(?P<fraction>\d{3,9})(?: +\d+)? (?P<file>[^\s:\]]+):(?P<line>\d{1,9})\] ?"
)
_WARNING = re.compile(
    r"(?P<file>(?:/|<)[^:]{1,500}):(?P<line>\d{1,9}): (?P<logger>[A-Za-z_.]{0,80}Warning): "
)

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), 127)}
_ESCAPES.update({code: f"\\u{code:04x}" for code in (*range(0x80, 0xA0), 0x2028, 0x2029)})
_OWN = "lmcache_plugin_adapter."
"""Loggers of plugins' lines begin with this."""

_PROGRESS = ("%|", "it/s", "s/it", "B/s")


class Head(NamedTuple):
    """What the frame of a record's first line says."""

    level: Level
    time_ns: int | None
    format: str
    text: str
    prefix: str = ""
    """All that stands before the text."""
    logger: str = ""
    file: str = ""
    line: int = 0
    process: str = ""
    pid: int | None = None
    open: bool = False
    """Whether the frame's end is still to come, in a later line."""


class Tail(NamedTuple):
    """What stands at the end of an LMCache record."""

    text: str
    """What stands before it."""
    file: str
    line: int
    logger: str


class _Json(msgspec.Struct):
    """What is used of an object of vLLM's JSON formatter."""

    message: str
    levelname: str
    asctime: str = ""
    name: str = ""
    processName: str = ""  # noqa: N815 (as the formatter names it)
    vllm_process_name: str = ""
    process: int | None = None
    exc_info: str | None = None


_json = msgspec.json.Decoder(_Json)


def clean(raw: bytes) -> str:
    r"""Return a line as text: no colours, no control characters but TAB, bad bytes as ``\xNN``.

    Of a progress bar that was drawn over and over, what a terminal would show at the end is
    left.
    """
    text = _ANSI.sub("", raw.decode("utf-8", "backslashreplace"))
    if "\r" in text:
        *earlier, last = [part for part in text.split("\r") if part] or [""]
        if all(any(mark in part for mark in _PROGRESS) for part in earlier):
            text = last
    return text if text.isprintable() else text.translate(_ESCAPES)


def split_process(text: str) -> tuple[str, str, int | None]:
    """Return the prefix ``(NAME pid=N) `` of a line, its name and its process id."""
    if not text.startswith("("):
        return "", "", None
    found = _PROCESS.match(text)
    if found is None:
        return "", "", None
    return found[0], found["process"], int(found["pid"])


def split_tail(text: str) -> Tail | None:
    """Return what ends an LMCache record apart from the text before it, or None."""
    found = _LMCACHE_TAIL.search(text[-600:])
    if found is None:
        return None
    before = text[: len(text) - len(found[0])]
    return Tail(before, found["file"], int(found["line"]), found["logger"])


class Parser:
    """Reads the first lines of records.

    Args:
        prefix: What the engine's ``VLLM_LOGGING_PREFIX`` puts before vLLM's lines.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def parse(self, text: str, now: float) -> Head | None:
        """Return what the frame of ``text`` says, or None if no record starts here.

        Args:
            text: A line, as :func:`clean` leaves it.
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
        if process:
            return head._replace(prefix=prefix, process=process, pid=pid)
        return head._replace(prefix=prefix)


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


def _vllm(rest: str, now: float) -> Head | None:
    found = _VLLM.match(rest)
    if found is None:
        return None
    return Head(
        LEVELS[found["level"]],
        local_ns_without_year(found["day"], found["clock"], int(now // 3600)),
        "vllm",
        rest[found.end() :],
        prefix=found[0],
        file=found["file"],
        line=int(found["line"]),
    )


def _lmcache(rest: str) -> Head | None:
    found = _LMCACHE.match(rest)
    if found is None:
        return None
    at = local_ns(found["day"], found["clock"])
    if at is not None:
        at += int(found["ms"]) * 1_000_000
    text = rest[found.end() :]
    head = Head(LEVELS[found["level"]], at, "lmcache", text, prefix=found[0])
    tail = split_tail(text)
    if tail is None:
        return head._replace(open=True)
    return _with_tail(head, tail)


def _with_tail(head: Head, tail: Tail) -> Head:
    if tail.logger.startswith(_OWN):  # a plugin's line has its process in the place of a line
        return head._replace(text=tail.text, file=tail.file, logger=tail.logger, pid=tail.line)
    return head._replace(text=tail.text, file=tail.file, logger=tail.logger, line=tail.line)


def _uvicorn(rest: str) -> Head | None:
    found = _UVICORN.match(rest)
    if found is None or found.end() != 10:
        return None
    return Head(
        LEVELS[found["level"]],
        None,
        "uvicorn",
        rest[found.end() :],
        prefix=found[0],
        logger="uvicorn",
    )


def _glog(rest: str, now: float) -> Head | None:
    found = _GLOG.match(rest)
    if found is None:
        return None
    day = f"{found['day'][:2]}-{found['day'][2:]}"
    at = local_ns_without_year(day, found["clock"], int(now // 3600))
    if at is not None:
        at += int(found["fraction"].ljust(9, "0"))
    return Head(
        _GLOG_LEVELS[found["level"]],
        at,
        "torch",
        rest[found.end() :],
        prefix=found[0],
        file=found["file"],
        line=int(found["line"]),
    )


def _warning(rest: str) -> Head | None:
    found = _WARNING.match(rest)
    if found is None:
        return None
    return Head(
        Level.WARNING,
        None,
        "warning",
        f"{found['logger']}: {rest[found.end() :]}",
        prefix=found[0],
        file=found["file"],
        line=int(found["line"]),
    )


def _object(rest: str) -> Head | None:
    try:
        said = _json.decode(rest)
    except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError):
        return None
    level = LEVELS.get(said.levelname.upper())
    if level is None:
        return None
    at = None
    day, _, clock = said.asctime.partition(" ")
    second, _, fraction = clock.partition(",")
    if second:
        at = local_ns(day, second)
        if at is not None and fraction.isascii() and fraction.isdigit():
            at += int(fraction[:3].ljust(3, "0")) * 1_000_000
    text = said.message if not said.exc_info else f"{said.message}\n{said.exc_info}"
    values: dict[str, Any] = {"logger": _one_line(said.name)}
    process = said.vllm_process_name or said.processName
    if process:
        values["process"] = _one_line(process)
    if said.process is not None and 0 <= said.process < 2**31:
        values["pid"] = said.process
    return Head(level, at, "json", _many_lines(text), prefix="", **values)


def _one_line(text: str) -> str:
    return clean(text.encode("utf-8", "backslashreplace"))


def _many_lines(text: str) -> str:
    return "\n".join(_one_line(line) for line in text.split("\n"))


@functools.lru_cache(maxsize=256)
def local_ns(day: str, clock: str) -> int | None:
    """Return the nanoseconds since 1970 of a local time (``2026-11-22``, ``07:06:56``)."""
    try:
        moment = datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S")
        return int(moment.timestamp()) * 1_000_000_000
    except (ValueError, OverflowError, OSError):
        return None


@functools.lru_cache(maxsize=256)
def local_ns_without_year(day: str, clock: str, hour: int) -> int | None:
    """Return the nanoseconds since 1970 of the last such local time (``11-22``, ``07:06:56``).

    Args:
        day: Month and day.
        clock: Time of day.
        hour: The current time in hours since 1970. What lies more than a day ahead of it
            belongs to the year before; a leap day to the last leap year.
    """
    try:
        latest = datetime.fromtimestamp(hour * 3600) + timedelta(days=1)
    except (ValueError, OverflowError, OSError):
        return None
    for year in range(latest.year, max(latest.year - 9, 1970), -1):
        try:
            moment = datetime.strptime(f"{year}-{day} {clock}", "%Y-%m-%d %H:%M:%S")
            if moment <= latest:
                return int(moment.timestamp()) * 1_000_000_000
        except (ValueError, OverflowError, OSError):
            continue
    return None
