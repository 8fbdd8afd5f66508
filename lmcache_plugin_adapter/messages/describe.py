# SPDX-License-Identifier: Apache-2.0
"""Wording of values found in a configuration: bounded, on one line."""

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
    """Return a value as its author wrote it, on one short line.

    The content of lists and mappings is not shown: it may be long or secret.
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
    """Return the kind of a value in words, without the value."""
    for kind, name in _TYPE_NAMES:
        if isinstance(value, kind):
            return name
    return f"a value of type {type(value).__name__}"
