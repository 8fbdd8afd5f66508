"""Find again what was being followed: after a restart, a rotation, a truncation."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from .segment import Place, Segment, digest_of, open_log

if TYPE_CHECKING:
    from collections.abc import Callable

    Report = Callable[[str, int], None]

_CANDIDATES = 200
"""Files of a directory that are looked at."""

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")
"""Endings of rotated files that cannot be read on."""

_ROTATED = re.compile(r"[.-]\d[\d.T:_-]*$")


def looks_rotated(path: str) -> bool:
    """Whether a file's name is that of a rotated one: ``vllm.log.1``, ``vllm.log-20261122``."""
    return path.endswith(COMPRESSED) or _ROTATED.search(path) is not None


def resume(path: str, max_line_bytes: int, places: list[Place], report: Report) -> list[Segment]:
    """Return the files that are to be read on, oldest first; say what is gone.

    Files that were rotated away are looked for in the directory, by inode and by their first
    bytes; those that were written and rotated in the meantime come after them.

    Args:
        path: What is followed.
        max_line_bytes: Longer lines are cut.
        places: What was remembered, oldest first.
        report: Called with a sentence, and the bytes that are lost, if any are known.
    """
    files = siblings(path)
    try:
        segments = []
        taken: set[int] = set()
        for place in places:
            number = _find(place, files, taken)
            if number is not None:
                taken.add(number)
                segments.append(Segment(os.dup(files[number].fd), max_line_bytes, place))
            else:
                lost = place.size - place.offset
                report(_gone(path, place.offset, lost), lost)
        now = _key(path)
        last = max(taken, default=None, key=lambda number: files[number].mtime)
        if last is not None and all(files[number].key != now for number in taken):
            for number, file in enumerate(files):
                between = number not in taken and file.mtime >= files[last].mtime
                if between and file.key != now and file.rotated:
                    segments.append(Segment(os.dup(file.fd), max_line_bytes))
        return segments
    finally:
        for file in files:
            os.close(file.fd)


def copy_of(segment: Segment, path: str) -> int | None:
    """Return a descriptor of a copy of a file that has been truncated since, or None."""
    files = siblings(path)
    try:
        for file in reversed(files):
            if file.key != segment.key and segment.matches(file.fd):
                return os.dup(file.fd)
        return None
    finally:
        for file in files:
            os.close(file.fd)


class Sibling:
    """An open file that may have been ``path`` before.

    Args:
        fd: Its descriptor.
        rotated: Whether its name says so.
    """

    def __init__(self, fd: int, *, rotated: bool) -> None:
        found = os.fstat(fd)
        self.fd = fd
        self.key = (found.st_dev, found.st_ino)
        self.mtime = found.st_mtime_ns
        self.size = found.st_size
        self.rotated = rotated


def siblings(path: str) -> list[Sibling]:
    """Return the files in the directory of ``path`` with names like it, oldest first.

    ``vllm.log.1``, ``vllm.log-20261122``, ``vllm-20261122.log``; not compressed ones.
    """
    directory, base = os.path.split(path)
    stem, extension = os.path.splitext(base)
    try:
        with os.scandir(directory or ".") as entries:
            names = [entry.name for entry in entries if entry.name.startswith(stem)]
    except OSError:
        return []
    files = []
    for name in sorted(name for name in names if not name.endswith(COMPRESSED))[:_CANDIDATES]:
        with contextlib.suppress(OSError):
            fd = open_log(os.path.join(directory, name))
            if fd is not None:
                bare = name.removesuffix(extension) if extension else name
                rotated = name != base and looks_rotated(bare if bare != stem else name)
                files.append(Sibling(fd, rotated=rotated))
    return sorted(files, key=lambda file: file.mtime)


def _find(place: Place, files: list[Sibling], taken: set[int]) -> int | None:
    """Return the number of the file that ``place`` is about."""
    same = None
    for number, file in enumerate(files):
        if number in taken or file.size < place.offset:
            continue
        if place.length:
            head = os.pread(file.fd, place.length, place.base)
            if len(head) < place.length or digest_of(head) != place.digest:
                continue
        if file.key == (place.device, place.inode):
            return number
        if place.length:
            same = number  # a copy, or a file system that numbers anew
    return same


def _gone(path: str, offset: int, lost: int) -> str:
    what = f"at least {lost:,} bytes are lost" if lost > 0 else "what was added to it is lost"
    return f"{path!r} is not the file that was delivered up to byte {offset:,}; {what}"


def _key(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
