# SPDX-License-Identifier: Apache-2.0
"""Keep the last lines of a plugin in memory."""

from __future__ import annotations

from collections import deque

_BLOCK_BYTES = 150
"""Memory that a block of lines takes beside its text."""


class Ring:
    """The last lines of a plugin, within a bound of bytes."""

    __slots__ = ("_blocks", "_size", "limit")

    def __init__(self, limit: int) -> None:
        self._blocks: deque[tuple[float, int, bytes]] = deque()
        self.limit = limit
        self._size = 0

    def add(self, now: float, level: int, text: bytes) -> None:
        """Keep ``text``, lines joined by newlines, and drop the oldest."""
        if len(text) > self.limit:
            text = text[-self.limit :]
            text = text[text.find(b"\n") + 1 :]
        self._blocks.append((now, level, text))
        self._size += len(text) + _BLOCK_BYTES
        while self._size > self.limit and len(self._blocks) > 1:
            self._size -= len(self._blocks.popleft()[2]) + _BLOCK_BYTES

    def clear(self) -> None:
        """Drop all lines."""
        self._blocks.clear()
        self._size = 0

    def copy_from(self, previous: Ring) -> None:
        """Add the lines of another ring."""
        for block in previous._blocks:
            self.add(*block)

    def lines(self) -> list[tuple[float, int, str]]:
        """Return time, level and text of each line, oldest first."""
        return [
            (when, level, line.decode("utf-8", "replace"))
            for when, level, text in self._blocks
            for line in text.split(b"\n")
        ]
