"""The private directory of a user's supervisors: control sockets and configuration files.

Each supervisor has one directory in it and holds a lock on it. An unlocked
directory is a leftover of a killed supervisor.
"""

from __future__ import annotations

import fcntl
import os
import stat

from .run_token import engine_lives

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DIRECTORY_VARIABLE = "LMCACHE_PLUGINS_RUNTIME_DIR"

CONTROL_SOCKET = "control.sock"
CONFIG_FILE = "config.json"
ENDING_FILE = "ending"
STOPPED_FILE = "stopped"

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DOTS = 4
"""Dots in the name of an instance: three in the run token, one before the role."""


def candidates(environ: Mapping[str, str]) -> list[str]:
    """Return the possible runtime directories, in order of preference."""
    chosen = environ.get(DIRECTORY_VARIABLE)
    name = f"lmcache-plugins-{os.getuid()}"
    return ([chosen] if chosen else []) + [
        f"/run/{name}",
        f"/dev/shm/{name}",  # noqa: S108 - owner and mode are checked
        f"/tmp/{name}",  # noqa: S108 - likewise
    ]


def why_unusable(path: str) -> str | None:
    """Return why ``path`` is not a private directory of this user, or None if it is."""
    try:
        found = os.lstat(path)
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a directory"
    if found.st_uid != os.getuid():
        return f"it belongs to user {found.st_uid}"
    if found.st_mode & 0o077:
        return f"others may enter it: chmod 700 '{path}'"
    if not os.access(path, os.W_OK | os.X_OK):
        return "it is not writable"
    return None


def open_root(environ: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """Return the first usable runtime directory, created if missing, and why others are not."""
    reasons = []
    for path in candidates(environ):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            reasons.append(f"'{path}': {error.strerror}")
            continue
        reason = why_unusable(path)
        if reason is None:
            return path, reasons
        reasons.append(f"'{path}': {reason}")
    return None, reasons


class InstanceDir:
    """The directory of one supervisor.

    Raises:
        OSError: The directory cannot be created.
    """

    def __init__(self, root: str, run_id: str, role: str) -> None:
        self.path = f"{root}/{run_id}.{role}"
        self.fd = _lock(self.path)
        """A descriptor of the directory, which holds the lock."""
        try:
            os.unlink(self.file(ENDING_FILE))
        except OSError:
            pass  # there was no previous supervisor

    def file(self, name: str) -> str:
        """Return the path of a file in the directory."""
        return f"{self.path}/{name}"

    def say_ending(self, why: str) -> None:
        """Write the reason for a SIGTERM, for plugins that read it (see the plugin contract)."""
        try:
            write_whole(self.file(ENDING_FILE), f"{why}\n".encode())
        except OSError:
            pass  # a full disk: plugins find no file

    def remove(self) -> None:
        """Remove the directory and its content."""
        remove_instance(self.path)
        self.release()

    def release(self) -> None:
        """Release the lock: the directory is another one's, or nobody's."""
        os.close(self.fd)


def write_whole(path: str, data: bytes) -> None:
    """Write a file (0600) that readers find as a whole or, on an error, as it was before.

    Raises:
        OSError: It cannot be written.
    """
    new = f"{path}.new"
    try:
        os.unlink(new)
    except FileNotFoundError:
        pass
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(new, flags, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        os.rename(new, path)
    except OSError:
        try:
            os.unlink(new)
        except OSError:
            pass
        raise


def remove_stale(root: str) -> int:
    """Remove directories of supervisors that were killed together with their engines."""
    removed = 0
    for name in os.listdir(root):
        if name.count(".") != _DOTS or engine_lives(name):
            continue  # not an instance, or one that the next supervisor of its engine takes over
        path = f"{root}/{name}"
        try:
            fd = os.open(path, _OPEN)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_instance(path)
            removed += 1
        except OSError:
            pass  # in use
        finally:
            os.close(fd)
    return removed


def _lock(path: str) -> int:
    """Create and lock ``path``; another process may remove it in between as stale."""
    while True:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass  # of the previous supervisor of the same engine
        try:
            fd = os.open(path, _OPEN)
        except FileNotFoundError:
            continue
        fcntl.flock(fd, fcntl.LOCK_SH)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)


def remove_instance(path: str) -> None:
    """Remove the directory of a supervisor and its content."""
    try:
        for name in os.listdir(path):
            os.unlink(f"{path}/{name}")
        os.rmdir(path)
    except OSError:
        pass  # removed meanwhile, or read-only
