# SPDX-License-Identifier: Apache-2.0
"""Select the entries that a process runs, and give each plugin its name. Pure."""

from __future__ import annotations

from collections import defaultdict

from lmcache_plugin_adapter.contract.frozen import replaced
from lmcache_plugin_adapter.messages.problem import quoted

from .entry import path_order
from .file_names import LMCACHE_EXTENSIONS, PluginName, runs_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lmcache_plugin_adapter.contract.identity import ProcessIdentity

    from .entry import Entry


def is_wanted(entry: Entry, identity: ProcessIdentity) -> bool:
    """Return whether a process runs an entry, by its name alone.

    Args:
        entry: An entry of a location.
        identity: The process. Without a role there is no filter: a file whose name
            has no role runs too, if it ends in ``.py`` or ``.sh`` (as in
            LMCache's launcher) or has an exec bit.
    """
    if entry.kind != "file":
        return False
    if isinstance(entry.name, PluginName):
        return runs_on(entry.name, identity)
    return identity.role is None and could_run(entry)


def could_run(entry: Entry) -> bool:
    """Return whether the entry is a plugin, or would be one if its name had a role."""
    if isinstance(entry.name, PluginName):
        return True
    if entry.kind != "file" or entry.name.kind not in ("no-role", "near-miss"):
        return False
    if entry.installed is not None:
        return True
    return entry.executable or entry.file_name.endswith(LMCACHE_EXTENSIONS)


def why_left_out(entry: Entry) -> str | None:
    """Return why a file does not run that LMCache's launcher runs where no file has a role.

    Returns:
        The reason and the name to give it, for a line that starts with the file; None for
        every other file.
    """
    name = entry.name
    if isinstance(name, PluginName) or name.kind in ("no-role", "near-miss"):
        return None
    if entry.kind != "file" or not entry.file_name.endswith(LMCACHE_EXTENSIONS):
        return None
    right = quoted(entry.file_name.lstrip("._"))
    text = f"{name.reason}; if it is a plugin, name it {right}"
    return f"{text} (LMCache's own launcher would run it)"


def select(entries: Iterable[Entry], identity: ProcessIdentity) -> tuple[Entry, ...]:
    """Select the entries that a process runs, each file once.

    Several paths may lead to one file: overlapping locations, symbolic links and
    hard links. Of the paths whose names match, the function prefers one without
    a link, then the first in order.

    Args:
        entries: The entries of all locations, in any order.
        identity: The process.

    Returns:
        The selected entries, ordered by path.
    """
    chosen: dict[object, Entry] = {}
    wanted = [entry for entry in entries if is_wanted(entry, identity)]
    for entry in sorted(wanted, key=path_order):
        # Some network file systems have no inode numbers.
        key = entry.key if entry.key[1] else entry.path
        known = chosen.get(key)
        if known is None or (known.linked and not entry.linked):
            chosen[key] = entry
    return tuple(sorted(chosen.values(), key=path_order))


def without_filter(identity: ProcessIdentity) -> ProcessIdentity:
    """Return the identity of a process that runs every plugin."""
    return replaced(identity, role=None)


def names_of(entry: Entry) -> tuple[str, str, str, str]:
    """Return the names of an entry, from general to specific.

    Returns:
        The stem, the file name, the path relative to the location, the path. An
        installed plugin has ``NAME`` and ``pkg:NAME``.
    """
    if entry.installed is not None:
        return (entry.installed.name, *(entry.path,) * 3)
    return (entry.name.stem, entry.file_name, entry.relative, entry.path)


def unique_names(entries: Iterable[Entry]) -> dict[str, str]:
    """Give each file the most general name that no other file has.

    Returns:
        The name of each path. Two paths share a name only if they lead to the
        same file.
    """
    files = list(entries)
    levels = dict.fromkeys((entry.path for entry in files), 0)
    while True:
        called: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in files:
            called[names_of(entry)[levels[entry.path]]].append(entry)
        clashes = [same for same in called.values() if len({entry.key for entry in same}) > 1]
        if not clashes:
            return {entry.path: names_of(entry)[levels[entry.path]] for entry in files}
        for same in clashes:
            for entry in same:
                levels[entry.path] = min(levels[entry.path] + 1, 3)
