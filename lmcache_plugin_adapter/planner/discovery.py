# SPDX-License-Identifier: Apache-2.0
"""List what all locations hold, without opening or waiting for any file."""

from __future__ import annotations

from functools import partial

from lmcache_plugin_adapter.configuration.locations import is_installed
from lmcache_plugin_adapter.contract.frozen import frozen

from .entry import Entry, path_order
from .file_names import parse_name
from .location_search import LocationSearch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Set

    from lmcache_plugin_adapter.messages.problem import Problem

    from .installed_packages import Packages


@frozen
class Scan:
    """The content of all locations.

    Attributes:
        entries: Ordered by path, each path once.
        problems: Locations and directories that could not be searched.
        complete: Every location was searched completely.
    """

    entries: tuple[Entry, ...]
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
        locations: Paths, relative ones to the working directory, and ``pkg:NAME``
            for installed plugins.
        progress: Called with a location before the search touches it, and
            again during the search. No call for a while means that the last
            location hangs.
        skip: Locations that are not touched.
        import_path: The engine's ``sys.path``, which holds the installed plugins.

    Returns:
        The same result for the same files. Never raises, except what
        ``progress`` raises.
    """
    report = progress or _ignore
    entries: dict[str, Entry] = {}
    problems: list[Problem] = []
    complete = True
    packages: Packages | None = None
    for location in dict.fromkeys(locations):
        if location in skip:
            complete = False
            continue
        if is_installed(location):
            # Imported late: only a configuration with an installed plugin pays for it.
            from .installed_packages import Packages
            from .installed_plugin import find_installed

            report(location)
            if packages is None:
                packages = Packages(import_path, partial(report, location))
            installed, more = find_installed(location, packages)
            problems += more
            complete = complete and installed is not None
            if installed is not None:
                # As a location, a leading "_" does not hide it; the name has no extension.
                name = parse_name(installed.name, is_location=True)
                entries[location] = Entry(
                    location,
                    location,
                    installed.name,
                    "file",
                    name,
                    is_location=True,
                    installed=installed,
                )
            continue
        search = LocationSearch(location, report)
        search.run()
        problems += search.problems
        complete = complete and search.complete
        for entry in search.entries:
            # A location below another one may accept a file that the other one ignores.
            known = entries.get(entry.path)
            if known is None or (entry.is_plugin and not known.is_plugin):
                entries[entry.path] = entry
    ordered = sorted(entries.values(), key=path_order)
    return Scan(tuple(ordered), tuple(dict.fromkeys(problems)), complete)


def _ignore(location: str) -> None:
    """Ignore the progress."""
