# SPDX-License-Identifier: Apache-2.0
"""Secrets for the headers of requests: read from files, and checked."""

from __future__ import annotations

import re

from .answer import TargetError

_FILE_BYTES = 65536
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def read_secret(key: str, path: str) -> str:
    """Return the secret in the file that setting ``key`` names, without surrounding white space.

    Raises:
        TargetError: The file is unreadable or empty, or a header must not hold its content.
    """
    try:
        with open(path, "rb") as file:
            secret = file.read(_FILE_BYTES).decode().strip()
    except OSError as error:
        raise TargetError(f"cannot read {key} {path!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TargetError(f"cannot use {key} {path!r}: not text") from None
    if not secret:
        raise TargetError(f"cannot use {key} {path!r}: it is empty")
    if not is_header_text(secret):
        raise TargetError(f"cannot use {key} {path!r}: more than one line, or not ASCII")
    return secret


def is_header(name: str, value: str) -> bool:
    """Tell whether a request may have this header."""
    return _HEADER_NAME.fullmatch(name) is not None and is_header_text(value)


def is_header_text(text: str) -> bool:
    """Tell whether a header may hold this text, without loss at its ends."""
    return text.isascii() and text.isprintable() and text == text.strip()
