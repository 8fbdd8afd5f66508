# SPDX-License-Identifier: Apache-2.0
"""Find the supervisors of this host by their directories.

The content of a runtime directory is not trusted: owner and mode are checked,
and links are never followed.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.contract.runtime_dir import DIRECTORY_VARIABLE, candidates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_INSTANCE = re.compile(r"\d+\.\d+\.\d+\.[0-9a-f]+\.[\w-]+")
_USERS = re.compile(r"lmcache-plugins-(\d+)")
_USERS_ROOTS = ("/run", "/dev/shm", "/tmp")  # noqa: S108 - owner and mode are checked


@dataclass
class Address:
    """Where a supervisor's control socket is.

    Attributes:
        path: The supervisor's directory.
        uid: The user who owns the directory.
        peer_pid: The supervisor's pid in this PID namespace; 0 until a connection is made.
    """

    path: str
    uid: int
    peer_pid: int = 0

    def __str__(self) -> str:
        return f"the supervisor at '{self.path}'"


@dataclass
class SearchResult:
    """The result of a search for supervisors.

    Attributes:
        addresses: Directories that look like those of supervisors.
        problems: Runtime directories that were skipped, with the reason.
        searched: All runtime directories that were searched.
    """

    addresses: list[Address] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    searched: list[str] = field(default_factory=list)


def find_supervisors(environ: Mapping[str, str]) -> SearchResult:
    """Return the addresses of this user's supervisors; for root, of all users' supervisors.

    If ``LMCACHE_PLUGINS_RUNTIME_DIR`` is set, only those in that directory.
    """
    result = SearchResult()
    own = os.getuid()
    roots = candidates(environ)
    chosen = bool(environ.get(DIRECTORY_VARIABLE))
    for path in dict.fromkeys(roots[:1] if chosen else roots):
        _search(result, path, None if own == 0 else own)
    if own == 0 and not chosen:
        for path, uid in _roots_of_users():
            if path not in result.searched:
                _search(result, path, uid)
    return result


def _roots_of_users() -> Iterator[tuple[str, int]]:
    for parent in _USERS_ROOTS:
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(parent)):
                match = _USERS.fullmatch(name)
                if match is not None:
                    yield f"{parent}/{name}", int(match[1])


def _search(result: SearchResult, root: str, uid: int | None) -> None:
    """Add what one runtime directory holds; ``uid``: the required owner, None: any owner."""
    result.searched.append(root)
    try:
        fd = os.open(root, OPEN_DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as error:
        result.problems.append(f"cannot search '{root}': {error.strerror}")
        return
    try:
        stat = os.fstat(fd)
        if uid not in (None, stat.st_uid):
            reason = f"it belongs to user {stat.st_uid}, not to user {uid}"
        elif stat.st_mode & 0o077:
            reason = f"other users can access it: chmod 700 '{root}'"
        else:
            names = sorted(filter(_INSTANCE.fullmatch, os.listdir(fd)))
            result.addresses += [Address(f"{root}/{name}", stat.st_uid) for name in names]
            return
        result.problems.append(f"skipped '{root}': {reason}")
    finally:
        os.close(fd)
