# SPDX-License-Identifier: Apache-2.0
"""A problem that does not stop the rest, and how to quote names in its text."""

from __future__ import annotations

from lmcache_plugin_adapter.contract.frozen import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Level = Literal["error", "warning", "note"]


@frozen
class Problem:
    """A problem that does not stop the rest.

    Attributes:
        level: ``error`` (a request cannot be carried out), ``warning`` (a
            probable mistake) or ``note`` (worth knowing).
        text: One line without level or newline: what is wrong, what happens
            next and how to repair it.
    """

    level: Level
    text: str


def quoted(text: str) -> str:
    r"""Quote a name so that it is printable and stays on one line.

    Args:
        text: A file name or other foreign text. Undecodable bytes are surrogates,
            as :func:`os.fsdecode` returns them.

    Returns:
        The text in single quotes. Control characters and undecodable bytes are
        escaped (``\n``, ``\x1b``, ``\xff``), quotes and backslashes are not.
    """
    if text.isprintable():
        return f"'{text}'"
    return f"'{''.join(map(_visible, text))}'"


def _visible(character: str) -> str:
    code = ord(character)
    if character.isprintable():
        return character
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


class InvalidValueError(ValueError):
    """A value is not accepted; the text, if any, is a hint beside the accepted values."""
