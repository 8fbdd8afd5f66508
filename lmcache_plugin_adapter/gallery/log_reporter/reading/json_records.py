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
        *("levelno", "module", "funcName", "pathname", "exc_text", "name", "color_message"),
        *("record.elapsed", "record.exception", "record.file", "record.function", "record.level"),
        *("record.module", "record.process", "record.thread", "record.time", "severityNumber"),
    }
)
"""Keys of Python's log records, uvicorn and loguru that other fields repeat, or that mean nothing
elsewhere."""


USUAL: dict[str, tuple[str, ...]] = {
    "message": (
        *("message", "msg", "event", "record.message", "fields.message", "body.stringValue"),
        *("log", "text", "body", "Message", "@m", "@mt"),
    ),
    "level": (
        *("levelname", "level", "severity", "lvl", "loglevel", "log_level", "log.level"),
        *("severity_text", "severityText", "record.level.name", "levelno", "Level", "@l"),
    ),
    "time": (
        *("asctime", "timestamp", "ts", "time", "@timestamp", "datetime", "date"),
        *("record.time.timestamp", "created", "timeUnixNano", "Timestamp", "@t"),
    ),
    "logger": ("name", "logger", "logger_name", "log.logger", "record.name", "target"),
    "exception": (
        *("exc_info", "exception", "traceback", "stack_trace", "stacktrace", "error.stack_trace"),
        *("exc_text", "stack", "Exception", "@x", "record.exception"),
    ),
    "process": (
        *("vllm_process_name", "processName", "process_name", "record.process.name"),
        "process.name",
    ),
    "pid": ("process", "pid", "process_id", "record.process.id", "process.pid"),
    "file": ("filename", "file", "pathname", "record.file.name", "log.origin.file.name"),
    "line": ("lineno", "line", "line_number", "record.line", "log.origin.file.line"),
}
"""The keys that loggers usually write, by field; ``a.b`` is ``b`` in object ``a``."""


class JsonFields(msgspec.Struct, kw_only=True, frozen=True):
    """More keys of records in JSON, which come before the usual ones; `a.b` is `b` in object `a`.

    The first key with a value counts.
    """

    message: list[_Key] = []
    """The text; usual are `message`, `msg`, `event`, `log`, `text`, `body` and others."""
    level: list[_Key] = []
    """The level: a name, or a number of Python's logging or of syslog. Usual are `levelname`,
    `level`, `severity` and others."""
    time: list[_Key] = []
    """The time: a date, or a number of seconds to nanoseconds since 1970. Usual are `asctime`,
    `timestamp`, `ts`, `time` and others."""
    logger: list[_Key] = []
    """The logger's name: `name`, `logger` and others."""
    exception: list[_Key] = []
    """A traceback, which is added to the text: `exc_info`, `exception`, `stack_trace` and
    others."""
    process: list[_Key] = []
    """The process's name: `vllm_process_name`, `processName` and others."""
    pid: list[_Key] = []
    """The process id: `process`, `pid` and others."""
    file: list[_Key] = []
    """The source file: `filename`, `file` and others."""
    line: list[_Key] = []
    """The line in the source file: `lineno`, `line` and others."""

    def keys(self, field: str) -> tuple[str, ...]:
        """Return all keys of a field, in order."""
        return (*getattr(self, field), *USUAL[field])


class JsonRecord(msgspec.Struct):
    """The fields of a record in JSON."""

    text: str
    level: Level | None
    """None: the object has none, and no exception."""
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
        whole = entry.get("text")
        if isinstance(exception, dict) and isinstance(whole, str):  # loguru has it in its text
            exception = whole.rstrip("\n").partition("\n")[2]
        if exception:
            body = f"{body}\n{_many_lines(_text_of(exception))}"
        level = level or Level.ERROR  # python-json-logger writes no level unless it is configured
    fields: dict[str, Any] = {}
    for name in ("logger", "process", "file"):
        value = _first(entry, keys.keys(name), used, str)
        if value:
            fields[name] = _one_line(value)
    for name in ("pid", "line"):
        value = _first(entry, keys.keys(name), used, int)
        if value is not None and not isinstance(value, bool) and 0 <= value < 2**31:
            fields[name] = value
    extra: dict[str, str] = {}
    _add_others(entry, used, extra)
    if extra:
        fields["extra"] = extra
    return JsonRecord(body, level, at, fields)


def _first(
    entry: dict[str, Any], keys: tuple[str, ...], used: set[str], kind: type = object
) -> Any:
    """Return the value of the first key that has one of this kind, and note all keys as used."""
    used.update(keys)
    for key in keys:
        value = _get(entry, key)
        if value not in (None, "") and isinstance(value, kind):
            return value
    return None


def _first_time(entry: dict[str, Any], keys: tuple[str, ...], used: set[str]) -> int | None:
    used.update(keys)
    return next((at for key in keys if (at := any_time_ns(_get(entry, key))) is not None), None)


def _get(entry: dict[str, Any], key: str) -> Any:
    if key in entry:
        return entry[key]
    value: Any = entry
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def _add_others(
    entry: dict[str, Any], used: set[str], extra: dict[str, str], path: str = ""
) -> None:
    """Add the other fields, so that nothing of the record is lost."""
    for key, value in entry.items():
        name = f"{path}{key}"
        if name in _MEANINGLESS or value is None or value == "":
            continue
        if isinstance(value, dict) and any(one.startswith(f"{name}.") for one in used):
            _add_others(value, used, extra, f"{name}.")
        elif name not in used and len(extra) < _MOST_FIELDS:
            extra[_one_line(name)[:100]] = _one_line(_text_of(value))[:_LONGEST_FIELD]


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
