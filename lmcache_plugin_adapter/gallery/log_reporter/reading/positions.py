"""Remember across restarts how far each file has been delivered."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from typing import TYPE_CHECKING

import msgspec

from .tailed_file import Place  # noqa: TC001 (msgspec looks it up)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_VERSION = 1
_LIMIT = 16 * 1024 * 1024
"""A larger state file is none of ours."""


class _Saved(msgspec.Struct):
    version: int
    files: dict[str, list[Place]]


class StateError(Exception):
    """The state cannot be read or written; the text says why."""


def default_directory(environ: Mapping[str, str], plugin: str) -> str:
    """Return where a plugin's state stands if its settings do not say it.

    ``$XDG_STATE_HOME/lmcache-plugins/NAME``, else ``~/.local/state/lmcache-plugins/NAME``.
    """
    home = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "lmcache-plugins", _plain(plugin))


def name_for(label: str, patterns: Sequence[str], cwd: str) -> str:
    """Return the name of the directory for one engine process: what it is, and its files.

    Args:
        label: Role and rank.
        patterns: The files that are followed.
        cwd: What they are relative to.
    """
    absolute = sorted(os.path.join(cwd, pattern) for pattern in patterns)
    data = "\0".join(absolute).encode("utf-8", "surrogateescape")
    return f"{_plain(label)}-{hashlib.blake2b(data, digest_size=4).hexdigest()}"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-") or "log-reporter"


def _key(path: str) -> str:
    """Return a path as JSON can have it: bytes that are not UTF-8 stand behind a zero."""
    return re.sub("[\udc80-\udcff]", lambda byte: f"\0{ord(byte[0]) - 0xDC00:02x}", path)


def _path(key: str) -> str:
    return re.sub("\0([89a-f][0-9a-f])", lambda byte: chr(0xDC00 + int(byte[1], 16)), key)


class State:
    """The file with one target's places. One process holds it at a time.

    Args:
        directory: Where it stands; made if missing, for this user only.
        target: The target's name.

    Raises:
        StateError: The directory or the lock cannot be made.
    """

    def __init__(self, directory: str, target: str) -> None:
        self.path = os.path.join(directory, f"{_plain(target)}.json")
        self._lock = -1
        self._last = b""
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._lock = os.open(f"{self.path}.lock", flags, 0o600)
        except OSError as error:
            raise StateError(f"cannot write to {directory!r}: {error.strerror}") from None

    def try_lock(self) -> bool:
        """Whether the state is ours; another log reporter may hold it until it has ended."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks
        return True

    def load(self) -> dict[str, list[Place]] | None:
        """Return what was remembered; None if nothing was.

        Raises:
            StateError: The file is damaged or cannot be read.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot read {self.path!r}: {error.strerror}") from None
        try:
            with open(fd, "rb") as file:
                saved = msgspec.json.decode(file.read(_LIMIT), type=_Saved)
        except OSError as error:
            raise StateError(f"cannot read {self.path!r}: {error.strerror}") from None
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise StateError(f"{self.path!r} is damaged: {error}") from None
        if saved.version != _VERSION:
            raise StateError(f"{self.path!r} is of another version: {saved.version}")
        for place in (one for places in saved.files.values() for one in places):
            if min(place.offset, place.size, place.base, place.length) < 0:
                raise StateError(f"{self.path!r} is damaged: a position is below 0")
            if place.length > place.size or place.length > _LIMIT:
                raise StateError(f"{self.path!r} is damaged: a fingerprint is too long")
        return {_path(key): places for key, places in saved.files.items()}

    def save(self, files: dict[str, list[Place]]) -> None:
        """Replace the file at one stroke; nothing is written if nothing has changed.

        Raises:
            StateError: It cannot be written; the old one stays.
        """
        keys = {_key(path): places for path, places in files.items()}
        data = msgspec.json.encode(_Saved(_VERSION, keys))
        if data == self._last:
            return
        scratch = f"{self.path}.new"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(scratch)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(scratch, flags, 0o600), "wb") as file:
                file.write(data)
            os.replace(scratch, self.path)
        except OSError as error:
            raise StateError(f"cannot write {self.path!r}: {error.strerror}") from None
        self._last = data

    def close(self) -> None:
        """Leave the state to others."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
