# SPDX-License-Identifier: Apache-2.0
"""The plugins that the packages of a ``sys.path`` offer, read from their metadata.

The module imports no package. It reads foreign metadata within bounds, never
waits for a FIFO, and records what cannot be read: it may be the reason why a
plugin is not found. As in Python itself, the first package of a name hides later
ones, and the first of two packages that offer the same plugin counts.

``importlib.metadata`` is not used: it reads files of any size and kind, ignores
directories that cannot be read, and its import takes longer than all of this.
"""

from __future__ import annotations

import os
import stat

from lmcache_plugin_adapter.configuration.locations import absolute
from lmcache_plugin_adapter.messages.problem import quoted
from lmcache_plugin_adapter.messages.wording import error_reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GROUP = "lmcache.runtime_plugins"
"""The entry-point group of plugins."""

MAX_BYTES = 1 << 20
"""Size limit of a metadata file."""

MAX_ENTRIES = 100_000
"""Limit of entries that are read of one directory of ``sys.path``."""

MAX_NAME = 100
"""Length limit of a plugin's name."""

_HEADER_BYTES = 1 << 14
_PROGRESS_ENTRIES = 256
"""Directory entries between two calls of ``progress``."""

_PROGRESS_PACKAGES = 16
"""Packages between two calls of ``progress``: each is read from a disk that may be slow."""

_ENDINGS = (".dist-info", ".egg-info")
_FINDER = ("__editable___", "_finder.py")
_MAX_FINDER_BYTES = 1 << 18
_EXTRA_LETTERS = frozenset("_-")


class EntryPoint:
    """One plugin that a package offers.

    Args:
        name: The entry point's name.
        value: The entry point's value, not validated yet.
        metadata: The package's metadata directory, absolute.
        root: The directory of ``sys.path`` that holds it.
    """

    def __init__(self, name: str, value: str, metadata: str, root: str) -> None:
        self.name = name
        self.value = value
        self.metadata = metadata
        self.root = root

    @property
    def project(self) -> tuple[str, str]:
        """Name and version of the package, from its metadata or else its directory's name."""
        directory = os.path.basename(self.metadata)
        name, _, version = directory.rpartition(".")[0].partition("-")
        for file in ("METADATA", "PKG-INFO"):
            try:
                data = read_bounded(os.path.join(self.metadata, file), _HEADER_BYTES, cut=True)
            except OSError:
                continue
            for line in data.decode("utf-8", "replace").splitlines():
                key, _, value = line.partition(":")
                if not value:
                    break
                if key.lower() == "name":
                    name = value.strip()
                elif key.lower() == "version":
                    version = value.strip()
            break
        return name[:MAX_NAME], version[:MAX_NAME]

    @property
    def package(self) -> str:
        """The package in words: ``NAME VERSION``, printable."""
        return quoted(" ".join(filter(None, self.project)))[1:-1]


