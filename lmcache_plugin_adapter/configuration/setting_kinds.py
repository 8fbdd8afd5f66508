# SPDX-License-Identifier: Apache-2.0
"""The kinds of settings: how a found value becomes the value in force, or is refused."""

from __future__ import annotations

from collections.abc import Mapping

from lmcache_plugin_adapter.contract.frozen import frozen, replaced
from lmcache_plugin_adapter.messages.describe import show
from lmcache_plugin_adapter.messages.near_miss import did_you_mean
from lmcache_plugin_adapter.messages.problem import InvalidValueError

from .durations import DURATION_PATTERN, read_duration
from .exec_limits import exec_text
from .locations import LocationError, expand
from .sizes import SIZE_PATTERN, read_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    _Environ = Mapping[str, str]


@frozen
class Setting:
    """One row of the table of settings.

    Attributes:
        key: Dotted, below ``extra_config.runtime_plugins``.
        kind: The type in one word.
        default: The value in force without the key.
        accepted: The accepted values in words (Markdown).
        meaning: The effect, in sentences (Markdown).
        read: Returns the value in force for a found value and the environment,
            or raises :class:`InvalidValueError`. For a key with keys below it,
            ``read`` takes what may replace the mapping, and returns values by key.
        per_plugin: The key may also be set under ``plugins.NAME``.
        secret: Messages never show the value.
        schema: The accepted values as JSON Schema. For a key with keys below it, what may replace
            the mapping.
    """

    key: str
    kind: str
    default: Any
    accepted: str
    meaning: str
    read: Callable[[object, _Environ], Any]
    per_plugin: bool = False
    secret: bool = False
    schema: Mapping[str, Any] | None = None


def flag(key: str, default: bool, meaning: str, *, per_plugin: bool = False) -> Setting:
    """Return the row of a boolean."""

    def read(value: object, _environ: _Environ) -> bool:
        if isinstance(value, bool):
            return value
        raise InvalidValueError

    schema = {"type": "boolean"}
    accepted = "`true` or `false`"
    return Setting(key, "boolean", default, accepted, meaning, read, per_plugin, schema=schema)


def word(
    key: str, default: str, choices: tuple[str, ...], meaning: str, *, per_plugin: bool = True
) -> Setting:
    """Return the row of a choice between words."""

    def read(value: object, _environ: _Environ) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise InvalidValueError(did_you_mean(value, choices))

    *first, last = (f"`{choice}`" for choice in choices)
    accepted = f"{', '.join(first)} or {last}"
    schema = {"enum": list(choices)}
    return Setting(key, "word", default, accepted, meaning, read, per_plugin, schema=schema)


def seconds(key: str, default: float | None, low: float, high: float, meaning: str) -> Setting:
    """Return the row of a duration."""
    accepted = f"a duration from {low:g} to {high:g} seconds: a number, or text such as `30s`, `5m`"
    number = {"type": "number", "minimum": low, "maximum": high}
    text = {"type": "string", "pattern": DURATION_PATTERN}
    read = _between(read_duration, low, high)
    schema = {"anyOf": [number, text]}
    return Setting(key, "duration", default, accepted, meaning, read, True, schema=schema)


def size(key: str, default: int | None, low: int, high: int, meaning: str) -> Setting:
    """Return the row of a size."""
    accepted = f"a size from {low} to {high} bytes: a number, or text such as `64KiB`, `10MiB`"
    number = {"type": "integer", "minimum": low, "maximum": high}
    text = {"type": "string", "pattern": SIZE_PATTERN}
    read = _between(read_size, low, high)
    schema = {"anyOf": [number, text]}
    return Setting(key, "size", default, accepted, meaning, read, True, schema=schema)


def _between(
    parse: Callable[[object], float], low: float, high: float
) -> Callable[[object, _Environ], float]:
    """Return a reader of values that ``parse`` accepts, within bounds."""

    def read(value: object, _environ: _Environ) -> float:
        found = parse(value)
        if low <= found <= high:
            return found
        raise InvalidValueError

    return read


def account(key: str, default_text: str, what: str, meaning: str) -> Setting:
    """Return the row of a user or a group."""

    def read(value: object, _environ: _Environ) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return str(value)
        if isinstance(value, str) and value and "\0" not in value:
            return value
        raise InvalidValueError

    accepted = f"the name or number of a {what}; without the key, {default_text}"
    schema = {"type": ["string", "integer"], "minLength": 1, "minimum": 0}
    return Setting(key, what, None, accepted, meaning, read, True, schema=schema)


