# SPDX-License-Identifier: Apache-2.0
"""Measure the file systems that LMCache's local disk backend writes to."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PATIENCE = 1.0
"""Seconds to wait for a file system; one that hangs must not delay other measures."""


def disk_paths(config: Mapping[str, object]) -> list[str]:
    """Return the directories of LMCache's ``local_disk``, which may be several with commas."""
    value = config.get("local_disk")
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else []
    return [part.removeprefix("file://") for part in parts if part.removeprefix("file://")]


class BackendDisk:
    """Read the space of the fullest of these file systems.

    Args:
        paths: The directories; each may not exist yet.
        log: Logs a line.
    """

    def __init__(self, paths: list[str], log: Callable[[str], None]) -> None:
        self._paths = paths
        self._log = log
        self._logged: set[str] = set()
        self._thread: threading.Thread | None = None
        self._found: list[os.statvfs_result] = []
        if not paths:
            self._report("LMCache's 'local_disk' is not set")

    def read(self) -> dict[str, float]:
        """Return the values that are known."""
        if self._thread is None and self._paths:
            self._found = []
            self._thread = threading.Thread(target=self._look, name="disk", daemon=True)
            self._thread.start()
        if self._thread is not None:
            self._thread.join(_PATIENCE)
            if self._thread.is_alive():
                self._report(f"{', '.join(self._paths)} does not answer")
                return {}
            self._thread = None
        values: dict[str, float] = {}
        for found in self._found:
            blocks = found.f_blocks - found.f_bfree + found.f_bavail  # without those for root
            if not blocks:
                continue
            percent = 100.0 * (1 - found.f_bavail / blocks)
            free = float(found.f_bavail * found.f_frsize)
            values["backend_disk_percent"] = max(percent, values.get("backend_disk_percent", 0.0))
            least = values.get("backend_disk_free_bytes", free)
            values["backend_disk_free_bytes"] = min(free, least)
            if found.f_files:
                inodes = 100.0 * (1 - found.f_favail / found.f_files)
                most = values.get("backend_disk_inodes_percent", 0.0)
                values["backend_disk_inodes_percent"] = max(inodes, most)
        return values

    def _look(self) -> None:
        for path in self._paths:
            try:
                self._found.append(_statvfs(os.path.abspath(path)))
            except OSError as error:
                self._report(f"{path!r}: {error.strerror}")

    def _report(self, reason: str) -> None:
        if reason not in self._logged:
            self._logged.add(reason)
            self._log(
                f"Cannot measure the disk of LMCache's backend: {reason}; its rules stay quiet"
            )


def _statvfs(path: str) -> os.statvfs_result:
    """Return the file system of a path, or of its nearest parent that exists."""
    while True:
        try:
            return os.statvfs(path)
        except FileNotFoundError:
            if path == os.path.dirname(path):
                raise
            path = os.path.dirname(path)
