# SPDX-License-Identifier: Apache-2.0
"""Reload after changes in the locations (``auto_reload``): the kernel reports them.

Loaded only with the setting. Nothing wakes up while nothing changes.
"""

from __future__ import annotations

import os
import struct
import time

from lmcache_plugin_adapter.contract.log_records import INFO, WARNING
from lmcache_plugin_adapter.linux.syscalls import change_descriptor, watch_changes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lmcache_plugin_adapter.linux.event_loop import Timer
    from lmcache_plugin_adapter.supervisor.services import Services

_QUIET_SECONDS = 1.0
"""Seconds from the last change to the reload."""

_EVENT = struct.Struct("=iIII")
_READ_BYTES = 1 << 16


class AutoReload:
    """Watch directories, and reload once their changes are over.

    Args:
        services: The loop and the log.
        reload: Searches for plugins again.
    """

    def __init__(self, services: Services, reload: Callable[[], None]) -> None:
        self._services = services
        self._reload = reload
        self._fd = -1
        self._watched: set[str] = set()
        self._timer: Timer | None = None
        self._due = 0.0
        self._problem = ""

    def watch(self, directories: Sequence[str]) -> None:
        """Watch these directories, too."""
        new = [directory for directory in directories if directory not in self._watched]
        problem = ""
        try:
            if self._fd < 0:
                self._fd = change_descriptor()
                self._services.loop.watch(self._fd, self._changed)
            elif any(map(_has_just_changed, new)):  # perhaps after the search
                self._reload_later()
            self._watched.clear()
            for directory in directories:
                try:
                    watch_changes(self._fd, directory)
                    self._watched.add(directory)
                except FileNotFoundError:
                    continue  # just removed: its parent reports that
                except OSError as error:
                    problem = f"'{directory}': {error.strerror}"
        except OSError as error:
            problem = error.strerror or str(error)
        if problem and problem != self._problem:
            text = "Cannot watch all locations for changes (auto_reload)"
            advice = "run 'lmcache-plugins reload' after changes"
            self._services.events.log(WARNING, f"{text}: {problem}; {advice}")
        self._problem = problem

    def close(self) -> None:
        """Stop watching."""
        if self._fd >= 0:
            self._services.loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _changed(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        if any(map(_matters, _names(data))):
            self._reload_later()

    def _reload_later(self) -> None:
        self._due = time.monotonic() + _QUIET_SECONDS
        if self._timer is None:
            self._wait()

    def _wait(self) -> None:
        self._timer = self._services.loop.call_later(self._due - time.monotonic(), self._elapsed)

    def _elapsed(self) -> None:
        self._timer = None
        if time.monotonic() < self._due:
            self._wait()
        elif not self._services.stopping:
            self._services.events.log(INFO, "A location has changed: reloading (auto_reload)")
            self._reload()


def _has_just_changed(directory: str) -> bool:
    try:
        return time.time() - os.stat(directory).st_mtime < 2 * _QUIET_SECONDS
    except OSError:
        return False


def _names(events: bytes) -> Iterator[bytes]:
    """Yield the names of changed entries; empty for a directory itself."""
    at = 0
    while at < len(events):
        _, _, _, size = _EVENT.unpack_from(events, at)
        at += _EVENT.size
        yield events[at : at + size].rstrip(b"\0")
        at += size


def _matters(name: bytes) -> bool:
    """Tell whether an entry may be a plugin, a directory of plugins, or a ConfigMap's data."""
    return name == b"..data" or not (
        name.startswith((b".", b"_")) or name.endswith((b"~", b".pyc", b".log", b".tmp"))
    )
