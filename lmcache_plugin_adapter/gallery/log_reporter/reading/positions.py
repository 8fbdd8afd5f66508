# SPDX-License-Identifier: Apache-2.0
"""Store across restarts how far each file has been delivered."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

import msgspec

from lmcache_plugin_adapter.gallery.state_file import StateFile, plain_name

from .tailed_file import FilePosition

if TYPE_CHECKING:
    from collections.abc import Sequence

_VERSION = 1
_LIMIT = 16 * 1024 * 1024
"""A larger file was not written by this plugin."""


class _SavedPositions(msgspec.Struct):
    version: int
    files: dict[str, list[FilePosition]]


class StateError(Exception):
    """The positions cannot be read or written; the text says why."""


def name_for(label: str, patterns: Sequence[str], cwd: str) -> str:
    """Return the name of the directory for one engine process and its files.

    Args:
        label: Role and rank.
        patterns: The followed files.
        cwd: The directory that relative patterns refer to.
    """
    absolute = sorted(os.path.join(cwd, pattern) for pattern in patterns)
    data = "\0".join(absolute).encode("utf-8", "surrogateescape")
    return f"{plain_name(label)}-{hashlib.blake2b(data, digest_size=4).hexdigest()}"


def _key(path: str) -> str:
    """Return a path for JSON: bytes that are not UTF-8 are written in hex after a NUL."""
    return re.sub("[\udc80-\udcff]", lambda byte: f"\0{ord(byte[0]) - 0xDC00:02x}", path)


def _path(key: str) -> str:
    return re.sub("\0([89a-f][0-9a-f])", lambda byte: chr(0xDC00 + int(byte[1], 16)), key)


class Positions:
    """The file with the positions of one target. One process holds it at a time.

    Args:
        directory: Its directory; created if missing, for this user only.
        target: The target's name.
    """

    def __init__(self, directory: str, target: str) -> None:
        self._directory = directory
        self._file = StateFile(directory, plain_name(target))
        self._last = b""

    @property
    def path(self) -> str:
        """The file's path."""
        return self._file.path

    def try_lock(self) -> bool:
        """Tell whether this process holds the file; another log reporter may until it exits.

        Raises:
            StateError: The directory or the lock file cannot be created.
        """
        try:
            return self._file.try_lock()
        except OSError as error:
            raise StateError(f"cannot write to {self._directory!r}: {error.strerror}") from None

    def load(self) -> dict[str, list[FilePosition]] | None:
        """Return the stored positions; None if there are none.

        Raises:
            StateError: The file is damaged or unreadable.
        """
        try:
            data = self._file.read(_LIMIT)
            if data is None:
                return None
            saved = msgspec.json.decode(data, type=_SavedPositions)
        except OSError as error:
            raise StateError(f"cannot read {self.path!r}: {error.strerror}") from None
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise StateError(f"{self.path!r} is damaged: {error}") from None
        if saved.version != _VERSION:
            raise StateError(f"{self.path!r} is of another version: {saved.version}")
        for one in (one for positions in saved.files.values() for one in positions):
            if min(one.offset, one.size, one.base, one.length, one.tail) < 0:
                raise StateError(f"{self.path!r} is damaged: a position is below 0")
            if max(one.length, one.tail) > min(one.size, _LIMIT) or one.tail > one.offset:
                raise StateError(f"{self.path!r} is damaged: a fingerprint is too long")
        return {_path(key): positions for key, positions in saved.files.items()}

    def save(self, files: dict[str, list[FilePosition]]) -> None:
        """Replace the file atomically; write nothing if nothing has changed.

        Raises:
            StateError: The file cannot be written; the previous one stays.
        """
        keys = {_key(path): positions for path, positions in files.items()}
        data = msgspec.json.encode(_SavedPositions(_VERSION, keys))
        if data == self._last:
            return
        try:
            self._file.replace(data)
        except OSError as error:
            raise StateError(f"cannot write {self.path!r}: {error.strerror}") from None
        self._last = data

    def close(self) -> None:
        """Release the file."""
        self._file.close()
