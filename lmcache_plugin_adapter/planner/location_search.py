# SPDX-License-Identifier: Apache-2.0
"""Search one location for files, without opening or waiting for any of them.

The search follows links and reads each directory of a location once. A
directory that cannot be read is one warning; the search continues.
"""

from __future__ import annotations

import errno
import os
import stat
from itertools import islice

from lmcache_plugin_adapter.configuration.locations import absolute
from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.messages.problem import Problem, quoted
from lmcache_plugin_adapter.messages.wording import error_reason

from .entry import Entry
from .file_names import PluginName, parse_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal

    from .entry import EntryKind

MAX_ENTRIES = 100_000
"""The search stops in a location with more entries: such a location is probably a mistake
(``/``, a home directory, a data store). The file system decides which entries are left out."""

_PROGRESS_ENTRIES = 256
"""Entries between two calls of ``progress``."""

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


@frozen
class _Directory:
    """A directory to search."""

    relative: str
    key: tuple[int, int]
    linked: bool


class LocationSearch:
    """Search one location.

    Args:
        location: The location, as configured.
        progress: Called with the location before and during the search.

    Attributes:
        entries: The entries found, in no order.
        problems: What could not be searched.
        complete: Whether the search reached every entry.
    """

    def __init__(self, location: str, progress: Callable[[str], None]) -> None:
        self._location = location
        self._progress = progress
        self.entries: list[Entry] = []
        self.problems: list[Problem] = []
        self.complete = True
        self._seen = 0

    def run(self) -> None:
        """Search the location; never raises, except what ``progress`` raises."""
        self._progress(self._location)
        try:
            top = absolute(self._location)
            facts = os.stat(top)
        except (OSError, ValueError) as error:
            self._unusable(error)
            return
        if stat.S_ISDIR(facts.st_mode):
            self._directories(top, facts)
            if self.complete and not any(map(_could_be_plugin, self.entries)):
                self._report("warning", "holds no plugins")
        elif stat.S_ISREG(facts.st_mode):
            self._file(top, os.path.basename(top), facts, linked=False, is_location=True)
        else:
            kind = _KINDS.get(stat.S_IFMT(facts.st_mode), "no file")
            self._report("warning", f"is {kind}, neither a file nor a directory: it is ignored")

    def _unusable(self, error: OSError | ValueError) -> None:
        self.complete = False
        if isinstance(error, FileNotFoundError):
            path = absolute(self._location)
            where = "" if path == self._location else f"; this is {quoted(path)}"
            self._report("warning", f"does not exist: no plugins from there{where}")
        else:
            self._report("warning", f"cannot be read: {error_reason(error)}: no plugins from there")

    def _directories(self, top: str, facts: os.stat_result) -> None:
        """Search breadth first, links last, so that a file's real path is preferred."""
        waiting = [_Directory("", (facts.st_dev, facts.st_ino), linked=False)]
        links: list[_Directory] = []
        visited: set[tuple[int, int]] = set()
        while waiting and self.complete:
            below: list[_Directory] = []
            for directory in waiting:
                if directory.key in visited:
                    continue
                visited.add(directory.key)
                for inside, is_link in self._directory(top, directory.relative, directory.linked):
                    (links if is_link else below).append(inside)
            waiting = below
            if not waiting:
                waiting, links = sorted(links, key=lambda link: os.fsencode(link.relative)), []

    def _directory(
        self, top: str, relative: str, linked: bool
    ) -> Iterator[tuple[_Directory, bool]]:
        """Record the files of one directory; yield its directories and links to others."""
        directory = os.path.join(top, relative) if relative else top
        try:
            with os.scandir(directory) as listing:
                # One more than the limit shows that there are more.
                some = islice(listing, MAX_ENTRIES + 1 - self._seen)
                found = sorted(some, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if not relative:
                self._unusable(error)
            elif not isinstance(error, FileNotFoundError):
                text = f"Cannot read directory {quoted(directory)}: {error_reason(error)}"
                self.problems.append(Problem("warning", f"{text}; no plugins from there"))
            return
        for entry in found:
            self._seen += 1
            if self._seen % _PROGRESS_ENTRIES == 0:
                self._progress(self._location)
            if self._seen > MAX_ENTRIES:
                self.complete = False
                self._report(
                    "warning",
                    f"holds more than {MAX_ENTRIES:,} entries: the rest is not searched; "
                    "name the plugins' own directory",
                )
                break
            below = os.path.join(relative, entry.name)
            is_link = entry.is_symlink()
            key = self._entry(entry, below, linked or is_link)
            if key is not None:
                yield _Directory(below, key, linked=linked or is_link), is_link

    def _entry(
        self, entry: os.DirEntry[str], relative: str, linked: bool
    ) -> tuple[int, int] | None:
        """Record one entry; return device and inode of a directory that is to be searched."""
        try:
            facts = entry.stat()
        except OSError as error:
            self._broken(entry, relative, error, linked)
            return None
        if stat.S_ISREG(facts.st_mode):
            self._file(entry.path, relative, facts, linked=linked)
            return None
        if not stat.S_ISDIR(facts.st_mode):
            kind = _KINDS.get(stat.S_IFMT(facts.st_mode), "no regular file")
            self._other(entry, relative, "special", f"it is {kind}", linked)
            return None
        if entry.name[0] in "._":
            if entry.name != "__pycache__" and not entry.name.startswith(".."):
                trouble = f"its name starts with {quoted(entry.name[0])}: it is not searched"
                self._other(entry, relative, "directory", trouble, linked)
            return None
        return (facts.st_dev, facts.st_ino)

    def _file(
        self,
        path: str,
        relative: str,
        facts: os.stat_result,
        *,
        linked: bool,
        is_location: bool = False,
    ) -> None:
        executable = bool(facts.st_mode & 0o111)
        name = parse_name(os.path.basename(path), executable=executable, is_location=is_location)
        self.entries.append(
            Entry(path, self._location, relative, "file", name, "", facts, linked, is_location)
        )

    def _other(
        self, entry: os.DirEntry[str], relative: str, kind: EntryKind, trouble: str, linked: bool
    ) -> None:
        name = parse_name(entry.name)
        self.entries.append(
            Entry(entry.path, self._location, relative, kind, name, trouble, None, linked)
        )

    def _broken(self, entry: os.DirEntry[str], relative: str, error: OSError, linked: bool) -> None:
        """Record a broken link. An entry that was removed during the search is ignored."""
        trouble = f"it cannot be looked at: {error_reason(error)}"
        if entry.is_symlink():
            try:
                target = quoted(os.readlink(entry.path))
            except OSError:
                return
            if isinstance(error, FileNotFoundError):
                trouble = f"it is a link to {target}, which does not exist"
            elif error.errno == errno.ELOOP:
                trouble = f"it is a link to {target}, which leads back to itself"
        elif isinstance(error, FileNotFoundError):
            return
        self._other(entry, relative, "broken", trouble, linked)

    def _report(self, level: Literal["warning", "note"], text: str) -> None:
        self.problems.append(Problem(level, f"Location {quoted(self._location)} {text}"))


def _could_be_plugin(entry: Entry) -> bool:
    """Return whether the name is a plugin's, or could become one with a role."""
    name = entry.name
    return isinstance(name, PluginName) or name.kind in ("near-miss", "no-role")
