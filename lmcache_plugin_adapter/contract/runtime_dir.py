# SPDX-License-Identifier: Apache-2.0
"""The private directory of a user's supervisors: control sockets and configuration files.

Each supervisor has one directory in it and holds a lock on it. An unlocked
directory is a leftover of a killed supervisor.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from lmcache_plugin_adapter.linux.procfs import read_process

from .run_token import engine_is_gone, engine_lives

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

DIRECTORY_VARIABLE = "LMCACHE_PLUGINS_RUNTIME_DIR"

CONTROL_SOCKET = "control.sock"
CONFIG_NAME = "config.json"
ENDING_NAME = "ending"
STOPPED_FILE = "stopped"
REPORTED_FILE = "reported"
"""The problems that the supervisor has logged, for the other processes of its replica."""
PROCESSES_FILE = "processes"
"""Pid and start time of each first process, one a line: the next supervisor ends what they left."""

_PROCESSES_BYTES = 1 << 18
"""The size at which processes that have exited are dropped from the file."""

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_SECONDS = 1.0
"""How long a supervisor waits for the lock on its directory, which is held for moments only."""

_LOCK_PAUSE = 0.01

_USERS_MODE = 0o711
_DEPTH = 32
"""How deep directories in the directory of a supervisor are removed."""

_DOTS = 4
"""Dots in the name of an instance: three in the run token, one before the role."""


def candidates(environ: Mapping[str, str]) -> list[str]:
    """Return the possible runtime directories, in order of preference."""
    chosen = environ.get(DIRECTORY_VARIABLE)
    name = f"lmcache-plugins-{os.getuid()}"
    return ([os.path.abspath(chosen)] if chosen else []) + [
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


def open_root(
    environ: Mapping[str, str], skip: Container[str] = ()
) -> tuple[str | None, list[str]]:
    """Return the first usable runtime directory, created if missing, and why others are not.

    Args:
        environ: The environment, which may name one.
        skip: Directories that have turned out to be unusable.
    """
    reasons = []
    for path in candidates(environ):
        if path in skip:
            continue
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


def make_users_directory(path: bytes | str) -> None:
    """Create a directory in which other users can open files of theirs, if it is missing.

    Raises:
        OSError: It cannot be created.
    """
    try:
        os.mkdir(path, _USERS_MODE)
        os.chmod(path, _USERS_MODE)  # whatever the umask
    except FileExistsError:
        pass


def is_users_directory(path: bytes | str) -> bool:
    """Whether a path is such a directory, and of this user."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return found.st_mode == stat.S_IFDIR | _USERS_MODE and found.st_uid == os.geteuid()


def other_instances(environ: Mapping[str, str], run_id: str, role: str) -> list[str]:
    """Return the directories of other launches by the engine that made ``run_id``."""
    engine = run_id.rpartition(".")[0] + "."
    found = []
    for root in candidates(environ):
        for name in _entries(root) if why_unusable(root) is None else ():
            token, _, its_role = name.rpartition(".")
            if token.startswith(engine) and token != run_id and its_role == role:
                found.append(f"{root}/{name}")
    return found


def instance_path(root: str, run_id: str, label: str) -> str:
    """Return the directory of the supervisor of a run, for the process with this label."""
    return f"{root}/{run_id}.{label.replace(' ', '-')}"


class InstanceDir:
    """The directory of one supervisor.

    Raises:
        OSError: The directory cannot be created.
    """

    def __init__(self, root: str, run_id: str, role: str) -> None:
        self.path = instance_path(root, run_id, role)
        self.fd = _lock(self.path)
        """A descriptor of the directory, which holds the lock."""
        try:
            os.unlink(self.file(ENDING_NAME))
        except OSError:
            pass  # there was no previous supervisor

    def file(self, name: str) -> str:
        """Return the path of a file in the directory."""
        return f"{self.path}/{name}"

    def recorded(self) -> list[tuple[int, int]]:
        """Return pid and start time of the first processes that were recorded here."""
        return _recorded_in(self.fd)

    def record(self, pids: Iterable[int]) -> None:
        """Record first processes, so that the next supervisor can end what they leave."""
        processes = filter(None, map(read_process, pids))
        lines = b"".join(b"%d %d\n" % (each.pid, each.start) for each in processes)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(PROCESSES_FILE, flags, 0o600, dir_fd=self.fd)
        except OSError:
            return  # a full disk, or a directory that is gone: the run token is left
        try:
            if os.fstat(fd).st_size > _PROCESSES_BYTES:
                kept = [pair for pair in self.recorded() if _has_group(pair[0])]
                os.ftruncate(fd, 0)
                os.write(fd, b"".join(b"%d %d\n" % pair for pair in kept))
            os.write(fd, lines)
        except OSError:
            pass  # as above
        finally:
            os.close(fd)

    def write_exit_reason(self, why: str) -> None:
        """Write the reason for a SIGTERM, for plugins that read it (see the plugin contract)."""
        try:
            write_whole(self.file(ENDING_NAME), f"{why}\n".encode())
        except OSError:
            pass  # a full disk: plugins find no file

    def remove(self) -> None:
        """Remove the directory and its content."""
        remove_instance(self.path)
        os.close(self.fd)

    def replace(self, other: InstanceDir) -> None:
        """Take the descriptor's number of a directory that is gone: paths of plugins have it."""
        fd, self.fd = self.fd, os.dup2(self.fd, other.fd, inheritable=False)
        os.close(fd)


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