class Packages:
    """The plugins that all packages of a ``sys.path`` offer.

    Args:
        path: The engine's ``sys.path``; a relative entry is relative to the
            working directory.
        progress: Called repeatedly while directories are read.

    Attributes:
        path: Absolute directories, each once.
        entry_points: By name, the first of each.
        hidden: What other packages offer under the same names.
        finders: Modules by which setuptools finds editable installations.
        troubles: What could not be read, one line each.
    """

    def __init__(self, path: Iterable[str], progress: Callable[[], None] | None = None) -> None:
        self.path = list(dict.fromkeys(map(absolute, path)))
        self.entry_points: dict[str, EntryPoint] = {}
        self.hidden: dict[str, list[EntryPoint]] = {}
        self.finders: list[str] = []
        self.troubles: list[str] = []
        self._progress = progress
        self._projects: set[str] = set()
        for root in self.path:
            for seen, metadata in enumerate(self._metadata(root)):
                if seen % _PROGRESS_PACKAGES == 0 and progress is not None:
                    progress()
                self._read(root, metadata)

    def _metadata(self, root: str) -> list[str]:
        """Return the names of the metadata directories of a directory, in a fixed order."""
        found = []
        try:
            with os.scandir(root) as listing:
                for seen, entry in enumerate(listing):
                    if seen % _PROGRESS_ENTRIES == 0 and self._progress is not None:
                        self._progress()
                    if seen == MAX_ENTRIES:
                        text = f"{quoted(root)} holds more than {MAX_ENTRIES:,} entries"
                        self.troubles.append(f"{text}: the rest is not searched")
                        break
                    if entry.name.lower().endswith(_ENDINGS):
                        found.append(entry.name)
                    elif entry.name.startswith(_FINDER[0]) and entry.name.endswith(_FINDER[1]):
                        self.finders.append(os.path.join(root, entry.name))
        except (FileNotFoundError, NotADirectoryError):
            return []  # such as the archive that Python's own sys.path names
        except (OSError, ValueError) as error:
            self.troubles.append(_cannot_read(root, error))
        return sorted(found, key=os.fsencode)

    def _read(self, root: str, name: str) -> None:
        project = _normalized(name)
        if project in self._projects:
            return
        metadata = os.path.join(root, name)
        path = os.path.join(metadata, "entry_points.txt")
        try:
            data = read_bounded(path, MAX_BYTES)
        except FileNotFoundError:
            # The package has none. Only a real metadata directory hides later ones.
            if os.path.isdir(metadata):
                self._projects.add(project)
            return
        except NotADirectoryError:
            return
        except OSError as error:
            self._projects.add(project)
            self.troubles.append(_cannot_read(path, error))
            return
        self._projects.add(project)
        if GROUP.encode() not in data:
            return
        for plugin, value in parse_entry_points(data.decode("utf-8", "replace"), GROUP).items():
            if not is_name(plugin):
                continue
            entry_point = EntryPoint(plugin, value, metadata, root)
            if self.entry_points.setdefault(plugin, entry_point) is not entry_point:
                self.hidden.setdefault(plugin, []).append(entry_point)


def is_name(text: str) -> bool:
    """Return whether a text can be an installed plugin's name: letters, digits, ``_``, ``-``."""
    if not text.isascii() or len(text) > MAX_NAME:
        return False
    return bool(text) and all(c.isalnum() or c in _EXTRA_LETTERS for c in text)


def parse_entry_points(text: str, group: str) -> dict[str, str]:
    """Return names and values of the entry points of a group; other lines are ignored."""
    found: dict[str, str] = {}
    inside = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            inside = line[1:-1].strip() == group
        elif inside and not line.startswith(("#", ";")):
            name, equals, value = line.partition("=")
            if equals:
                found.setdefault(name.strip(), value.strip())
    return found


def read_bounded(path: str, most: int, *, cut: bool = False) -> bytes:
    """Read a small regular file; never wait for any other kind of file.

    Args:
        path: The file.
        most: Limit of bytes.
        cut: Return the start of a larger file instead of refusing it.

    Raises:
        OSError: The file cannot be read, is not regular, or is too large.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(0, "it is no regular file")
        if facts.st_size > most and not cut:
            raise OSError(0, f"it is larger than {most >> 10:,} KiB")
        with open(fd, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(fd)


def read_finders(files: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Read where setuptools' finders have the modules of editable installations.

    Such a finder holds a table in its source. Other tools leave a path file, whose
    directory is on ``sys.path`` already.

    Args:
        files: The source files of the finders.

    Returns:
        By full module name: the module's path without extension, and the
        finder's file. Tables that cannot be read are left out.
    """
    import ast  # imported late: only an editable installation pays for it

    found: dict[str, tuple[str, str]] = {}
    for file in files:
        try:
            source = read_bounded(file, _MAX_FINDER_BYTES).decode()
            lines = [line for line in source.splitlines() if line.startswith("MAPPING")]
            table = ast.literal_eval(lines[0].partition("=")[2].strip())
            for module, path in table.items():
                if isinstance(module, str) and isinstance(path, str) and os.path.isabs(path):
                    found.setdefault(module, (path, file))
        except (OSError, ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        except (IndexError, AttributeError, TypeError):  # no such line, or not a table
            continue
    return found


def _cannot_read(path: str, error: OSError | ValueError) -> str:
    return f"{quoted(path)} cannot be read: {error_reason(error)}"


def _normalized(directory: str) -> str:
    """Return a package's name, from that of its metadata directory, for comparison."""
    name = directory.lower().rpartition(".")[0].partition("-")[0]
    return "-".join(filter(None, name.replace("_", "-").replace(".", "-").split("-")))
