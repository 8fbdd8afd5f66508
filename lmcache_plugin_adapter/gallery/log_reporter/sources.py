# SPDX-License-Identifier: Apache-2.0
"""Several sources of records in the place of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.gallery.log_reporter.reading.files import FollowedFiles
    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record
    from lmcache_plugin_adapter.gallery.log_reporter.reading.tailed_file import FilePosition

    from .journal import Journal


class Sources:
    """Several sources in the place of one.

    Args:
        sources: ``reading.files.FollowedFiles``, :class:`Journal`.
    """

    def __init__(self, sources: Sequence[FollowedFiles | Journal]) -> None:
        self._sources = sources

    @property
    def lines(self) -> int:
        """The number of lines read so far."""
        return sum(source.lines for source in self._sources)

    @property
    def unread(self) -> int:
        """The number of unread bytes, as far as known."""
        return sum(source.unread for source in self._sources)

    def poll(self, now: float) -> None:
        """Check all sources."""
        for source in self._sources:
            source.poll(now)

    def take(self, records: int, size: int, now: float, *, final: bool = False) -> list[Record]:
        """Return the next records of all sources."""
        found: list[Record] = []
        for source in self._sources:
            found += source.take(max(records - len(found), 0), size, now, final=final)
        return found

    def positions(self) -> dict[str, list[FilePosition]]:
        """Return the positions to store."""
        return {path: one for source in self._sources for path, one in source.positions().items()}

    def close(self) -> None:
        """Close all sources."""
        for source in self._sources:
            source.close()
