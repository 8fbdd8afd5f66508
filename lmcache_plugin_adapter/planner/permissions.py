# SPDX-License-Identifier: Apache-2.0
"""Check who else could change a plugin, so that no code of strangers runs.

A plugin is refused if everyone can write to its file, or to a directory on the
way to it (as reached, and as every link resolves), on a file system that is
mounted read-write. In a sticky directory such as /tmp, the owner of each entry
decides. A file or directory that a group or another owner could change is a
warning; one of another owner is refused if the engine runs as root.
"""

from __future__ import annotations

import errno
import os
import stat

from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.messages.problem import quoted

_LINKS = 40
"""Limit of symbolic links in one path, as in the kernel (MAXSYMLINKS)."""


class FileFacts:
    """The system calls of the rules; tests replace them."""

    def lstat(self, path: str) -> os.stat_result:
        """Return the status of a file, of a link itself."""
        return os.lstat(path)

    def readlink(self, path: str) -> str:
        """Return the target of a link."""
        return os.readlink(path)

    def is_read_only(self, path: str) -> bool:
        """Return whether the file system of ``path`` is mounted read-only."""
        try:
            return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        except OSError:
            return False


@frozen
class Exposure:
    """One reason why somebody else could change a plugin.

    Attributes:
        refuse: The plugin must not run; otherwise this is a warning.
        path: The exposed file or directory.
        text: What is wrong and how to repair it.
        repair: The shell command that repairs it.
    """

    refuse: bool
    path: str
    text: str
    repair: str


@frozen
class _Place:
    """A directory or file at the end of a path; ``path`` has no links."""

    path: str
    facts: os.stat_result
    exposures: tuple[Exposure, ...]


