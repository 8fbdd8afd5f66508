# SPDX-License-Identifier: Apache-2.0
"""Follow all files of a target: match patterns, read files in turn, keep records in order."""

from __future__ import annotations

import glob
import os
import time
from collections import deque
from typing import TYPE_CHECKING

from .assembling import Assembler, Bounds
from .following import FollowedPath
from .resuming import looks_rotated, without_date

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .parsing import Parser
    from .records import Record
    from .resuming import Report
    from .tailed_file import FilePosition, TailedFile

_RESCAN = 5.0
"""Seconds between two searches for new files that match a pattern."""

_MOST = 1000
"""The most files that one target follows."""


class FollowedFiles:
    """The records of all followed files.

    Args:
        patterns: Paths, or shell patterns (``**`` matches any directories).
        max_line_bytes: Longer lines are cut.
        parser: Parses the first lines of records.
        bounds: The limits of a record.
        positions: The stored positions of each path; None: this is the first start.
        from_end: Whether to skip the content that exists at the first start.
        report: Called with a sentence and the number of lost bytes.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        max_line_bytes: int,
        parser: Parser,
        bounds: Bounds,
        positions: dict[str, list[FilePosition]] | None,
        *,
        from_end: bool,
        report: Report,
    ) -> None:
        self._patterns = patterns
        self._max_line = max_line_bytes
        self._parser = parser
        self._bounds = bounds
        self._positions = dict(positions or {})
        self._from_end = from_end and positions is None
        self._report = report
        self._paths: dict[str, FollowedPath] = {}
        self._assemblers: dict[TailedFile, Assembler] = {}
        self._ready: deque[Record] = deque()
        self.lines = 0
        """The number of lines read so far."""
        self._turn = 0
        self._rescan = 0.0
        self._full = False

    def close(self) -> None:
        """Close all files."""
        for followed in self._paths.values():
            followed.close()

    def positions(self) -> dict[str, list[FilePosition]]:
        """Return the positions to store."""
        followed = {path: followed.positions() for path, followed in self._paths.items()}
        return {
            **self._positions,
            **{path: positions for path, positions in followed.items() if positions},
        }

    @property
    def unread(self) -> int:
        """The number of unread bytes, as far as known."""
        return sum(followed.unread for followed in self._paths.values())

    def poll(self, now: float) -> None:
        """Search for new files, and check the known ones.

        Args:
            now: A monotonic time, in seconds.
        """
        if now >= self._rescan:
            self._rescan = now + _RESCAN
            self._scan()
        for followed in self._paths.values():
            followed.poll(now)
            if self._from_end:
                for tailed in followed.tailed_files:
                    tailed.skip_to_end()
        self._from_end = False

    def take(self, records: int, size: int, now: float, *, final: bool = False) -> list[Record]:
        """Return the next records, in the order of each file.

        Args:
            records: The most records.
            size: The number of characters after which no more is read.
            now: A monotonic time, in seconds.
            final: Whether to take last lines without a newline, and records that wait for more
                lines.
        """
        paths = list(self._paths.values())
        idle = 0
        read = sum(len(record.text) for record in self._ready)
        while len(self._ready) < records and read < size and idle < len(paths):
            self._turn = (self._turn + 1) % len(paths)
            found = self._read(paths[self._turn], now, final=final)
            idle = idle + 1 if found is None else 0
            read += found or 0
        if idle >= len(paths):
            self._settle(now, final=final)
        return [self._ready.popleft() for _ in range(min(records, len(self._ready)))]

    def _read(self, followed: FollowedPath, now: float, *, final: bool) -> int | None:
        """Read some lines; return their size in bytes, or None if there are none."""
        found = followed.read(now, final=final)
        if found is None:
            return None
        tailed, lines = found
        for earlier in followed.tailed_files[: followed.tailed_files.index(tailed)]:
            if earlier in self._assemblers:
                self._ready.extend(self._assemblers[earlier].flush())
        assembler = self._assemblers.get(tailed)
        if assembler is None:
            assembler = Assembler(tailed, followed.path, self._parser, self._bounds)
            self._assemblers[tailed] = assembler
        self.lines += len(lines)
        now_ns = time.time_ns() - lines[0].end
        assembler.expect(lines, now_ns)
        for line in lines:  # each gets a unique time
            self._ready.extend(assembler.feed(line, now, now_ns + line.end))
        return sum(len(line.raw) for line in lines)

    def _settle(self, now: float, *, final: bool) -> None:
        """Complete the records that get no more lines."""
        for tailed, assembler in list(self._assemblers.items()):
            ended = final or tailed.frozen
            self._ready.extend(assembler.flush() if ended else assembler.due(now))
            if tailed.fd < 0:
                del self._assemblers[tailed]

    def _scan(self) -> None:
        paths = dict.fromkeys([*self._positions, *self._matches()])
        known = {key for followed in self._paths.values() for key in followed.identities()}
        for path in paths:
            if path in self._paths:
                continue
            if len(self._paths) >= _MOST:
                if not self._full:
                    self._full = True
                    self._report(f"more than {_MOST:,} files match; the others are left out", 0)
                return
            positions = self._positions.pop(path, [])
            followed = FollowedPath(path, self._max_line, positions, self._report)
            keys = followed.identities()
            if positions or not keys & known:
                self._paths[path] = followed
                known |= keys
        for path, followed in list(self._paths.items()):
            if path not in paths and followed.is_empty:
                del self._paths[path]

    def _matches(self) -> list[str]:
        """Return the paths to follow: literal paths, then matches of patterns, links last."""
        paths = [pattern for pattern in self._patterns if not glob.has_magic(pattern)]
        found: set[str] = set()
        for pattern in self._patterns:
            if glob.has_magic(pattern):
                found.update(glob.glob(pattern, recursive=True))
        originals = found.union(paths, self._paths, self._positions)
        for path in sorted(found, key=lambda path: (os.path.islink(path), path)):
            original = without_date(path)
            dated = original != path and original in originals
            if not dated and not looks_rotated(path):
                paths.append(path)
        return paths