def patterns(value: object, _environ: _Environ) -> tuple[str, ...]:
    """Return patterns of names."""
    if isinstance(value, str):
        raise InvalidValueError(f"write [{value!r}]")
    if not isinstance(value, (list, tuple)):
        raise InvalidValueError
    for index, item in enumerate(value):
        if not isinstance(item, str) or not item:
            raise InvalidValueError(f"item {index} is {show(item)}")
    return tuple(value)


def optional_flag(key: str, meaning: str) -> Setting:
    """Return the row of a boolean whose default depends on other settings."""
    row = flag(key, False, meaning)
    return replaced(row, default=None, per_plugin=True)


def seconds_or_off(key: str, low: float, high: float, meaning: str) -> Setting:
    """Return the row of a duration without which something does not happen, the default."""
    row = seconds(key, None, low, high, meaning)

    def read(value: object, environ: _Environ) -> float | None:
        # YAML reads a bare off as false.
        return None if value is False or value == "off" else row.read(value, environ)

    accepted = f"{row.accepted}; or `off`"
    schema = {"anyOf": [*(row.schema or {})["anyOf"], {"enum": [False, "off"]}]}
    return Setting(key, row.kind, None, accepted, meaning, read, per_plugin=True, schema=schema)


def count(key: str, unit: str, default: int | None, low: int, high: int, meaning: str) -> Setting:
    """Return the row of a whole number."""

    def read(value: object, _environ: _Environ) -> int:
        # True is a number to Python only.
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        hint = isinstance(value, str) and value.isdigit()
        raise InvalidValueError("write it without quotes" if hint else "")

    of_unit = f"of {unit} " if unit else ""
    accepted = f"a whole number {of_unit}from {low} to {high}"
    schema = {"type": "integer", "minimum": low, "maximum": high}
    kind = unit or "number"
    return Setting(key, kind, default, accepted, meaning, read, per_plugin=True, schema=schema)


def mapping_only(_value: object, _environ: _Environ) -> dict[str, Any]:
    """Refuse what stands in place of a mapping; the reader reads mappings key by key."""
    raise InvalidValueError


def own_settings(value: object, _environ: _Environ) -> object:
    """Return a plugin's own settings, unchecked."""
    if not isinstance(value, Mapping):
        raise InvalidValueError
    return value


def no_text_file(value: object, _environ: _Environ) -> dict[str, Any]:
    """Return the values that ``metrics: true`` or ``metrics: false`` stands for."""
    if isinstance(value, bool):
        return {"metrics": value, "metrics.textfile": None}
    raise InvalidValueError


def off(value: object, _environ: _Environ) -> dict[str, Any]:
    """Return the values that ``rate_limit: off`` stands for."""
    if value is False or value == "off":  # YAML reads a bare off as false
        return {"rate_limit": False}
    raise InvalidValueError(did_you_mean(value, ("off",)))


_LOG_WORDS = ("stderr", "logging")
DIRECTORY_SCHEMA = {"type": "string", "pattern": "/|^[~$]"}


def word_or_directory(value: object, environ: _Environ) -> dict[str, Any]:
    """Return the values that ``log: WORD`` or ``log: DIRECTORY`` stands for."""
    if value in _LOG_WORDS:
        return {"log": value, "log.directory": None}
    return {"log.directory": _directory(value, environ, _LOG_WORDS)}


def directory(value: object, environ: _Environ) -> str:
    """Return a directory, expanded."""
    return _directory(value, environ, ())


def _directory(value: object, environ: _Environ, words: tuple[str, ...]) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise InvalidValueError
    # A bare word is more likely a keyword that does not exist than a directory.
    if "/" not in value and not value.startswith(("~", "$")):
        raise InvalidValueError(did_you_mean(value, words))
    try:
        return expand(value, environ)
    except LocationError as error:
        raise InvalidValueError(str(error)) from None


def arguments(value: object, _environ: _Environ) -> tuple[str, ...]:
    """Return the arguments of a plugin as text."""
    if not isinstance(value, (list, tuple)):
        raise InvalidValueError("write ['--verbose'], one item for each argument")
    return tuple(_argument(index, item) for index, item in enumerate(value))


def _argument(index: int, item: object) -> str:
    try:
        return exec_text(item)
    except InvalidValueError as refused:
        reason = str(refused) or "it is neither text nor a whole number"
        raise InvalidValueError(f"item {index}: {reason}") from None
