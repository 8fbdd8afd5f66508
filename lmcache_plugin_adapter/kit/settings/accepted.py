# SPDX-License-Identifier: Apache-2.0
"""Word what a type accepts, for messages: numbers with their limits, choices of words."""

from __future__ import annotations

from typing import Any

import msgspec

from .quantities import quantity_words


def accepted(kind: Any) -> str:
    """Return what a field accepts: ``a whole number from 1 to 10``.

    ``Meta(extra={"accepted": "a colour"})`` replaces the text.

    Args:
        kind: The type of a field of a ``msgspec.Struct``.
    """
    return _words(msgspec.inspect.type_info(kind))


def choices(kind: Any) -> tuple[str, ...]:
    """Return the words that a field of type ``kind`` accepts, if it accepts only some."""
    info = _plain(msgspec.inspect.type_info(kind))
    parts = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    return tuple(word for part in parts for word in _choices(_plain(part)))


def show_number(number: float) -> str:
    """Return a number in plain notation: ``0.5``, ``10``, ``2592000``."""
    return f"{number:.15g}"


def _words(info: msgspec.inspect.Type) -> str:
    if isinstance(info, msgspec.inspect.Metadata) and "accepted" in (info.extra or {}):
        return str((info.extra or {})["accepted"])
    described, info = info, _plain(info)
    found = msgspec.inspect
    if isinstance(info, found.UnionType):
        parts = [part for part in info.types if not isinstance(part, found.NoneType)]
        return " or ".join(dict.fromkeys(_words(part) for part in parts)) or "null"
    if isinstance(info, found.BoolType):
        return "'true' or 'false'"
    if isinstance(info, found.IntType):
        limits = _limits(info)
        return quantity_words(described, limits) or f"a whole number{limits}"
    if isinstance(info, found.FloatType):
        limits = _limits(info)
        return quantity_words(described, limits) or f"a number{limits}"
    if isinstance(info, found.StrType):
        return _text(info)
    if words := _choices(info):
        *first, last = (f"'{word}'" for word in words)
        return f"{', '.join(first)} or {last}" if first else last
    if isinstance(info, found.CollectionType):
        item = (
            "" if isinstance(info.item_type, found.AnyType) else f", each {_words(info.item_type)}"
        )
        return f"a list{item}"
    if isinstance(info, (found.DictType, found.StructType, found.TypedDictType)):
        return "a mapping"
    name = type(info).__name__.removesuffix("Type").lower()
    return {"any": "anything", "none": "null", "datetime": "a date and time (RFC 3339)"}.get(
        name, f"a value of type {name}"
    )


def _plain(info: msgspec.inspect.Type) -> msgspec.inspect.Type:
    while isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    return info


def _choices(info: msgspec.inspect.Type) -> tuple[str, ...]:
    if isinstance(info, msgspec.inspect.LiteralType):
        return tuple(str(value) for value in info.values)
    if isinstance(info, msgspec.inspect.EnumType):
        return tuple(str(member.value) for member in info.cls)
    return ()


def _limits(info: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    if info.ge is not None and info.le is not None:
        text = f" from {show_number(info.ge)} to {show_number(info.le)}"
    else:
        bounds = (
            ("above", info.gt),
            ("of at least", info.ge),
            ("below", info.lt),
            ("of at most", info.le),
        )
        told = [f"{word} {show_number(bound)}" for word, bound in bounds if bound is not None]
        text = f" {' and '.join(told)}".replace(" and of ", " and ") if told else ""
    return text + (
        "" if info.multiple_of is None else f", a multiple of {show_number(info.multiple_of)}"
    )


def _text(info: msgspec.inspect.StrType) -> str:
    if info.pattern:
        return f"text that matches {info.pattern}"
    low, high = info.min_length or 0, info.max_length
    if low > 1 or high is not None:
        return f"text of {low} to {high} characters" if high else f"text of {low} characters"
    return "text that is not empty" if low else "text"
