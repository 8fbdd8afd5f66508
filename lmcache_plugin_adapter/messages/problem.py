"""One thing that is wrong, said in one line, while the rest goes on."""

from __future__ import annotations

from lmcache_plugin_adapter.contract.frozen import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Level = Literal["error", "warning", "note"]


@frozen
class Problem:
    """Something found wrong that does not stop the rest.

    Attributes:
        level: ``error`` (something asked for cannot be done), ``warning`` (it
            is probably not what was meant) or ``note`` (worth knowing).
        text: One line without level or newline: what is wrong, what follows
            from it and how to mend it.
    """

    level: Level
    text: str


def quoted(text: str) -> str:
    r"""Put a name into single quotes so that it stays on one line and shows what it is made of.

    Args:
        text: A file name, a word of a setting, anything that was not written
            here. Bytes that are not UTF-8 are expected as surrogates, as
            :func:`os.fsdecode` makes them.

    Returns:
        The quoted text; control characters and undecodable bytes are escaped
        (``\n``, ``\x1b``, ``\xff``), a quote or a backslash is left as it is.
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


class RefusedError(ValueError):
    """A value is not accepted; the text, if any, says more than the table does."""
