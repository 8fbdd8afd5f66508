# SPDX-License-Identifier: Apache-2.0
"""Arguments and environment variables as text that the kernel passes to a program."""

from __future__ import annotations

import os

from lmcache_plugin_adapter.contract.variables import OLDER, OWN
from lmcache_plugin_adapter.messages.problem import InvalidValueError

EXEC_STRING_LIMIT = 131_072
"""The kernel's limit in bytes for one argument or one ``NAME=value``, the NUL included
(``MAX_ARG_STRLEN`` with pages of 4 KiB; larger pages allow more)."""


def exec_text(value: object) -> str:
    """Return ``value`` as text that the kernel passes to a program.

    Whole numbers are accepted, since they are often written without quotes. Other
    numbers and booleans are not: YAML has lost their spelling (``1.10``, ``yes``).

    Raises:
        InvalidValueError: The value is neither text nor a whole number, or the
            kernel cannot pass it.
    """
    if isinstance(value, (bool, float)):
        raise InvalidValueError("put it in quotes")
    if not isinstance(value, (str, int)):
        raise InvalidValueError
    try:
        text = str(value)
        size = len(os.fsencode(text)) + 1
    except ValueError:  # lone surrogates; a number of thousands of digits
        raise InvalidValueError("it cannot be encoded") from None
    if "\0" in text:
        raise InvalidValueError("it contains a NUL character")
    if size > EXEC_STRING_LIMIT:
        raise InvalidValueError(f"it has {size} bytes, the kernel takes {EXEC_STRING_LIMIT}")
    return text


def exec_variable(name: object, value: object) -> str:
    """Return the value of the variable ``name`` as text that the kernel passes on.

    Raises:
        InvalidValueError: The kernel cannot pass name or value, or the name is reserved.
    """
    if not isinstance(name, str) or not name or "=" in name or "\0" in name:
        raise InvalidValueError("a name is text without '=' and NUL")
    if name.startswith((OWN, OLDER)):
        raise InvalidValueError("names that begin like this tell the plugin who it is")
    text = exec_text(value)
    exec_text(f"{name}={text}")
    return text
