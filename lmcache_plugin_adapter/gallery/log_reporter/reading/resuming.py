# SPDX-License-Identifier: Apache-2.0
"""Find followed files again after a restart, a rotation or a truncation."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.messages.wording import counted

from .tailed_file import FilePosition, TailedFile, open_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = Callable[[str, int], None]

_CANDIDATES = 200
"""The most files of a directory that are examined."""

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")
"""Suffixes of rotated files that cannot be followed."""

_DATE = r"[._-]\d{4}-?\d{2}-?\d{2}(?:[\dT:_+-]*(?:[.,]\d{1,9})?(?:Z|[+-]\d{2}:?\d{2})?)"
_SUFFIX = re.compile(rf"(?:\.\d{{1,4}}|{_DATE})$")
_NUMBER = re.compile(r"[0-9]{1,4}")
_INSIDE = re.compile(rf"(?:\.\d{{1,4}}|{_DATE})(?=\.[^./]*$)")


def looks_rotated(path: str) -> bool:
    """Tell whether a name ends like a rotated file's: ``vllm.log.1``, ``vllm.log-20261122``."""
    return path.endswith(COMPRESSED) or _SUFFIX.search(path) is not None


def without_date(path: str) -> str:
    """Return ``vllm.log`` for ``vllm-20261122.log`` or ``vllm.1.log``; return others unchanged."""
    return _INSIDE.sub("", path)


class Sibling:
    """An open file that may have had the path before.

    Args:
        fd: The descriptor.
        number: The number that rotation appended to its name: a higher one is older; 0: none.
        rotated: Whether its name is that of a rotated file.
        named: Whether its name is the path's own.
    """

    def __init__(self, fd: int, number: int, *, rotated: bool, named: bool) -> None:
        found = os.fstat(fd)
        self.fd = fd
        self.key = (found.st_dev, found.st_ino)
        self.mtime = found.st_mtime_ns
        self.age = (-found.st_mtime_ns, number)
        self.size = found.st_size
        self.rotated = rotated
        self.related = rotated or named
        """Whether its name says that it belongs to the path; others are files of their own."""


def resume(
    path: str, max_line_bytes: int, positions: list[FilePosition], report: Report
) -> list[TailedFile]:
    """Return the files to continue with, oldest first; report the missing ones.

    Rotated files are searched for in the directory, by inode and by their first bytes. Files that
    were written and rotated in the meantime follow them.

    Args:
        path: The followed path.
        max_line_bytes: Longer lines are cut.
        positions: The stored positions, oldest first.
        report: Called with a sentence and the number of lost bytes, as far as known.

    Raises:
        OSError: A file cannot be read.
    """
    tailed_files = []
    with siblings(path) as files:
        taken: set[int] = set()
        for position in positions:
            number = _find(position, files, taken)
            if number is None:
                lost = max(position.size - position.offset, 0)
                if lost or position is positions[-1]:
                    report(_gone(path, position.offset, lost), lost)
                continue
            taken.add(number)
            tailed_files.append(TailedFile(os.dup(files[number].fd), max_line_bytes, position))
    return tailed_files + between(path, tailed_files, max_line_bytes)


def between(path: str, known: list[TailedFile], max_line_bytes: int) -> list[TailedFile]:
    """Return the files that had the path after the known ones, and were rotated since.

    There are none if the last known file still has the path, or if no file is known.

    Args:
        path: The followed path.
        known: The files that are followed already, oldest first.
        max_line_bytes: Longer lines are cut.
    """
    now = _key(path)
    if not known or known[-1].key == now:
        return []
    since = known[-1].modified_ns
    keys = {tailed.key for tailed in known}
    with siblings(path) as files:
        return [
            TailedFile(os.dup(file.fd), max_line_bytes)
            for file in files
            if file.rotated
            and file.mtime >= since
            and file.key != now
            and file.key not in keys
            and not any(tailed.matches(file.fd) for tailed in known)
        ]


def copy_of(tailed: TailedFile, path: str) -> int | None:
    """Return a descriptor of the copy of a file that was then truncated, or None."""
    with siblings(path) as files:
        found = [
            file
            for file in reversed(files)
            if file.rotated and file.key != tailed.key and tailed.matches(file.fd)
        ]
        if not found or (tailed.is_unread and len(found) > 1):
            return None  # several files with the same beginning decide nothing
        return os.dup(found[0].fd)


def again(tailed: TailedFile, path: str) -> int | None:
    """Return a new descriptor of a file that cannot be read through the old one, or None."""
    with siblings(path) as files:
        for file in files:
            if file.key == tailed.key or (file.related and tailed.matches(file.fd)):
                return os.dup(file.fd)
    return None


@contextlib.contextmanager
def siblings(path: str) -> Iterator[list[Sibling]]:
    """Open the files in the directory of ``path`` with similar names, oldest first.

    Examples are ``vllm.log.1``, ``vllm.log-20261122`` and ``vllm-20261122.log``. Compressed files
    are left out.
    """
    directory, base = os.path.split(path)
    stem, extension = os.path.splitext(base)
    names = []
    with contextlib.suppress(OSError), os.scandir(directory or ".") as entries:
        names = [entry.name for entry in entries if entry.name.startswith(stem)]
    files: list[Sibling] = []
    try:
        for name in sorted(one for one in names if not one.endswith(COMPRESSED))[:_CANDIDATES]:
            with contextlib.suppress(OSError):
                fd = open_log(os.path.join(directory, name))
                if fd is not None:
                    suffix = name.removesuffix(extension).rpartition(".")[2]
                    number = int(suffix) if _NUMBER.fullmatch(suffix) else 0
                    rotated = _is_rotated(name, base, stem, extension)
                    files.append(Sibling(fd, number, rotated=rotated, named=name == base))
        yield sorted(files, key=lambda file: file.age, reverse=True)
    finally:
        for file in files:
            os.close(file.fd)


def _is_rotated(name: str, base: str, stem: str, extension: str) -> bool:
    if name.startswith(base):
        return _SUFFIX.fullmatch(name, len(base)) is not None
    middle = name[len(stem) :].removesuffix(extension)
    return _SUFFIX.fullmatch(middle) is not None


def _find(position: FilePosition, files: list[Sibling], taken: set[int]) -> int | None:
    """Return the index of the file with a stored position."""
    same, matches = None, 0
    for number, file in enumerate(files):
        if number in taken or file.size < position.offset:
            continue
        if not position.is_in(file.fd):
            continue
        if file.key == (position.device, position.inode):
            return number
        if position.length and file.related:
            same = number  # a copy, or a file system with new inode numbers
            matches += 1
    return same if position.tail or matches == 1 else None


def _gone(path: str, offset: int, unread: int) -> str:
    what = f"{path!r} is not the file that was delivered up to byte {offset:,}"
    if unread:
        are = "is" if unread == 1 else "are"
        return f"{what}: at least {counted(unread, 'byte')} of that {are} lost"
    return f"{what}: read from the beginning; if more was added to that, it is lost"


def _key(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
