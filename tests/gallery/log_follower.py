# SPDX-License-Identifier: Apache-2.0
"""A follower of logs without targets, and what happens to logs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from lmcache_plugin_adapter.gallery.log_reporter.reading.assembling import Bounds
from lmcache_plugin_adapter.gallery.log_reporter.reading.files import FollowedFiles
from lmcache_plugin_adapter.gallery.log_reporter.reading.parsing import Parser
from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Level, Record
from lmcache_plugin_adapter.gallery.log_reporter.reading.tailed_file import FilePosition

BOUNDS = Bounds(65536, 0.0, Level.DEBUG)


class Follower:
    """A follower with a clock of its own, which can be started anew."""

    def __init__(self, *patterns: Path | str, max_line: int = 16384, end: bool = False) -> None:
        self.patterns = [str(pattern) for pattern in patterns]
        self.max_line = max_line
        self.end = end
        self.now = 1000.0
        self.lost: list[tuple[str, int]] = []
        self.state: dict[str, list[FilePosition]] | None = None
        self.files = self.make()

    def make(self) -> FollowedFiles:
        """Begin to follow."""
        return FollowedFiles(
            self.patterns,
            self.max_line,
            Parser(),
            BOUNDS,
            self.state,
            from_end=self.end,
            report=lambda text, lost: self.lost.append((text, lost)),
        )

    def restart(self) -> None:
        """End, and begin again with what was remembered."""
        self.state = self.files.positions()
        self.files.close()
        self.files = self.make()

    def poll(self) -> None:
        """Look at the files, some seconds later."""
        self.now += 10
        self.files.poll(self.now)

    def take(self, count: int = 10**6, *, ack: bool = True, final: bool = False) -> list[Record]:
        """Return what there is to read; acknowledge it."""
        records: list[Record] = []
        for _ in range(6):  # what was rotated is read before what is new
            self.poll()
            records += self.files.take(count - len(records), 10**9, self.now, final=final)
        if ack:
            for record in records:
                assert record.tailed is not None
                record.tailed.acked = record.confirmed
        return records

    def texts(self, **options: Any) -> list[str]:
        """Return the texts of :meth:`take`."""
        return [record.text for record in self.take(**options)]


def append(path: Path, *lines: str) -> None:
    """Append lines, as a logger does."""
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def copytruncate(path: Path, to: Path) -> None:
    """Rotate as logrotate's copytruncate."""
    shutil.copy2(path, to)
    os.truncate(path, 0)
