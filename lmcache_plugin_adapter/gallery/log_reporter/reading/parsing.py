# SPDX-License-Identifier: Apache-2.0
r"""Parse the first lines of records; never raise.

- vLLM: ``(EngineCore_DP0 pid=123) INFO 11-22 07:06:56 [core.py:123] text``; until 0.31 without
  the part in parentheses in the main process. Local time, no year. Earlier versions have no
  ``[`` before the file.
- LMCache, and plugins' lines: ``[2026-11-22 07:06:56,699] LMCache INFO: text (file.py:12:logger)``.
- Records in JSON: see :mod:`.json_records`.
- uvicorn: ``INFO:     127.0.0.1:5000 - "GET /health HTTP/1.1" 200 OK``.
- PyTorch, Gloo and others in glog's format: ``[W1122 07:06:56.123456789 file.cpp:12] text``; newer
  ones write the second since 1970: ``E0000 00:00:1795331216.123456 12 file.cc:12] text``.
- Python's warnings: ``/path/file.py:12: UserWarning: text``.
- Other loggers: see :mod:`.other_loggers`.
"""

from __future__ import annotations

import re
from typing import Any

from .json_records import JsonFields, read_json
from .line_text import Tail, split_process, split_tail
from .local_times import local_ns, local_ns_without_year
from .other_loggers import parse_other
from .records import LEVELS, Head, Level

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
    r"(?:\[rank\d+\]: ?)?\[?(?P<level>[VIWEF])(?P<day>\d{4})? "
    r"(?:(?:(?P<clock>\d\d:\d\d:\d\d)|00:00:(?P<second>\d{9,11}))"
    r"\.(?P<fraction>\d{3,9})(?: +\d+)? )?(?P<file>[^\s:\]]+\.\w{1,4}):(?P<line>\d{1,9})\] ?"
)
_WARNING = re.compile(
    r"(?P<file>(?:/|<)[^:]{1,500}):(?P<line>\d{1,9}): (?P<logger>[A-Za-z_.]{0,80}Warning): "
)

_OWN = "lmcache_plugin_adapter."
"""The beginning of the loggers of plugins' lines."""


class Parser:
    """Parse the first lines of records.

    Args:
        prefix: The engine's ``VLLM_LOGGING_PREFIX``, which begins vLLM's records.
        json_fields: The keys of records in JSON.
    """

    def __init__(self, prefix: str = "", json_fields: JsonFields | None = None) -> None:
        self._prefix = prefix
        self._json = json_fields or JsonFields()

    def parse(self, text: str, now: float) -> Head | None:
        """Return the parsed line, or None if no record starts here.

        Args:
            text: A line from :func:`.line_text.clean`.
            now: Seconds since 1970, for dates without a year.
        """
        rest = text.removeprefix(self._prefix)
        before, process, pid = split_process(rest)
        rest = rest[len(before) :].removeprefix(self._prefix)
        if not rest or rest[0] in " \t":
            return None
        head = self._dispatch(rest, now)
        if head is None:
            return None
        prefix = text[: len(text) - len(rest)] + head.prefix
        found: dict[str, Any] = {"process": process, "pid": pid} if before else {}
        return head._replace(prefix=prefix, **found)

    def parse_object(self, text: str, now: float) -> Head | None:
        """Return the head of a record in JSON that may have several lines, or None."""
        found = read_json(text, self._json)
        if found is None:
            return None
        head = Head(found.level or Level.INFO, found.time_ns, "json", found.text, **found.fields)
        if found.level is None:  # the message may be a line with a level of its own
            inner = self.parse(found.text, now) if found.text[:1] != "{" else None
            if inner is not None:
                return inner._replace(
                    time_ns=inner.time_ns or head.time_ns,
                    logger=inner.logger or head.logger,
                    process=inner.process or head.process,
                    pid=head.pid if inner.pid is None else inner.pid,
                    extra=head.extra,
                    prefix="",
                    open=False,
                )
        return head

    def _dispatch(self, rest: str, now: float) -> Head | None:
        first = rest[0]
        found = None
        if first == "[":
            found = _lmcache(rest) or _glog(rest, now)
        elif first == "{":
            return self.parse_object(rest, now)
        elif first in "/<":
            found = _warning(rest)
        elif first.isupper():
            found = _vllm(rest, now) or _uvicorn(rest) or _glog(rest, now)
        if found is not None:
            return found
        stamped = parse_other(rest)
        if stamped is None or stamped.format != "text" or not stamped.text:
            return stamped
        # A time alone, as `docker logs --timestamps` adds it: the record may follow.
        inner = None if stamped.text[0] in " \t" else self._dispatch(stamped.text, now)
        return (
            stamped
            if inner is None
            else inner._replace(time_ns=stamped.time_ns, prefix=stamped.prefix + inner.prefix)
        )


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
    at = None
    if found["second"]:
        at = int(found["second"]) * 1_000_000_000
    elif found["day"] and found["clock"]:  # older versions of PyTorch write no time
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
