# SPDX-License-Identifier: Apache-2.0
"""Read a section into a ``msgspec.Struct``; leave out and report invalid values."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter.kit.printing import ERROR, WARNING
from lmcache_plugin_adapter.messages.describe import describe_type, show
from lmcache_plugin_adapter.messages.near_miss import did_you_mean
from lmcache_plugin_adapter.messages.problem import InvalidValueError

from .accepted import accepted, choices, show_number
from .quantities import as_number

S = TypeVar("S", bound=msgspec.Struct)

_SECRET = ("password", "token", "secret", "credential", "authorization", "api_key", "headers")
"""A key that contains one of these may hold a secret."""

_NO_EFFECT = "it has no effect"
_CANNOT_WORK = "the plugin cannot work without it"


class _RefusedError(Exception):
    """A value cannot be used; the reason has been reported."""


class Reader:
    """Read one section; collect the problems as pairs of a level and a line."""

    def __init__(self) -> None:
        self.problems: list[tuple[int, str]] = []

    def section(self, where: str, found: Mapping[Any, object], kind: type[S]) -> S | None:
        """Return the section as ``kind``, or None if a required value is missing or invalid.

        Args:
            where: The full key of the section.
            found: The content of the section.
            kind: The class to read it into.
        """
        try:
            return self._struct(where, found, kind, _CANNOT_WORK)
        except _RefusedError:
            return None

    def _struct(self, where: str, found: Mapping[Any, object], kind: type[S], in_force: str) -> S:
        """Make a struct of a mapping; check every field even if others are invalid."""
        without = (
            in_force if in_force is _CANNOT_WORK else f"'{where.rpartition('.')[2]}' has no effect"
        )
        values: dict[str, object] = {}
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        self._unknown(where, found, [*fields, kind.__struct_config__.tag_field])
        refused = False
        for key, field in fields.items():
            full = f"{where}.{key}"
            value = found.get(key)
            if value is None:  # a key without a value counts as missing
                if field.required:
                    refused = True
                    text = f"Missing setting '{full}': accepted is {accepted(field.type)}"
                    self._report(ERROR, f"{text}; {without}")
                continue
            otherwise = without if field.required else _in_force(field, full)
            try:
                values[field.name] = self._value(full, value, field.type, otherwise)
            except _RefusedError:
                refused = refused or field.required
        if refused:
            raise _RefusedError
        try:
            return kind(**values)
        except (ValueError, TypeError) as error:  # of its __post_init__
            self._report(ERROR, f"Cannot use setting '{where}': {error}; {in_force}")
            raise _RefusedError from None

    def _value(self, where: str, value: object, kind: Any, in_force: str) -> object:
        """Return ``value`` as ``kind``; of lists and mappings, the usable items."""
        plain, limits = _stripped(kind)
        origin, inside = get_origin(plain), get_args(plain)
        if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
            if isinstance(value, Mapping):
                return self._struct(where, value, plain, in_force)
        elif origin is list and isinstance(value, (list, tuple)):
            items = list(self._items(where, value, inside[0]))
            return self._sized(where, items, limits, in_force)
        elif origin is dict and isinstance(value, Mapping):
            pairs = dict(self._pairs(where, value, *inside))
            return self._sized(where, pairs, limits, in_force)
        try:
            found = msgspec.convert(as_number(value, kind), kind)
            _check_finite(found)
        except (msgspec.ValidationError, InvalidValueError) as error:
            self._refuse(where, value, kind, error, in_force)
            raise _RefusedError from None
        return found

    def _items(
        self, where: str, found: list[object] | tuple[object, ...], kind: Any
    ) -> Iterator[object]:
        for index, item in enumerate(found):
            try:
                yield self._value(f"{where}[{index}]", item, kind, _NO_EFFECT)
            except _RefusedError:
                continue

    def _pairs(
        self, where: str, found: Mapping[Any, object], names: Any, kind: Any
    ) -> Iterator[tuple[Any, object]]:
        for key, item in found.items():
            full = f"{where}.{_key_text(key)}"
            try:
                name = msgspec.convert(key, names)
            except msgspec.ValidationError:
                text = f"Cannot use setting '{full}': accepted as its name is {accepted(names)}"
                self._report(ERROR, f"{text}; {_NO_EFFECT}")
                continue
            try:
                yield name, self._value(full, item, kind, _NO_EFFECT)
            except _RefusedError:
                continue

    def _sized(
        self, where: str, value: list[Any] | dict[Any, Any], limits: Any, in_force: str
    ) -> object:
        """Return ``value`` if its length is within the limits."""
        low = max((limit.min_length or 0 for limit in limits if isinstance(limit, Meta)), default=0)
        highs = [limit.max_length for limit in limits if isinstance(limit, Meta)]
        high = min((high for high in highs if high is not None), default=None)
        if low <= len(value) and (high is None or len(value) <= high):
            return value
        bounds = f"at least {low}" if high is None else f"{low} to {high}"
        text = f"found {len(value)} that can be used, accepted are {bounds}"
        self._report(ERROR, f"Cannot use setting '{where}': {text}; {in_force}")
        raise _RefusedError

    def _refuse(
        self, where: str, value: object, kind: Any, error: Exception, in_force: str
    ) -> None:
        words = accepted(kind)
        # Text instead of a mapping may be the value of one of its keys, possibly a secret.
        stray = isinstance(value, str) and "a mapping" in words
        hidden = stray or _is_secret(where, value, kind)
        hint = "" if hidden else _hint(value, words, choices(kind))
        if isinstance(error, InvalidValueError):  # its text is the hint
            hint = f" ({error})" if str(error) else ""
        if words.startswith("a value of type"):
            hint = hint or f" ({_reason(error)})"
        found = describe_type(value) if hidden else show(value)
        text = f"Cannot use setting '{where}': found {found}, accepted is {words}{hint}"
        self._report(ERROR, f"{text}; {in_force}")

    def _unknown(self, where: str, found: Mapping[Any, object], known: list[str | None]) -> None:
        names = [name for name in known if name is not None]
        for key in found:
            if key in names:
                continue
            advice = did_you_mean(key, names) or f"known are {', '.join(names)}"
            full = f"{where}.{_key_text(key)}"
            self._report(WARNING, f"Unknown setting '{full}' has no effect: {advice}")

    def _report(self, level: int, text: str) -> None:
        self.problems.append((level, " ".join(text.splitlines())))


def _stripped(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return ``X`` of ``X | None`` and of ``Annotated[X, ...]``, with the annotations."""
    notes: tuple[Any, ...] = ()
    while True:
        origin, inside = get_origin(kind), get_args(kind)
        if origin is Annotated:
            kind, notes = inside[0], (*notes, *inside[1:])
        elif origin in (Union, types.UnionType) and len(set(inside) - {type(None)}) == 1:
            (kind,) = set(inside) - {type(None)}
        else:
            return kind, notes


