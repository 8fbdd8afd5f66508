# SPDX-License-Identifier: Apache-2.0
"""Reap what an engine adopts: a subreaper, or PID 1, becomes the parent of supervisors.

When such a supervisor is killed, the engine becomes the parent of its plugins, too.
"""

from __future__ import annotations

import os

from lmcache_plugin_adapter.contract.runtime_dir import recorded_processes
from lmcache_plugin_adapter.contract.variables import RUN_ID
from lmcache_plugin_adapter.linux.procfs import (
    environment_of,
    own_children,
    read_process,
    variable,
)

from .unpatched import unpatched

_RUN_ID = RUN_ID.encode()


class AdoptedProcesses:
    """The processes of killed supervisors that have become children of this process.

    Args:
        run_id: The run token, which marks them.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id.encode()
        self._starts: dict[int, int] = {}

    def find(self, directory: str | None) -> None:
        """Find them after a supervisor was killed; no other child of the host is touched.

        Args:
            directory: The directory of the supervisor, which names its first processes.
        """
        recorded = dict(recorded_processes(directory) if directory is not None else ())
        for pid in own_children() or ():
            process = read_process(pid)
            if process is not None and (
                recorded.get(pid) == process.start
                or variable(environment_of(pid), _RUN_ID) == self._run_id
            ):
                self._starts[pid] = process.start

    def reap(self) -> None:
        """Reap those that have exited."""
        for pid, start in list(self._starts.items()):
            if reap_child(pid, start):
                del self._starts[pid]


def reap_child(pid: int, start: int) -> bool:
    """Reap a process if it is a child of this one; return False as long as it runs."""
    process = read_process(pid)
    if process is None or process.start != start or process.parent != os.getpid():
        return True
    if not process.has_exited:
        return False
    try:
        unpatched("os", "waitpid")(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # the host has reaped it
    return True
