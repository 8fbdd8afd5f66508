# SPDX-License-Identifier: Apache-2.0
"""Read a log record that is a JSON object: find message, level, time and others by their keys."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from .line_text import clean
from .local_times import any_time_ns
from .records import Level, level_of

_Key = Annotated[str, Meta(min_length=1)]
_MOST_FIELDS = 32
_LONGEST_FIELD = 1024
"""Characters of a field's value."""

_MEANINGLESS = frozenset(
    {
        *("args", "created", "msecs", "relativeCreated", "threadName", "thread", "taskName"),
        *("levelno", "module", "funcName", "pathname", "stack_info", "exc_text", "name"),
    }
)
"""Attributes of Python's log records that other fields repeat, or that mean nothing elsewhere."""


USUAL: dict[str, tuple[str, ...]] = {
    "message": ("message", "msg", "event", "record.message", "log", "text", "body"),
    "level": (
        *("levelname", "level", "severity", "lvl", "loglevel", "log_level", "log.level"),
        *("severity_text", "record.level.name", "levelno"),
    ),
    "time": (
        *("asctime", "timestamp", "ts", "time", "@timestamp", "datetime", "date"),
        *("record.time.timestamp", "created"),
    ),
    "logger": ("name", "logger", "logger_name", "log.logger", "record.name"),
    "exception": (
        *("exc_info", "exception", "traceback", "stack_trace", "stacktrace", "error.stack_trace"),
        *("exc_text", "stack"),
    ),
    "process": ("vllm_process_name", "processName", "process_name", "record.process.name"),
    "pid": ("process", "pid", "process_id", "record.process.id"),
    "file": ("filename", "file", "pathname", "record.file.name"),
    "line": ("lineno", "line", "record.line"),
}
"""The keys that loggers usually write, by field; ``a.b`` is ``b`` in object ``a``."""


class JsonFields(msgspec.Struct, kw_only=True, frozen=True):
    """More keys of records in JSON, which come before the usual ones.

    The first key with a value counts; `a.b` is `b` in object `a`.
    """

    message: list[_Key] = []
    """Keys of the text, before `message`, `msg`, `event`, `log`, `text`, `body`."""
    level: list[_Key] = []
    """Keys of the level, before `levelname`, `level`, `severity`, `lvl` and others: a name, or a
    number of Python's logging or of syslog."""
    time: list[_Key] = []
    """Keys of the time, before `asctime`, `timestamp`, `ts`, `time`, `@timestamp` and others: a
    date, or a number of seconds to nanoseconds since 1970."""
    logger: list[_Key] = []
    """Keys of the logger's name, before `name`, `logger`, `logger_name`."""
    exception: list[_Key] = []
    """Keys of a traceback, which is added to the text, before `exc_info`, `exception`, `traceback`,
    `stack_trace` and others."""
    process: list[_Key] = []
    """Keys of the process's name, before `vllm_process_name`, `processName`, `process_name`."""
    pid: list[_Key] = []
    """Keys of the process id, before `process`, `pid`, `process_id`."""
    file: list[_Key] = []
    """Keys of the source file, before `filename`, `file`, `pathname`."""
    line: list[_Key] = []
    """Keys of the line in the source file, before `lineno`, `line`."""

    def keys(self, field: str) -> tuple[str, ...]:
        """Return all keys of a field, in order."""
        return (*getattr(self, field), *USUAL[field])


class JsonRecord(msgspec.Struct):
    """What a JSON object says."""

    text: str
    level: Level
    time_ns: int | None
    fields: dict[str, Any]
    """Other fields of a head, by name."""


_decode = msgspec.json.Decoder().decode


def read_json(text: str, keys: JsonFields) -> JsonRecord | None:
    """Return the record in a JSON object; None: the text is no such object."""
    try:
        entry = _decode(text)
    except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    used: set[str] = set()
    message = _first(entry, keys.keys("message"), used)
    level = level_of(_first(entry, keys.keys("level"), used))
    at = _first_time(entry, keys.keys("time"), used)
    if message is None:
        if level is None and at is None:
            return None
        # Not a message that could be found: deliver the object itself.
        return JsonRecord(text, level or Level.INFO, at, {})
    body = _many_lines(_text_of(message))
    exception = _first(entry, keys.keys("exception"), used)
    if exception:
        body = f"{body}\n{_many_lines(_text_of(exception))}"
    if level is None:  # python-json-logger writes no level unless it is configured
        level = Level.ERROR if exception else Level.INFO
    fields: dict[str, Any] = {}
    for name in ("logger", "process", "file"):
        value = _first(entry, keys.keys(name), used)
        if isinstance(value, str) and value:
            fields[name] = _one_line(value)
    for name in ("pid", "line"):
        value = _first(entry, keys.keys(name), used)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
            fields[name] = value
    extra = _extra(entry, used)
    if extra:
        fields["extra"] = extra
    return JsonRecord(body, level, at, fields)


def _first(entry: dict[str, Any], keys: tuple[str, ...], used: set[str]) -> Any:
    """Return the value of the first key that has one, and note all keys as used."""
    value = None
    for key in keys:
        used.add(key.partition(".")[0])
        used.add(key)
        if value in (None, ""):
            value = _get(entry, key)
    return value


def _first_time(entry: dict[str, Any], keys: tuple[str, ...], used: set[str]) -> int | None:
    found = None
    for key in keys:
        used.add(key.partition(".")[0])
        used.add(key)
        if found is None:
            found = any_time_ns(_get(entry, key))
    return found


def _get(entry: dict[str, Any], key: str) -> Any:
    if key in entry:
        return entry[key]
    value: Any = entry
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def _extra(entry: dict[str, Any], used: set[str]) -> dict[str, str]:
    """Return the other fields, so that nothing of the record is lost."""
    extra: dict[str, str] = {}
    for key, value in entry.items():
        if key in used or key in _MEANINGLESS or value is None or value == "":
            continue
        if len(extra) == _MOST_FIELDS:
            break
        extra[_one_line(key)[:100]] = _one_line(_text_of(value))[:_LONGEST_FIELD]
    return extra


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeError, ValueError, RecursionError):
        return repr(value)


def _one_line(text: str) -> str:
    return clean(text.encode("utf-8", "backslashreplace"))


def _many_lines(text: str) -> str:
    return "\n".join(_one_line(line) for line in text.rstrip("\n").split("\n"))
