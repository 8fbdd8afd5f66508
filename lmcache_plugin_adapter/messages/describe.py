"""Values found in a configuration, in words for a message: bounded, on one line."""

from __future__ import annotations

from collections.abc import Mapping

_SHOWN = 60  # characters of a value

_TYPE_NAMES: tuple[tuple[type, str], ...] = (
    (type(None), "null"),
    (bool, "a boolean"),
    (int, "a whole number"),
    (float, "a number"),
    (str, "text"),
    (list, "a list"),
    (tuple, "a list"),
    (Mapping, "a mapping"),
)


def show(value: object) -> str:
    """Return a found value as its writer knows it, on one short line.

    Lists and mappings are not shown; they may be endless or hold secrets.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 128:
        return "a very large number"
    if isinstance(value, (str, int, float)):
        text = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
        return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}…"
    return describe_type(value)


def describe_type(value: object) -> str:
    """Say what kind of value was found, without showing it."""
    for kind, name in _TYPE_NAMES:
        if isinstance(value, kind):
            return name
    return f"a value of type {type(value).__name__}"
