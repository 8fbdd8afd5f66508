# SPDX-License-Identifier: Apache-2.0
"""The types of durations and sizes in settings: numbers, or texts with units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter.configuration.durations import read_duration
from lmcache_plugin_adapter.configuration.sizes import read_size
from lmcache_plugin_adapter.messages.problem import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable

_KEY = "quantity"

Duration = Annotated[float, Meta(extra={_KEY: "duration"})]
"""Seconds: a number of them, or ``30s``, ``5m``, ``1h30m``; never negative.

Another ``Meta`` adds limits: ``Annotated[Duration, Meta(gt=0, le=60)]``.
"""

WholeSeconds = Annotated[int, Meta(extra={_KEY: "duration"})]
"""A duration of whole seconds."""

Size = Annotated[int, Meta(extra={_KEY: "size"})]
"""Bytes: a number of them, or ``64KiB``, ``10MiB``; never negative."""

Amount = Annotated[float, Meta(extra={_KEY: "amount"})]
"""Any number, or a duration or a size with its unit."""

SUCH_AS = ": a number, or text such as "
"""Follows the limits of a quantity in messages."""


def _read_amount(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return read_duration(value)
    except InvalidValueError as refused:
        try:
            return read_size(value)
        except InvalidValueError:
            raise refused from None


_READERS: dict[str, Callable[[object], object]] = {
    "duration": read_duration,
    "size": read_size,
    "amount": _read_amount,
}
_WORDS = {
    "duration": ("a duration", " seconds", "'30s', '5m'"),
    "size": ("a size", " bytes", "'64KiB', '10MiB'"),
    "amount": ("a number", "", "'20GiB', '5m'"),
}


def as_number(value: object, kind: Any) -> object:
    """Return a value as a number if ``kind`` is a quantity; else the value itself.

    Raises:
        InvalidValueError: It is no such quantity; the error's text is a hint.
    """
    quantity = _quantity(msgspec.inspect.type_info(kind))
    if quantity is None:
        return value
    number = _READERS[quantity](value)
    if isinstance(number, (int, float)) and number < 0 and quantity != "amount":
        raise InvalidValueError
    # A type of whole numbers takes no 15.0.
    return int(number) if isinstance(number, float) and number.is_integer() else number


def quantity_words(info: msgspec.inspect.Type, limits: str) -> str | None:
    """Return what a quantity accepts, or None for a plain number.

    Args:
        info: The type.
        limits: Its limits in words, after a space, or nothing.
    """
    quantity = _quantity(info)
    if quantity is None:
        return None
    noun, unit, examples = _WORDS[quantity]
    return f"{noun}{limits}{unit if limits else ''}{SUCH_AS}{examples}"


def _quantity(info: msgspec.inspect.Type) -> str | None:
    if isinstance(info, msgspec.inspect.UnionType):
        found = (_quantity(part) for part in info.types)
        return next((one for one in found if one is not None), None)
    if isinstance(info, msgspec.inspect.Metadata):
        return (info.extra or {}).get(_KEY)
    return None
