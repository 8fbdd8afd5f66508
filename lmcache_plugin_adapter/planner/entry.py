# SPDX-License-Identifier: Apache-2.0
"""One entry of a location: a file, or something else that a directory lists."""

from __future__ import annotations

import os

from lmcache_plugin_adapter.configuration.locations import INSTALLED_PREFIX
from lmcache_plugin_adapter.contract.frozen import frozen

from .file_names import PluginName

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from .file_names import NotAPlugin
    from .installed_plugin import InstalledPlugin

    EntryKind = Literal["file", "special", "broken", "directory"]


@frozen
class Entry:
    """One entry of a location.

    Attributes:
        path: Absolute path; symbolic links in it are kept.
        location: The location that holds the entry, as configured.
        relative: The path below the location; the file name if the location is the file.
        kind: A regular ``file``; a ``special`` file (FIFO, socket, device); a
            ``broken`` entry without readable metadata; or a ``directory``
            that is not searched.
        name: The parsed file name.
        trouble: Why the entry is not a file that can run; empty for a file.
        facts: The ``stat`` result of a file (of the target of a link).
        linked: The entry, or a directory between it and the location, is a symbolic link.
        is_location: The location is this file.
        installed: The installed plugin, if the entry is one. Its path is
            ``pkg:NAME``, and its kind is ``file`` since it runs like one.
    """

    path: str
    location: str
    relative: str
    kind: EntryKind
    name: PluginName | NotAPlugin
    trouble: str = ""
    facts: os.stat_result | None = None
    linked: bool = False
    is_location: bool = False
    installed: InstalledPlugin | None = None

    @property
    def file_name(self) -> str:
        """The last part of the path."""
        return os.path.basename(self.path)

    @property
    def is_plugin(self) -> bool:
        """Whether the name selects the processes that run it."""
        return isinstance(self.name, PluginName)

    @property
    def executable(self) -> bool:
        """Whether any user may execute the file."""
        return self.facts is not None and bool(self.facts.st_mode & 0o111)

    @property
    def key(self) -> tuple[int, int] | tuple[str, str]:
        """The identity of the file on any path: device and inode, or the installed name."""
        if self.installed is not None:
            return (INSTALLED_PREFIX, self.installed.name)
        return (0, 0) if self.facts is None else (self.facts.st_dev, self.facts.st_ino)

    @property
    def signature(self) -> tuple[int, ...]:
        """A value that changes with the file: device, inode, modification time in ns, size."""
        if self.installed is not None:
            return self.installed.signature
        facts = self.facts
        if facts is None:
            return (0, 0, 0, 0)
        return (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)


def path_order(entry: Entry) -> bytes:
    """Return the sort key that orders entries by path, undecodable bytes included."""
    return os.fsencode(entry.path)
