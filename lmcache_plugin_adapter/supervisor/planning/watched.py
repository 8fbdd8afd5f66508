# SPDX-License-Identifier: Apache-2.0
"""Choose, in the planning child, which directories ``auto_reload`` watches."""

from __future__ import annotations

import os

from lmcache_plugin_adapter.messages.problem import Problem, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST_DIRECTORIES = 4096
"""More are not watched: the kernel limits the watches of a user."""

_SILENT = ("9p", "afs", "beegfs", "ceph", "cifs", "fuse", "glusterfs", "gpfs", "lustre", "nfs")
"""File systems that report no changes made by other hosts, by the beginning of their names."""


def watched_directories(locations: Iterable[str], files: Iterable[str]) -> tuple[str, ...]:
    """Return the directories in which a change may change what runs.

    These are the directories of each location and those that its links lead to. A link, a
    file and a location that is missing are noticed in the directory that holds them; a
    directory itself reports that it is moved or removed.

    Args:
        locations: The absolute paths of the locations.
        files: The absolute paths of what they hold.
    """
    found: dict[str, None] = {}
    for location in locations:
        is_directory = os.path.isdir(location)
        if not is_directory or os.path.islink(location):
            found[os.path.dirname(location)] = None
        if not is_directory:
            continue
        for directory, names, _ in os.walk(location):
            names[:] = [name for name in names if not name.startswith((".", "_"))]
            found[directory] = None
            if len(found) >= MOST_DIRECTORIES:
                break
    for path in files:
        found[os.path.dirname(path)] = None
        found[os.path.dirname(os.path.realpath(path))] = None
    return tuple(filter(os.path.isdir, found))[:MOST_DIRECTORIES]


def silent_file_systems(directories: Iterable[str]) -> Iterator[Problem]:
    """Warn about file systems that do not report every change; each once."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split() for line in file]
        mounts = [(words[4], words[words.index("-") + 1]) for words in lines]
    except (OSError, ValueError, IndexError):
        return
    mounts.sort(key=lambda mount: len(mount[0]))
    warned = set()
    for directory in directories:
        on = [each for each in mounts if f"{directory}/".startswith(each[0].rstrip("/") + "/")]
        if on and on[-1][1].startswith(_SILENT) and on[-1] not in warned:
            warned.add(on[-1])
            place, kind = on[-1]
            yield Problem(
                "warning",
                f"Changes that other hosts make below {quoted(place)} ({kind}) are not noticed "
                "(auto_reload): run 'lmcache-plugins reload' after them",
            )