class PermissionRules:
    """Check files, and every directory once.

    Args:
        facts: The source of file modes and owners.
        uid: The engine's user; None for the user of this process.
    """

    def __init__(self, facts: FileFacts | None = None, uid: int | None = None) -> None:
        self._facts = FileFacts() if facts is None else facts
        self._uid = os.geteuid() if uid is None else uid
        self._trusted = {0, self._uid}
        self._directories: dict[str, _Place] = {}
        self._parents: dict[str, _Place] = {}

    def check(self, path: str) -> tuple[Exposure, ...]:
        """Check who could change a plugin.

        Args:
            path: The absolute path of a file.

        Returns:
            Refusals and warnings, from the root downwards.

        Raises:
            OSError: The path, or a link in it, leads nowhere.
        """
        directory, _, name = path.rpartition("/")
        parent = self._parents.get(directory)
        if parent is None:
            parent = self._parents[directory] = self._walk(self._directory("/"), directory)
        end = self._walk(parent, name)
        exposures = end.exposures
        if not stat.S_ISDIR(end.facts.st_mode):
            exposures += self._file(end)
        worst: dict[tuple[str, str], Exposure] = {}
        for exposure in exposures:
            key = exposure.path, exposure.repair
            if key not in worst or (exposure.refuse and not worst[key].refuse):
                worst[key] = exposure
        return tuple(worst.values())

    def check_directory(self, path: str) -> tuple[Exposure, ...]:
        """Check who could put a file into a directory, sticky or not, whatever its name.

        Args:
            path: The absolute path of a directory. Of one that does not exist yet, the
                nearest directory above it is checked.

        Returns:
            Refusals and warnings, from the root downwards.
        """
        place = self._directory("/")
        for name in path.split("/"):
            try:
                place = self._walk(place, name)
            except FileNotFoundError:
                break
        return (*place.exposures, *self._shared(place))

    def check_own_directory(self, path: str, program: str) -> tuple[Exposure, ...]:
        """Check who could put a file beside a script whose interpreter imports from there.

        Args:
            path: The absolute path of the script.
            program: The name of the interpreter, for the message.
        """
        directory = os.path.dirname(path)
        reached = self._walk(self._directory("/"), directory)
        end = self._walk(reached, os.path.basename(path))
        found: list[Exposure] = []
        for place in (reached, self._directory(os.path.dirname(end.path))):
            for exposure in self._shared(place):
                text = (
                    f"{exposure.text.partition(': chmod')[0]}, and {program} imports from there: "
                    "move the plugin into a directory of its own"
                )
                found.append(Exposure(exposure.refuse, exposure.path, text, ""))
        return tuple(dict.fromkeys(found))

    def _shared(self, place: _Place) -> tuple[Exposure, ...]:
        """Check a sticky directory as if it were not sticky."""
        if not stat.S_ISDIR(place.facts.st_mode) or not place.facts.st_mode & stat.S_ISVTX:
            return ()
        return self._writable(place.path, place.facts, "directory ")

    def _walk(self, start: _Place, path: str) -> _Place:
        """Follow a path name by name as the kernel does, and collect exposures on the way."""
        here, found = start, start.exposures
        names = path.split("/")[::-1]
        links = 0
        while names:
            name = names.pop()
            if name in ("", "."):
                continue
            if name == "..":
                here = self._directory(os.path.dirname(here.path))
                continue
            entry = os.path.join(here.path, name)
            known = self._directories.get(entry)
            facts = known.facts if known else self._facts.lstat(entry)
            found += self._entry(here, entry, facts)
            if stat.S_ISLNK(facts.st_mode):
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = self._facts.readlink(entry)
                names += target.split("/")[::-1]
                here = self._directory("/") if target.startswith("/") else here
            elif stat.S_ISDIR(facts.st_mode):
                here = self._directory(entry, facts)
            else:
                here = _Place(entry, facts, ())
            found += here.exposures
        return _Place(here.path, here.facts, tuple(dict.fromkeys(found)))

    def _directory(self, path: str, facts: os.stat_result | None = None) -> _Place:
        """Check a directory itself. In a sticky one, :meth:`_entry` checks each entry."""
        place = self._directories.get(path)
        if place is None:
            facts = self._facts.lstat(path) if facts is None else facts
            found: tuple[Exposure, ...] = ()
            if not facts.st_mode & stat.S_ISVTX:
                found += self._writable(path, facts, "directory ")
            if facts.st_uid not in self._trusted and not self._facts.is_read_only(path):
                found += (self._foreign(path, facts, "directory ", refuse=self._uid == 0),)
            place = self._directories[path] = _Place(path, facts, found)
        return place

    def _entry(self, parent: _Place, entry: str, facts: os.stat_result) -> tuple[Exposure, ...]:
        """Check who may replace an entry of a sticky directory."""
        mode = parent.facts.st_mode
        if not mode & stat.S_ISVTX or not mode & (stat.S_IWOTH | stat.S_IWGRP):
            return ()
        if facts.st_uid in self._trusted or self._facts.is_read_only(parent.path):
            return ()
        everyone = bool(mode & stat.S_IWOTH)
        who = "everyone" if everyone else "a group"
        text = f"belongs to user {facts.st_uid} in a directory that {who} can write to"
        return (_exposure(everyone, entry, quoted(entry), text, self._chown(entry)),)

    def _file(self, place: _Place) -> tuple[Exposure, ...]:
        """Check the plugin's own file."""
        found = self._writable(place.path, place.facts, "")
        if place.facts.st_uid not in self._trusted:
            found += (self._foreign(place.path, place.facts, "", refuse=self._uid == 0),)
        return found

    def _writable(self, path: str, facts: os.stat_result, kind: str) -> tuple[Exposure, ...]:
        others = bool(facts.st_mode & stat.S_IWOTH)
        group = bool(facts.st_mode & stat.S_IWGRP)
        if not (others or group) or self._facts.is_read_only(path):
            return ()
        who, what = ("everyone", "o-w") if others else (f"group {facts.st_gid}", "g-w")
        if others and group:
            what = "go-w"
        text = f"can be written by {who}"
        repair = f"chmod {what} {_shell_word(path)}"
        return (_exposure(others, path, kind + quoted(path), text, repair),)

    def _foreign(self, path: str, facts: os.stat_result, kind: str, *, refuse: bool) -> Exposure:
        text = f"belongs to user {facts.st_uid}"
        return _exposure(refuse, path, kind + quoted(path), text, self._chown(path))

    def _chown(self, path: str) -> str:
        owner = "root" if self._uid == 0 else str(self._uid)
        return f"chown -h {owner} {_shell_word(path)}"


def _exposure(refuse: bool, path: str, subject: str, text: str, repair: str) -> Exposure:
    return Exposure(refuse, path, f"{subject} {text}: {repair}", repair)


def _shell_word(path: str) -> str:
    """Return a path as a shell reads it, on one line."""
    if path.isprintable():
        import shlex  # late, as only a message needs it

        return shlex.quote(path)
    return "$" + quoted(path.replace("\\", "\\\\").replace("'", "\\'"))
