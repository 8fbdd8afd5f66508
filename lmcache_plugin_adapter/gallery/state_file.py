# SPDX-License-Identifier: Apache-2.0
"""A file in which a plugin keeps state across restarts, locked by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def default_directory(environ: Mapping[str, str], plugin: str) -> str:
    """Return the directory for a plugin's state if its settings do not give one.

    ``$XDG_STATE_HOME/lmcache-plugins/NAME``, else ``~/.local/state/lmcache-plugins/NAME``.
    """
    home = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "lmcache-plugins", plain_name(plugin))


def plain_name(name: str) -> str:
    """Return a name that is safe in every file system."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-") or "log-reporter"


class StateFile:
    """A file that is replaced as a whole. All methods raise ``OSError``.

    Args:
        directory: Its directory; created if missing, for this user only.
        name: Its name without ``.json``.
    """

    def __init__(self, directory: str, name: str) -> None:
        self.path = os.path.join(directory, f"{name}.json")
        self._directory = directory
        self._lock = -1
        self._held = False

    def try_lock(self) -> bool:
        """Tell whether this process holds the file; another process may hold it until it exits."""
        if self._lock < 0:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._lock = os.open(f"{self.path}.lock", flags, 0o600)
        if not self._held:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError:
                pass  # a file system without locks
            self._held = True
        return True

    def read(self, limit: int) -> bytes | None:
        """Return the content, up to ``limit`` bytes; None if there is no file."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(self.path, flags)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return file.read(limit)

    def replace(self, data: bytes) -> None:
        """Replace the file atomically; without data, remove it."""
        scratch = f"{self.path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch if data else self.path)
        if data:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(scratch, flags, 0o600), "wb") as file:
                file.write(data)
            os.replace(scratch, self.path)

    def close(self) -> None:
        """Release the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
            self._held = False
