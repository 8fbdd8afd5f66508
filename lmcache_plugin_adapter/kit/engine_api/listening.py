# SPDX-License-Identifier: Apache-2.0
"""Find out from the kernel which process listens at an address."""

from __future__ import annotations

import os

_LISTENING_TCP = "0A"
_LISTENING_UNIX = 0x10000  # __SO_ACCEPTCON


def listens(pid: int, port: int, socket: str | None = None) -> bool | None:
    """Return whether a process listens on a TCP port, or on a unix socket if one is given.

    Returns:
        None if this is unknown, because the process belongs to another user.
    """
    try:
        return _has_one(pid, _listening(pid, port, socket))
    except PermissionError:
        return None
    except (FileNotFoundError, ProcessLookupError):
        return False


def others_listen(pid: int, port: int, socket: str | None = None) -> bool:
    """Return whether a process listens, but not the process ``pid``."""
    try:
        inodes = _listening(pid, port, socket)
        return bool(inodes) and not _has_one(pid, inodes)
    except OSError:
        return False


def _listening(pid: int, port: int, socket: str | None) -> set[str]:
    return _unix(pid, socket) if socket else _tcp(pid, port)


def _has_one(pid: int, inodes: set[str]) -> bool:
    """Return whether a process has one of these sockets open."""
    if not inodes:
        return False
    with os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            try:
                target = os.readlink(entry.path)
            except FileNotFoundError:
                continue  # closed meanwhile
            if target.startswith("socket:[") and target[8:-1] in inodes:
                return True
    return False


def _tcp(pid: int, port: int) -> set[str]:
    """Return the inodes of sockets that listen on ``port`` in the network namespace of ``pid``."""
    inodes = set()
    mark = f":{port:04X} "
    for name in ("tcp", "tcp6"):
        for line in _lines(f"/proc/{pid}/net/{name}"):
            if mark not in line:  # skip most of possibly thousands
                continue
            row = line.split()
            if row[3] == _LISTENING_TCP and row[1].endswith(mark.rstrip()):
                inodes.add(row[9])
    return inodes


def _unix(pid: int, path: str) -> set[str]:
    """Return the inodes of sockets that listen at ``path``."""
    inodes = set()
    for line in _lines(f"/proc/{pid}/net/unix"):
        row = line.rstrip("\n").split(maxsplit=7)
        if row[7:] == [path] and int(row[3], 16) & _LISTENING_UNIX:
            inodes.add(row[6])
    return inodes


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.readlines()[1:]
    except FileNotFoundError:  # no IPv6, or no such process
        return []