def _check_finite(value: object) -> None:
    """Refuse infinity, and what is no number to any limit (``.nan`` in YAML)."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidValueError


def _key_text(key: object) -> str:
    return key if isinstance(key, str) and key.isprintable() and len(key) <= 100 else show(key)


def _in_force(field: msgspec.structs.FieldInfo, where: str) -> str:
    default = field.default
    if isinstance(default, (bool, int, float, str)) and not _is_secret(where, default, field.type):
        text = show_number(default) if isinstance(default, float) else show(default)
        return f"{text} stays in force"
    return _NO_EFFECT


def _is_secret(where: str, value: object, kind: Any) -> bool:
    """Return whether a value must not be shown.

    An address may have a password before its ``@``, or a key after its ``?``.
    """
    info = msgspec.inspect.type_info(kind)
    extra = info.extra if isinstance(info, msgspec.inspect.Metadata) else None
    if extra and extra.get("secret"):
        return True
    own = where.lower().rpartition(".settings.")[2]
    return any(word in own for word in _SECRET) or (
        isinstance(value, str) and ("@" in value or "?" in value)
    )


def _hint(value: object, words: str, known: tuple[str, ...]) -> str:
    if isinstance(value, str):
        if hint := did_you_mean(value, known):
            return f" ({hint})"
        looks = value.strip().lstrip("+-").replace(".", "", 1)
        if "number" in words and looks.isdigit():
            return " (write it without quotes)"
        if "'true'" in words and value.strip().lower() in ("true", "false"):
            return " (write it without quotes)"
    elif words.startswith("text") and isinstance(value, (bool, int, float)):
        return " (put it in quotes)"
    return ""


def _reason(error: Exception) -> str:
    """Return msgspec's reason, to follow a parenthesis."""
    text = str(error).partition(" - at `")[0].replace("`", "'")
    return text[:1].lower() + text[1:]
