"""Who else could change a plugin: the rules that keep strangers' code from running.

A plugin is refused when its file, or a directory on the way to it (as reached
and as every link resolves), can be written by everyone on a file system that
is mounted read-write. In a sticky directory, as /tmp is one, the owner of each
entry decides. What only a group or another owner could change is a warning;
a file of another owner is refused where the engine runs as root.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat

from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.messages.problem import quoted

_LINKS = 40
"""How many symbolic links the kernel follows in one path (MAXSYMLINKS)."""


class FileFacts:
    """What the rules need to know of this machine; tests have a machine of their own."""

    def lstat(self, path: str) -> os.stat_result:
        """Return what :func:`os.lstat` says."""
        return os.lstat(path)

    def readlink(self, path: str) -> str:
        """Return where a link leads."""
        return os.readlink(path)

    def is_read_only(self, path: str) -> bool:
        """Tell whether the file system of ``path`` is mounted read-only."""
        try:
            return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        except OSError:
            return False


@frozen
class Finding:
    """One thing about a path that lets somebody else change a plugin.

    Attributes:
        refuse: By the rules the plugin must not run; otherwise a warning.
        path: The file or directory that it is about.
        text: What is wrong and how to mend it.
        mend: The command that does, for a shell.
    """

    refuse: bool
    path: str
    text: str
    mend: str


@frozen
class _Place:
    """A directory or file that a path led to, without a link left in ``path``."""

    path: str
    facts: os.stat_result
    findings: tuple[Finding, ...]


class PermissionRules:
    """Judge files by the rules, looking at every directory once.

    Args:
        facts: Where file modes and owners come from.
        uid: The engine's user; None: this process's.
    """

    def __init__(self, facts: FileFacts | None = None, uid: int | None = None) -> None:
        self._facts = FileFacts() if facts is None else facts
        self._uid = os.geteuid() if uid is None else uid
        self._trusted = {0, self._uid}
        self._directories: dict[str, _Place] = {}
        self._ways: dict[str, _Place] = {}

    def judge(self, path: str) -> tuple[Finding, ...]:
        """Find out who could change a plugin.

        Args:
            path: An absolute path to a file.

        Returns:
            What is wrong from the root downwards, refusals and warnings.

        Raises:
            OSError: The path, or a link on it, leads nowhere.
        """
        directory, _, name = path.rpartition("/")
        way = self._ways.get(directory)
        if way is None:
            way = self._ways[directory] = self._walk(self._directory("/"), directory)
        end = self._walk(way, name)
        found = end.findings
        if not stat.S_ISDIR(end.facts.st_mode):
            found += self._file(end)
        worst: dict[tuple[str, str], Finding] = {}
        for finding in found:
            told = worst.setdefault((finding.path, finding.mend), finding)
            if finding.refuse and not told.refuse:
                worst[finding.path, finding.mend] = finding
        return tuple(worst.values())

    def _walk(self, start: _Place, path: str) -> _Place:
        """Follow a path name by name as the kernel does, and collect what is found on the way."""
        here, found = start, start.findings
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
            found += here.findings
        return _Place(here.path, here.facts, tuple(dict.fromkeys(found)))

    def _directory(self, path: str, facts: os.stat_result | None = None) -> _Place:
        """Judge a directory itself; in a sticky one each entry is judged by its owner."""
        place = self._directories.get(path)
        if place is None:
            facts = self._facts.lstat(path) if facts is None else facts
            found: tuple[Finding, ...] = ()
            if not facts.st_mode & stat.S_ISVTX:
                found += self._writable(path, facts, "directory ")
            if facts.st_uid not in self._trusted and not self._facts.is_read_only(path):
                found += (self._foreign(path, facts, "directory ", refuse=False),)
            place = self._directories[path] = _Place(path, facts, found)
        return place

    def _entry(self, parent: _Place, entry: str, facts: os.stat_result) -> tuple[Finding, ...]:
        """Judge who may replace an entry of a sticky directory."""
        mode = parent.facts.st_mode
        if not mode & stat.S_ISVTX or not mode & (stat.S_IWOTH | stat.S_IWGRP):
            return ()
        if facts.st_uid in self._trusted or self._facts.is_read_only(parent.path):
            return ()
        everyone = bool(mode & stat.S_IWOTH)
        who = "everyone" if everyone else "a group"
        text = f"belongs to user {facts.st_uid} in a directory that {who} can write to"
        return (_finding(everyone, entry, quoted(entry), text, self._chown(entry)),)

    def _file(self, place: _Place) -> tuple[Finding, ...]:
        """Judge the plugin's own file."""
        found = self._writable(place.path, place.facts, "")
        if place.facts.st_uid not in self._trusted:
            found += (self._foreign(place.path, place.facts, "", refuse=self._uid == 0),)
        return found

    def _writable(self, path: str, facts: os.stat_result, kind: str) -> tuple[Finding, ...]:
        others = bool(facts.st_mode & stat.S_IWOTH)
        group = bool(facts.st_mode & stat.S_IWGRP)
        if not (others or group) or self._facts.is_read_only(path):
            return ()
        who, what = ("everyone", "o-w") if others else (f"group {facts.st_gid}", "g-w")
        if others and group:
            what = "go-w"
        text = f"can be written by {who}"
        mend = f"chmod {what} {_shell_word(path)}"
        return (_finding(others, path, kind + quoted(path), text, mend),)

    def _foreign(self, path: str, facts: os.stat_result, kind: str, *, refuse: bool) -> Finding:
        text = f"belongs to user {facts.st_uid}"
        return _finding(refuse, path, kind + quoted(path), text, self._chown(path))

    def _chown(self, path: str) -> str:
        owner = "root" if self._uid == 0 else str(self._uid)
        return f"chown -h {owner} {_shell_word(path)}"


def _finding(refuse: bool, path: str, subject: str, text: str, mend: str) -> Finding:
    return Finding(refuse, path, f"{subject} {text}: {mend}", mend)


def _shell_word(path: str) -> str:
    """Write a path so that a shell reads it and it stays on one line."""
    if path.isprintable():
        return shlex.quote(path)
    return "$" + quoted(path.replace("\\", "\\\\").replace("'", "\\'"))
