# SPDX-License-Identifier: Apache-2.0
"""The time of a plugin's last successful run, kept over reloads and for the next supervisor.

It is the time of an empty file in the supervisor's runtime directory.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lmcache_plugin_adapter.contract.runtime_dir import InstanceDir


def recorded_success(instance: InstanceDir | None, name: str) -> float | None:
    """Return when a run of a plugin last succeeded, in seconds since the epoch."""
    try:
        return None if instance is None else os.stat(_file(instance, name)).st_mtime
    except OSError:
        return None  # no run has succeeded yet


def record_success(instance: InstanceDir | None, name: str) -> float:
    """Record that a run of a plugin succeeds now, and return the time."""
    now = time.time()
    if instance is not None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(_file(instance, name), flags, 0o600)
            try:
                os.utime(fd, (now, now))
            finally:
                os.close(fd)
        except OSError:
            pass  # a full disk: the next supervisor does not know it
    return now


def _file(instance: InstanceDir, name: str) -> str:
    return instance.file(f"succeeded.{name.replace('/', '|')}")
