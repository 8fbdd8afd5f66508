"""Which of the files found a process runs, and what each of them is called.

Pure: works on what :mod:`.planner.discovery` found.
"""

from __future__ import annotations

import os
from collections import defaultdict

from lmcache_plugin_adapter.contract.frozen import replaced

from .file_names import LMCACHE_EXTENSIONS, PluginName, runs_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lmcache_plugin_adapter.contract.identity import ProcessIdentity

    from .discovery import Found


def is_wanted(found: Found, identity: ProcessIdentity) -> bool:
    """Tell whether a process runs a file, going by the file's name.

    Args:
        found: An entry of a location.
        identity: The process. Without a role nothing is filtered: then a file
            without a role in its name runs too, if it ends in ``.py`` or
            ``.sh`` (as with LMCache's launcher) or has an exec bit.

    Returns:
        True if it does. Other files of the same content are not considered.
    """
    if found.kind != "file":
        return False
    if isinstance(found.name, PluginName):
        return runs_on(found.name, identity)
    return identity.role is None and could_run(found)


def could_run(found: Found) -> bool:
    """Tell whether a file would be a plugin if its name had a role."""
    if isinstance(found.name, PluginName):
        return True
    if found.kind != "file" or found.name.kind not in ("no-role", "near-miss"):
        return False
    if found.installed is not None:
        return True
    return found.executable or found.file_name.endswith(LMCACHE_EXTENSIONS)


def select(entries: Iterable[Found], identity: ProcessIdentity) -> tuple[Found, ...]:
    """Choose the files that a process runs, each file once.

    One file may be reached by several paths: overlapping locations, symbolic
    and hard links. Of the paths whose names match, the one that is no link is
    taken, then the first in order.

    Args:
        entries: What the locations hold, in any order.
        identity: The process.

    Returns:
        The chosen ones, by path.
    """
    chosen: dict[object, Found] = {}
    wanted = [found for found in entries if is_wanted(found, identity)]
    for found in sorted(wanted, key=_path):
        # Some network file systems have no inode numbers.
        same = found.key if found.key[1] else found.path
        known = chosen.get(same)
        if known is None or (known.linked and not found.linked):
            chosen[same] = found
    return tuple(sorted(chosen.values(), key=_path))


def _path(found: Found) -> bytes:
    return os.fsencode(found.path)


def without_filter(identity: ProcessIdentity) -> ProcessIdentity:
    """Return the process as one that runs every plugin."""
    return replaced(identity, role=None)


def names_of(found: Found) -> tuple[str, str, str, str]:
    """Return what a file can be called, from general to specific.

    Returns:
        The stem, the file name, the path relative to the location, the path;
        of an installed plugin ``NAME`` and ``pkg:NAME``.
    """
    if found.installed is not None:
        return (found.installed.name, *(found.path,) * 3)
    return (found.name.stem, found.file_name, found.relative, found.path)


def unique_names(entries: Iterable[Found]) -> dict[str, str]:
    """Give each file the most general name that no other file has.

    Args:
        entries: The files.

    Returns:
        The name for each path. Two paths have the same name only if they
        lead to the same file.
    """
    files = list(entries)
    levels = dict.fromkeys((found.path for found in files), 0)
    while True:
        called: defaultdict[str, list[Found]] = defaultdict(list)
        for found in files:
            called[names_of(found)[levels[found.path]]].append(found)
        clashes = [same for same in called.values() if len({found.key for found in same}) > 1]
        if not clashes:
            return {found.path: names_of(found)[levels[found.path]] for found in files}
        for same in clashes:
            for found in same:
                levels[found.path] = min(levels[found.path] + 1, 3)