def remove_stale(
    root: str,
    end: Callable[[list[tuple[int, int]]], object] = lambda _recorded: None,
    seconds: float = 0.0,
) -> int:
    """Remove directories of supervisors that were killed together with their engines.

    Args:
        root: The runtime directory.
        end: Called with the recorded first processes of an engine of this PID namespace.
        seconds: How long to try again while a process holds the lock of such a directory. A
            killed supervisor holds it until it is dead, and so does a child of it until its exec.
    """
    deadline = time.monotonic() + seconds
    pause = _LOCK_PAUSE
    removed = 0
    while True:
        held = False
        for name in _entries(root):
            if name.count(".") != _DOTS or engine_lives(name):
                continue  # no instance, or one that the next supervisor of its engine takes over
            try:
                removed += remove_unheld(f"{root}/{name}", end)
            except OSError:
                held = held or engine_is_gone(name.rpartition(".")[0])
        if not held or time.monotonic() > deadline:
            return removed
        time.sleep(pause)
        pause = min(2 * pause, _LOCK_SECONDS)


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []  # somebody has removed it


def remove_unheld(
    path: str, end: Callable[[list[tuple[int, int]]], object] = lambda _recorded: None
) -> bool:
    """Remove the directory of a dead supervisor; return whether there was one.

    Raises:
        OSError: A process holds its lock, or has just written into it.
    """
    try:
        fd = os.open(path, _OPEN)
    except OSError:
        return False  # removed meanwhile, or no directory
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if engine_is_gone(os.path.basename(path).rpartition(".")[0]):
            end(_recorded_in(fd))
        remove_instance(path)
        if os.path.lexists(path):
            raise FileExistsError(path)
        return True
    finally:
        os.close(fd)


def _lock(path: str) -> int:
    """Create and lock ``path``; another process may remove it in between as stale."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass  # of the previous supervisor of the same engine
        try:
            fd = os.open(path, _OPEN)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                os.close(fd)
                raise OSError(error.errno, "another process holds its lock") from error
            time.sleep(_LOCK_PAUSE)
        os.close(fd)


def remove_instance(path: str) -> None:
    """Remove the directory of a supervisor and all in it, as far as possible; follow no link."""
    try:
        fd = os.open(path, _OPEN)
    except OSError:
        return  # removed meanwhile
    try:
        _clear(fd, _DEPTH)
        os.rmdir(path)
    except OSError:
        pass  # read-only, or a plugin has just written into it
    finally:
        os.close(fd)


def _clear(directory: int, depth: int) -> None:
    """Remove all in a directory: the files first, as they may hold secrets."""
    subdirectories = []
    for name in os.listdir(directory):
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            subdirectories.append(name)
        except OSError:
            continue
    for name in subdirectories if depth else ():
        try:
            fd = os.open(name, _OPEN, dir_fd=directory)
        except OSError:
            continue
        try:
            _clear(fd, depth - 1)
            os.rmdir(name, dir_fd=directory)
        except OSError:
            continue
        finally:
            os.close(fd)


def _recorded_in(directory: int) -> list[tuple[int, int]]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(PROCESSES_FILE, flags, dir_fd=directory)
    except OSError:
        return []
    try:
        lines = os.read(fd, 2 * _PROCESSES_BYTES).split(b"\n")
    except OSError:
        return []
    finally:
        os.close(fd)
    pairs = (line.split() for line in lines)
    return [(int(p[0]), int(p[1])) for p in pairs if len(p) == 2 and all(map(bytes.isdigit, p))]


def recorded_processes(path: str) -> list[tuple[int, int]]:
    """Return pid and start time of the first processes that a supervisor recorded in ``path``."""
    try:
        fd = os.open(path, _OPEN)
    except OSError:
        return []
    try:
        return _recorded_in(fd)
    finally:
        os.close(fd)


def _has_group(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # of another user
    return True
