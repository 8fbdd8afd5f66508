# SPDX-License-Identifier: Apache-2.0
"""Keep the last lines of a plugin in memory."""

from __future__ import annotations

from collections import deque

_BLOCK_BYTES = 150
"""Memory that a block of lines takes beside its text."""

_EMPTY: deque[tuple[float, int, bytes, int]] = deque()
"""Of each plugin without lines, as an empty one takes 0.7 kB."""


class Ring:
    """The last lines of a plugin, within a bound of bytes.

    Blocks and lines are numbered from 0 on, dropped ones included.
    """

    __slots__ = ("_blocks", "_size", "block_count", "limit", "line_count")

    def __init__(self, limit: int) -> None:
        self._blocks = _EMPTY
        self.limit = limit
        self._size = 0
        self.block_count = 0
        self.line_count = 0

    def add(self, now: float, level: int, text: bytes) -> None:
        """Keep ``text``, lines joined by newlines, and drop the oldest."""
        if len(text) > self.limit:
            text = text[-self.limit :]
            text = text[text.find(b"\n") + 1 :]
        if self._blocks is _EMPTY:
            self._blocks = deque()
        self._blocks.append((now, level, text, self.line_count))
        self.block_count += 1
        self.line_count += text.count(b"\n") + 1
        self._size += len(text) + _BLOCK_BYTES
        while self._size > self.limit and len(self._blocks) > 1:
            self._size -= len(self._blocks.popleft()[2]) + _BLOCK_BYTES

    def clear(self) -> None:
        """Drop all lines."""
        self._blocks = _EMPTY
        self._size = 0

    def copy_from(self, previous: Ring) -> None:
        """Add the lines of another ring."""
        for when, level, text, _ in previous._blocks:
            self.add(when, level, text)

    @property
    def oldest(self) -> int:
        """The number of the oldest block that is kept."""
        return self.block_count - len(self._blocks)

    def block(self, number: int) -> tuple[float, int, bytes, int]:
        """Return time, level and text of a kept block, and the number of its first line."""
        return self._blocks[number - self.oldest]

    def first_line(self) -> int:
        """Return the number of the oldest line that is kept."""
        return self._blocks[0][3] if self._blocks else self.line_count

    def last_lines(self, count: int) -> list[str]:
        """Return the text of the last lines, oldest first."""
        found: list[bytes] = []
        for _, _, text, _ in reversed(self._blocks):
            if len(found) >= count:
                break
            found[:0] = text.split(b"\n")
        return [line.decode("utf-8", "replace") for line in found[-count:]] if count else []
