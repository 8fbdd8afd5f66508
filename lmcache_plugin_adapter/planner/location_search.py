"""Find the files that locations hold, without opening or waiting for any of them.

A location is a file or a directory, searched recursively. Links are followed,
each directory of a location is searched once, and what cannot be looked at is
said in one line while the rest goes on.
"""

from __future__ import annotations

import errno
import os
import stat
from itertools import islice

from lmcache_plugin_adapter.configuration.locations import INSTALLED_PREFIX, absolute, is_installed
from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.messages.problem import Problem, quoted

from .file_names import NotAPlugin, PluginName, parse_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Set
    from typing import Literal

    from .installed_packages import Packages
    from .installed_plugin import Installed

    EntryKind = Literal["file", "special", "broken", "directory"]

MAX_ENTRIES = 100_000
"""A location with more directory entries is not searched to its end: it is probably
not meant (``/``, a home directory, a data store). Which are left out is up to the file system."""

_SIGN_OF_LIFE = 256
"""So many entries are looked at between two calls of ``progress``."""

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


@frozen
class Found:
    """One entry of a location.

    Attributes:
        path: Absolute, as reached: links in it are kept.
        location: The location that it was found in, as configured.
        relative: The path below its location; the file name where the
            location is the file.
        kind: A regular ``file``; a ``special`` file (FIFO, socket, device);
            a ``broken`` entry that cannot be looked at; or a ``directory``
            that is not searched.
        name: What its name says.
        trouble: Why it is not a file that can run, empty for a file.
        facts: What ``stat`` says of a file (the end of any link).
        linked: A link leads to it, itself or a directory of its path below
            the location.
        is_location: The location is this very file.
        installed: What there is to know of an installed plugin. Its path is
            ``pkg:NAME``; its kind is ``file``, as it runs like one.
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
    installed: Installed | None = None

    @property
    def file_name(self) -> str:
        """The last part of the path."""
        return os.path.basename(self.path)

    @property
    def executable(self) -> bool:
        """Whether anyone may execute it."""
        return self.facts is not None and bool(self.facts.st_mode & 0o111)

    @property
    def key(self) -> tuple[int, int] | tuple[str, str]:
        """What makes it the same as another, whatever their paths: device and inode, or name."""
        if self.installed is not None:
            return (INSTALLED_PREFIX, self.installed.name)
        return (0, 0) if self.facts is None else (self.facts.st_dev, self.facts.st_ino)

    @property
    def signature(self) -> tuple[int, ...]:
        """What changes when the file does: device, inode, time of change in ns, size in bytes."""
        if self.installed is not None:
            return self.installed.signature
        facts = self.facts
        if facts is None:
            return (0, 0, 0, 0)
        return (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)


@frozen
class Scan:
    """What all locations hold.

    Attributes:
        entries: By path, each path once.
        problems: Locations and directories that could not be searched.
        complete: Every location was searched to its end.
    """

    entries: tuple[Found, ...]
    problems: tuple[Problem, ...]
    complete: bool


def scan(
    locations: Iterable[str],
    progress: Callable[[str], None] | None = None,
    skip: Set[str] = frozenset(),
    import_path: Iterable[str] = (),
) -> Scan:
    """Search the locations.

    Args:
        locations: Paths; a relative one is relative to the working directory.
            Or ``pkg:NAME`` for installed plugins.
        progress: Called with a location before it is touched, and again
            while its search goes on: no call for a while means that the
            last one hangs.
        skip: Locations not to touch.
        import_path: The engine's ``sys.path``, where installed plugins are.

    Returns:
        Everything found, the same for the same files. Never raises, save what
        ``progress`` does.
    """
    entries: dict[str, Found] = {}
    problems: list[Problem] = []
    complete = True
    packages: Packages | None = None
    for location in dict.fromkeys(locations):
        if location in skip:
            complete = False
            continue
        if is_installed(location):
            from .installed_plugin import (  # only who names one pays for it
                find_installed,
                read_packages,
            )

            (progress or _ignore)(location)
            if packages is None:
                packages = read_packages(import_path, location, progress or _ignore)
            installed, more = find_installed(location, packages)
            problems += more
            complete = complete and installed is not None
            if installed is not None:
                entries[location] = _installed(location, installed)
            continue
        search = _Search(location, progress or _ignore)
        search.run()
        problems += search.problems
        complete = complete and search.complete
        for found in search.entries:
            # A location below another one may say yes to what the other skips.
            known = entries.get(found.path)
            if known is None or _prefers(found, known):
                entries[found.path] = found
    ordered = sorted(entries.values(), key=_order)
    return Scan(tuple(ordered), tuple(dict.fromkeys(problems)), complete)


def _installed(location: str, installed: Installed) -> Found:
    # A name has no extension, and neither "." nor a leading "_" hides what was asked for.
    name = parse_name(installed.name, is_location=True)
    return Found(
        location, location, installed.name, "file", name, is_location=True, installed=installed
    )


def _order(found: Found) -> bytes:
    return os.fsencode(found.path)


def _prefers(found: Found, known: Found) -> bool:
    return isinstance(found.name, PluginName) and not isinstance(known.name, PluginName)


def _may_be_plugin(found: Found) -> bool:
    name = found.name
    return isinstance(name, PluginName) or name.kind in ("near-miss", "no-role")


def _ignore(location: str) -> None:
    """Stand in for a caller who does not follow the progress."""


@frozen
class _Directory:
    """A directory to search."""

    relative: str
    key: tuple[int, int]
    linked: bool


class _Search:
    """The search of one location."""

    def __init__(self, location: str, progress: Callable[[str], None]) -> None:
        self.location = location
        self.progress = progress
        self.entries: list[Found] = []
        self.problems: list[Problem] = []
        self.complete = True
        self.seen = 0

    def run(self) -> None:
        self.progress(self.location)
        try:
            top = absolute(self.location)
            facts = os.stat(top)
        except (OSError, ValueError) as error:
            self._unusable(error)
            return
        if stat.S_ISDIR(facts.st_mode):
            self._directories(top, facts)
            if self.complete and not any(map(_may_be_plugin, self.entries)):
                self._say("warning", "holds no plugins")
        elif stat.S_ISREG(facts.st_mode):
            self._file(top, os.path.basename(top), facts, linked=False, is_location=True)
        else:
            kind = _KINDS.get(stat.S_IFMT(facts.st_mode), "no file")
            self._say("warning", f"is {kind}, neither a file nor a directory: it is ignored")

    def _unusable(self, error: OSError | ValueError) -> None:
        self.complete = False
        if isinstance(error, FileNotFoundError):
            self._say("warning", "does not exist: no plugins from there")
        else:
            self._say("warning", f"cannot be read: {reason(error)}: no plugins from there")

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
        """Take note of the files of one directory; yield its directories and links to others."""
        directory = os.path.join(top, relative) if relative else top
        try:
            with os.scandir(directory) as listing:
                # One more than may be looked at, which tells that there are more.
                some = islice(listing, MAX_ENTRIES + 1 - self.seen)
                found = sorted(some, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if not relative:
                self._unusable(error)
            elif not isinstance(error, FileNotFoundError):
                text = f"Cannot read directory {quoted(directory)}: {reason(error)}"
                self.problems.append(Problem("warning", f"{text}; no plugins from there"))
            return
        for entry in found:
            self.seen += 1
            if self.seen % _SIGN_OF_LIFE == 0:
                self.progress(self.location)
            if self.seen > MAX_ENTRIES:
                self.complete = False
                self._say(
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
        """Take note of one entry; of a directory to search, return device and inode."""
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
            Found(path, self.location, relative, "file", name, "", facts, linked, is_location)
        )

    def _other(
        self, entry: os.DirEntry[str], relative: str, kind: EntryKind, trouble: str, linked: bool
    ) -> None:
        name = parse_name(entry.name)
        self.entries.append(
            Found(entry.path, self.location, relative, kind, name, trouble, None, linked)
        )

    def _broken(self, entry: os.DirEntry[str], relative: str, error: OSError, linked: bool) -> None:
        """Take note of a link that leads nowhere; what went away meanwhile was never there."""
        trouble = f"it cannot be looked at: {reason(error)}"
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

    def _say(self, level: Literal["warning", "note"], text: str) -> None:
        self.problems.append(Problem(level, f"Location {quoted(self.location)} {text}"))


def reason(error: OSError | ValueError) -> str:
    """Return the error's reason in words, in lower case."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text[:1].lower() + text[1:]
