"""Wait for all children of the supervisor, in one place.

The supervisor is a subreaper: its children are the first processes of plugins,
the searches for plugins, and every orphan of a plugin.
"""

from __future__ import annotations

import os
from functools import partial

from lmcache_plugin_adapter.linux.procfs import ProcessTable

from .leftovers import leftovers_of
from .spawn import EXEC_FAILED_CODE, EXEC_REPORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from lmcache_plugin_adapter.linux.event_loop import Loop

    class Owner(Protocol):
        """The plugin that a first process belongs to."""

        def exec_failed(self, number: int) -> None:
            """Handle that the child could not exec; ``number`` is the error's."""

        def exited(self, status: int, table: ProcessTable | None) -> None:
            """Handle the exit of the first process."""

    class Ending(Protocol):
        """Processes that are being ended."""

        def check(self, table: ProcessTable) -> None:
            """Check which of the processes are left."""

        def finish(self) -> None:
            """Handle that no process is left."""


class Reaper:
    """Wait for children and report their exits.

    Args:
        loop: The supervisor's loop.
        reports: The pipe on which children report that they cannot exec.
        run_id: The run token, which marks all processes that plugins start.
    """

    def __init__(self, loop: Loop, reports: int, run_id: bytes) -> None:
        self.loop = loop
        self.run_id = run_id
        self._reports = reports
        self.first_processes: dict[int, Owner] = {}
        """The first processes of plugins that have not been reaped."""
        self.searches: set[int] = set()
        """The searches for plugins that have not been reaped."""
        self.endings: dict[Ending, None] = {}
        """Checked whenever a child has exited."""
        loop.watch(reports, self._read_reports)

    def reap(self, check: bool = True) -> bool:
        """Reap the children that have exited.

        Args:
            check: Read the process table and check the processes that are being
                ended.

        Returns:
            Whether no child is left, which means no descendant either.
        """
        exited: list[tuple[Owner, int]] = []
        orphans = False
        childless = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                childless = True
                break
            if not pid:
                break
            if os.waitstatus_to_exitcode(status) == EXEC_FAILED_CODE:
                self._read_reports()  # written before the exit; useless after the reaping
            owner = self.first_processes.pop(pid, None)
            if owner is not None:
                exited.append((owner, status))
            elif pid in self.searches:
                self.searches.remove(pid)
            else:
                orphans = True
        table = None
        if check and (exited or (orphans and self.endings)):
            table = ProcessTable()
        for owner, status in exited:
            self.loop.attempt(partial(owner.exited, status, table))
        if table is not None:
            self.check(table)
        return childless

    def leftovers_of(self, table: ProcessTable, pid: int, name: str) -> set[int]:
        """Return the processes of the run of plugin ``name`` whose first process is ``pid``."""
        return leftovers_of(table, pid, name, self.run_id, self.first_processes)

    def check(self, table: ProcessTable) -> None:
        """Check the processes that are being ended."""
        for ending in list(self.endings):
            self.loop.attempt(partial(ending.check, table))

    def _read_reports(self) -> None:
        while True:
            try:
                data = os.read(self._reports, EXEC_REPORT.size * 128)
            except BlockingIOError:
                return
            for pid, number in EXEC_REPORT.iter_unpack(data):
                owner = self.first_processes.get(pid)
                if owner is not None:
                    self.loop.attempt(partial(owner.exec_failed, number))
