# SPDX-License-Identifier: Apache-2.0
r"""Turn the bytes that a plugin writes into clean lines, in bounded memory.

Lines come out in blocks, so that a burst of ordinary lines costs a few passes
in C over the whole chunk instead of Python code for each line.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NamedTuple

    class Block(NamedTuple):
        """Clean lines of one level, joined by newlines, without a final one."""

        level: int
        text: bytes
        lines: int
else:
    from collections import namedtuple

    Block = namedtuple("Block", "level text lines")

INFO = 6
"""The level of a line without a level mark, as a syslog number (0 emergency, 7 debug)."""

# Bytes of a clean line: TAB, printable ASCII, and UTF-8's upper half.
_CLEAN = bytes([9, 10, *range(32, 127), *range(128, 256)])

# C1 controls, line separators and bidirectional overrides begin with these.
_SUSPECT = (b"\xc2", b"\xe2\x80", b"\xe2\x81")

_SEQUENCE = b"\x1b["
_NUMBERS = b"0123456789;:"

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), 127)}
_ESCAPES.update(
    {
        code: f"\\u{code:04x}"
        for code in (
            *range(0x80, 0xA0),
            0x2028,
            0x2029,
            *range(0x202A, 0x202F),
            *range(0x2066, 0x206A),
        )
    }
)

_NOTHING = b"", 0
"""The text of a line that has erased it, and its bytes cut."""

_AHEAD = 4
"""Bytes kept beyond the limit, so that the cut can find the end of a character."""


def sanitize(raw: bytes) -> bytes:
    r"""Return ``raw`` as valid UTF-8 without control characters except TAB.

    Control characters become ``\xNN``, bytes that are not UTF-8 likewise; C1
    controls, line separators and bidirectional overrides become ``\uNNNN``.
    """
    return raw.decode("utf-8", "backslashreplace").translate(_ESCAPES).encode()


def without_colours(raw: bytes) -> bytes:
    r"""Return ``raw`` without colour sequences (SGR: ``ESC [``, numbers, ``m``).

    Other escape sequences stay, to be escaped: they move the cursor or clear the screen.
    """
    parts = raw.split(_SEQUENCE)
    for place, part in enumerate(parts[1:], 1):
        rest = part.lstrip(_NUMBERS)
        parts[place] = rest[1:] if rest[:1] == b"m" else _SEQUENCE + part
    return b"".join(parts)


def _is_clean(block: bytes) -> bool:
    if block.translate(None, _CLEAN):
        return False
    if block.isascii():
        return True
    if any(mark in block for mark in _SUSPECT):
        return False
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fit(raw: bytes, limit: int) -> tuple[bytes, int]:
    """Return the longest clean beginning of ``raw`` that fits ``limit``, and the bytes used."""
    used = min(len(raw), limit)
    while True:
        if used < len(raw):
            # Never end inside a UTF-8 character (at most three bytes follow its first).
            back = used
            while back > 0 and used - back < 3 and raw[back] & 0xC0 == 0x80:
                back -= 1
            if raw[back] & 0xC0 == 0xC0:
                used = back
        text = sanitize(raw[:used])
        if len(text) <= limit:
            return text, used
        used = min(used - 1, used * limit // len(text))


class LineFramer:
    """Cut a stream of bytes into clean lines of at most ``max_line_bytes``.

    A longer line keeps its beginning and ends in a mark with the number of bytes
    cut. A carriage return replaces what stood before it, as on a terminal. Memory is
    bounded by ``max_line_bytes`` and the chunk being fed.
    """

    __slots__ = ("_cut", "_held", "_limit", "_replaced", "_shown")

    def __init__(self, max_line_bytes: int) -> None:
        self._limit = max_line_bytes
        self._held = b""
        self._cut = 0
        self._replaced: tuple[bytes, int] | None = None
        """The last text before a carriage return of the unfinished line, and its bytes cut."""
        self._shown: tuple[bytes, int] | None = None
        """The part of the unfinished line that :meth:`progress` has returned."""

    def feed(self, chunk: bytes) -> list[Block]:
        """Add ``chunk`` and return the lines that it completes."""
        first = chunk.find(b"\n")
        if first < 0:
            self._hold(chunk)
            return []
        blocks: list[Block] = []
        start = 0
        if self._is_unfinished:
            self._hold(chunk[:first])
            blocks += self._release()
            start = first + 1
        last = chunk.rfind(b"\n")
        if last >= start:
            blocks += self._frame(chunk[start:last])
        if last + 1 < len(chunk):
            self._hold(chunk[last + 1 :])
        return blocks

    def flush(self) -> list[Block]:
        """Return the unfinished last line, if there is one."""
        return self._release() if self._is_unfinished else []

    @property
    def has_progress(self) -> bool:
        """Whether the unfinished line has replaced its text, such as a progress bar."""
        return self._replaced is not None and self._current not in (self._shown, _NOTHING)

    def progress(self) -> list[Block]:
        """Return the present text of an unfinished line that has replaced its text."""
        if not self.has_progress:
            return []
        self._shown = self._current
        return [self._one(*self._current)]

    @property
    def _is_unfinished(self) -> bool:
        return bool(self._held) or self._cut > 0 or self._replaced is not None

    @property
    def _current(self) -> tuple[bytes, int]:
        """The text of the unfinished line, and its bytes cut."""
        if self._replaced is not None and not self._held.strip():
            return self._replaced  # erased, or a newline is about to follow
        return self._held, self._cut

    def _hold(self, part: bytes) -> None:
        if b"\r" not in part:
            self._append(part)
            return
        first, *between, last = part.split(b"\r")
        self._append(first)
        if self._held.strip():
            self._replaced = self._held, self._cut
        elif self._replaced is None:
            self._replaced = _NOTHING
        for text in reversed(between):
            kept = text[: self._limit + _AHEAD]
            if kept.strip():
                self._replaced = kept, len(text) - len(kept)
                break
        self._held, self._cut = b"", 0
        self._append(last)

    def _append(self, part: bytes) -> None:
        room = self._limit + _AHEAD - len(self._held)
        self._held += part[:room]
        over = len(part) - room
        if over > 0:
            self._cut += over

    def _release(self) -> list[Block]:
        current, shown = self._current, self._shown
        self._held, self._cut = b"", 0
        self._replaced = self._shown = None
        return [] if current == shown else [self._one(*current)]

    def _frame(self, body: bytes) -> Iterator[Block]:
        lines = body.split(b"\n")
        if (
            b"\n<" not in body
            and body[:1] != b"<"
            and _is_clean(body)
            and len(max(lines, key=len)) <= self._limit
        ):
            yield Block(INFO, body, len(lines))
            return
        level = INFO
        group: list[bytes] = []
        for raw in lines:
            block = self._one(raw, 0)
            if group and block.level != level:
                yield Block(level, b"\n".join(group), len(group))
                group = []
            level = block.level
            group.append(block.text)
        yield Block(level, b"\n".join(group), len(group))

    def _one(self, raw: bytes, cut: int) -> Block:
        level = INFO
        if b"\r" in raw:
            texts = reversed(raw.split(b"\r"))
            raw = next((text for text in texts if text[: self._limit + _AHEAD].strip()), b"")
        if _SEQUENCE in raw:
            raw = without_colours(raw)
        if raw[:1] == b"<" and raw[2:3] == b">" and raw[1:2] in b"01234567":
            level = raw[1] - 48
            raw = raw[3:]
        text, used = _fit(raw, self._limit)
        cut += len(raw) - used
        if cut:
            text += b" [cut: %s more bytes]" % f"{cut:,}".encode()
        return Block(level, text, 1)


CUT_MARK_BYTES = 48
"""Bytes that the mark of a cut line needs beside ``max_line_bytes``."""
