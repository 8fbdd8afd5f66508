"""What the packages of a ``sys.path`` offer as plugins, read from their metadata.

Nothing is imported and nothing is believed: what other packages wrote is read
within bounds, and what cannot be read is said where it may be the reason that
a plugin is not found. The first package of a name hides later ones, and of two
packages that offer the same plugin the first one counts, as for Python itself.
"""

from __future__ import annotations

import os
import stat

from lmcache_plugin_adapter.configuration.locations import absolute
from lmcache_plugin_adapter.messages.problem import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GROUP = "lmcache.runtime_plugins"
"""The entry-point group of plugins."""

MAX_BYTES = 1 << 20
"""No file of metadata is read that is larger."""

MAX_ENTRIES = 100_000
"""No more entries of one directory of ``sys.path`` are looked at."""

MAX_NAME = 100
"""Characters of a plugin's name."""

_HEADER_BYTES = 1 << 14
_SIGN_OF_LIFE = 256
_READ_SIGN_OF_LIFE = 16
"""So many packages are read between two calls of ``progress``, on a disk that may be slow."""
_ENDINGS = (".dist-info", ".egg-info")
_FINDER = ("__editable___", "_finder.py")
_EXTRA_LETTERS = frozenset("_-")


class Offer:
    """One plugin as a package offers it.

    Args:
        name: The entry point's name.
        value: What it names, not looked at yet.
        metadata: The package's directory of metadata, absolute.
        root: The directory of ``sys.path`` that this is in.
    """

    def __init__(self, name: str, value: str, metadata: str, root: str) -> None:
        self.name = name
        self.value = value
        self.metadata = metadata
        self.root = root

    @property
    def project(self) -> tuple[str, str]:
        """The name and version of the package, as its metadata or else its directory says."""
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
        """The package for people: ``NAME VERSION``, as it can be shown."""
        return quoted(" ".join(filter(None, self.project)))[1:-1]


class Packages:
    """The plugins that all packages of a ``sys.path`` offer.

    Args:
        path: The engine's ``sys.path``; a relative entry is relative to the
            working directory.
        progress: Called now and then while directories are read.
    """

    def __init__(self, path: Iterable[str], progress: Callable[[], None] | None = None) -> None:
        self.path = list(dict.fromkeys(map(absolute, path)))
        """Absolute directories, each once."""
        self.offers: dict[str, Offer] = {}
        """By name, the first of each."""
        self.hidden: dict[str, list[Offer]] = {}
        """What other packages offer under the same names."""
        self.finders: list[str] = []
        """Modules by which setuptools finds those of editable installations."""
        self.troubles: list[str] = []
        """What could not be read, one line each."""
        self._progress = progress
        self._projects: set[str] = set()
        for root in self.path:
            for seen, metadata in enumerate(self._metadata(root)):
                if seen % _READ_SIGN_OF_LIFE == 0 and progress is not None:
                    progress()
                self._read(root, metadata)

    def _metadata(self, root: str) -> list[str]:
        """Return the names of a directory's directories of metadata, in a fixed order."""
        found = []
        try:
            with os.scandir(root) as listing:
                for seen, entry in enumerate(listing):
                    if seen % _SIGN_OF_LIFE == 0 and self._progress is not None:
                        self._progress()
                    if seen == MAX_ENTRIES:
                        text = f"{quoted(root)} holds more than {MAX_ENTRIES:,} entries"
                        self.troubles.append(f"{text}: the rest is not looked at")
                        break
                    if entry.name.lower().endswith(_ENDINGS):
                        found.append(entry.name)
                    elif entry.name.startswith(_FINDER[0]) and entry.name.endswith(_FINDER[1]):
                        self.finders.append(os.path.join(root, entry.name))
        except (FileNotFoundError, NotADirectoryError):
            return []  # Python's own sys.path names an archive that is hardly ever there
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
            # It has none; but what is no directory of metadata hides nothing.
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
        for plugin, value in entry_points(data.decode("utf-8", "replace"), GROUP).items():
            if not is_name(plugin):
                continue
            offer = Offer(plugin, value, metadata, root)
            if self.offers.setdefault(plugin, offer) is not offer:
                self.hidden.setdefault(plugin, []).append(offer)


def is_name(text: str) -> bool:
    """Tell whether a text can name an installed plugin: letters, digits, ``_`` and ``-``."""
    if not text.isascii() or len(text) > MAX_NAME:
        return False
    return bool(text) and all(c.isalnum() or c in _EXTRA_LETTERS for c in text)


def entry_points(text: str, group: str) -> dict[str, str]:
    """Return name and value of each entry point of a group; lines that are none are passed over."""
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
    """Read a small regular file, never waiting for anything else.

    Args:
        path: The file.
        most: Bytes that are read at most.
        cut: Return that much of a larger file instead of refusing it.

    Raises:
        OSError: It cannot be read, is no regular file, or is too large.
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


def _cannot_read(path: str, error: OSError | ValueError) -> str:
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return f"{quoted(path)} cannot be read: {text[:1].lower()}{text[1:]}"


def _normalized(directory: str) -> str:
    """Return a package's name from that of its directory of metadata, for comparison."""
    name = directory.lower().rpartition(".")[0].partition("-")[0]
    return "-".join(filter(None, name.replace("_", "-").replace(".", "-").split("-")))
