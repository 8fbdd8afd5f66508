# SPDX-License-Identifier: Apache-2.0
"""The last lines of several plugins, ordered by time, for a client of the control socket."""

from __future__ import annotations

from _heapq import heapify, heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lmcache_plugin_adapter.supervisor.output.ring import Ring

    Line = tuple[float, str, int, str]
    """Time, plugin, level and text."""


class KeptLines:
    """Read lines from the rings of plugins as fast as a client takes them.

    A slow client costs no memory: only positions are held. Lines that a ring drops before
    they are read are counted.

    Args:
        rings: The name and the ring of each plugin.
        count: How many lines to read, at most: the last ones.
    """

    def __init__(self, rings: Iterable[tuple[str, Ring]], count: int) -> None:
        self._positions = [_Position(name, ring) for name, ring in rings]
        self.missed = 0
        """How many lines were dropped since this was last set to 0."""
        kept = sum(position.left for position in self._positions)
        self.count = min(count, kept)
        """How many lines there are to read."""
        if count < kept:
            self._go_to_last(count)

    def __iter__(self) -> Iterator[Line]:
        queue: list[tuple[float, int]] = []
        positions = self._positions

        def wait(number: int) -> None:
            position = positions[number]
            self.missed += position.catch_up()
            if position.left:
                heappush(queue, (position.ring.block(position.block)[0], number))

        for number in range(len(positions)):
            wait(number)
        while queue:
            _, number = heappop(queue)
            position = positions[number]
            if position.block < position.ring.oldest:
                wait(number)
                continue
            when, level, text, first = position.ring.block(position.block)
            lines = text.split(b"\n")[position.line - first :]
            position.block += 1
            position.line += len(lines)
            for line in lines:
                yield when, position.name, level, line.decode("utf-8", "replace")
            wait(number)

    def _go_to_last(self, count: int) -> None:
        """Go back from the ends of the rings until ``count`` lines follow."""
        for position in self._positions:
            position.line, position.block = position.end, position.ring.block_count
        queue = [
            (-position.time_before, number)
            for number, position in enumerate(self._positions)
            if position.has_before
        ]
        heapify(queue)
        while count:
            _, number = heappop(queue)
            position = self._positions[number]
            count -= position.go_back(count)
            if position.has_before:
                heappush(queue, (-position.time_before, number))


class _Position:
    """Where the reading of one ring is."""

    def __init__(self, name: str, ring: Ring) -> None:
        self.name = name
        self.ring = ring
        self.end = ring.line_count
        """The number of the first line that is not read."""
        self.line = ring.first_line()
        self.block = ring.oldest

    @property
    def left(self) -> int:
        """How many lines are still to be read."""
        return self.end - self.line

    def catch_up(self) -> int:
        """Step over lines that the ring has dropped, and return their number."""
        if self.block >= self.ring.oldest:
            return 0
        was = self.line
        self.block = self.ring.oldest
        self.line = min(self.ring.first_line(), self.end)
        return self.line - was

    @property
    def has_before(self) -> bool:
        """Whether the ring keeps a block before this position."""
        return self.block > self.ring.oldest

    @property
    def time_before(self) -> float:
        """The time of the block before this position."""
        return self.ring.block(self.block - 1)[0]

    def go_back(self, most: int) -> int:
        """Go back over one block, by ``most`` lines at most; return by how many."""
        self.block -= 1
        first = self.ring.block(self.block)[3]
        lines = min(self.line - first, most)
        self.line -= lines
        return lines
