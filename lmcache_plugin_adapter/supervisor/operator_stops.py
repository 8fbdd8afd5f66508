# SPDX-License-Identifier: Apache-2.0
"""The plugins that an operator has stopped: they stay stopped until `start`.

Kept in the supervisor's runtime directory, so that reloads, changed files and a
replaced supervisor start none of them.
"""

from __future__ import annotations

import os

from lmcache_plugin_adapter.contract.runtime_dir import STOPPED_FILE, write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.contract.runtime_dir import InstanceDir

_MOST_BYTES = 1 << 20


class OperatorStops:
    """Remember plugins by path.

    Args:
        warn: Logs a warning.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._paths: set[str] = set()
        self._instance: InstanceDir | None = None

    def __contains__(self, path: str) -> bool:
        return path in self._paths

    def keep_in(self, instance: InstanceDir) -> None:
        """Keep them in ``instance``, and take over those of a previous supervisor."""
        self._instance = instance
        try:
            with open(instance.file(STOPPED_FILE), "rb") as file:
                noted = file.read(_MOST_BYTES).split(b"\0")[:-1]
        except OSError:
            noted = []  # nothing was stopped
        noted_paths = set(map(os.fsdecode, noted))
        self._paths |= noted_paths
        if self._paths != noted_paths:  # the file was removed
            self.save()

    def add(self, paths: set[str]) -> None:
        """Remember that an operator has stopped the plugins at ``paths``."""
        if not paths <= self._paths:
            self._paths |= paths
            self.save()

    def discard(self, paths: set[str]) -> None:
        """Forget ``paths``: an operator has started these plugins."""
        if paths & self._paths:
            self._paths -= paths
            self.save()

    def save(self) -> None:
        """Write the file."""
        if self._instance is None:
            return
        data = b"".join(os.fsencode(path) + b"\0" for path in sorted(self._paths))
        try:
            write_whole(self._instance.file(STOPPED_FILE), data)
        except OSError as error:
            self._warn(
                f"Cannot keep which plugins are stopped ({error.strerror}): a supervisor that "
                "takes the place of this one would not know it"
            )
