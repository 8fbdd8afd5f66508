# SPDX-License-Identifier: Apache-2.0
"""Wait for all children of the supervisor, in one place.

The supervisor is a subreaper: its children are the first processes of plugins,
the searches for plugins, and every orphan of a plugin.
"""

from __future__ import annotations

import os
import time
from functools import partial

from lmcache_plugin_adapter.linux.procfs import ProcessTable, own_children, read_process

from .leftovers import leftovers_of, marks_of
from .spawn import EXEC_FAILED_CODE, EXEC_REPORT, refusal_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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

        pid: int

        def check(self, table: ProcessTable) -> None:
            """Check which of the processes are left."""

        def finish(self) -> None:
            """Handle that no process is left."""


_LOOKS = 5
"""How often the process table is read again while it misses a child of this supervisor."""

_LOOK_PAUSE = 0.001


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
        self._unmarked: set[int] = set()
        """Orphans that carry no run token however often they are looked at."""
        self._just_exited: set[int] = set()
        self.on_unmarked: Callable[[int], None] = lambda _pid: None
        """Called once with an orphan that cannot be told from another plugin's."""
        self._refusals: set[str] = set()
        self.on_refusal: Callable[[str], None] = lambda _text: None
        """Called once with what the kernel refuses to the children before their exec."""
        loop.watch(reports, self._read_reports)

    def reap(self, check: bool = True) -> bool:
        """Reap the children that have exited.

        Args:
            check: Read the process table and check the processes that are being
                ended.

        Returns:
            Whether no child is left, which means no descendant either.
        """
        exited: list[tuple[int, Owner, int]] = []
        orphan_exited = False
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
                exited.append((pid, owner, status))
            elif pid in self.searches:
                self.searches.remove(pid)
            else:
                orphan_exited = True
            self._unmarked.discard(pid)
        self._just_exited = {pid for pid, _, _ in exited}
        table = None
        if check and (exited or (orphan_exited and self.endings)):
            # A supervisor without orphans spares itself the reading of all processes.
            spare = not self.endings and not self.has_orphans()
            table = ProcessTable(()) if spare else self.table(fresh=True)
        for _, owner, status in exited:
            self.loop.attempt(partial(owner.exited, status, table))
        if table is not None:
            self.check(table)
        return childless

    def has_orphans(self) -> bool:
        """Return whether plugins may have left processes; True if the kernel hides children."""
        children = own_children()
        return children is None or any(self._orphans(children))

    def table(self, fresh: bool = False) -> ProcessTable:
        """Return the process table, in which no child of this supervisor should be missing.

        While the table is read, a process that was listed may fork and exit: it is then a
        zombie, and its child is not in the list. The child is an orphan by then, which the
        kernel lists among the supervisor's children.

        Args:
            fresh: Read it now; otherwise it may be a moment old.

        Returns:
            A table that is ``complete``, unless processes start faster than it is read.
        """
        table = ProcessTable() if fresh else ProcessTable.recent()
        for _ in range(_LOOKS):
            if not self._is_incomplete(table):
                return table
            time.sleep(_LOOK_PAUSE)
            table = ProcessTable()
        orphans = table.by_pid.keys() & set(self._orphans(own_children() or ()))
        new = {pid for pid in orphans - self._unmarked if marks_of(table, pid)[0] is None}
        self._unmarked |= new
        known = self._just_exited.union(self.first_processes, (one.pid for one in self.endings))
        for pid in new:
            if not known.intersection((table.by_pid[pid].group, table.by_pid[pid].session)):
                self.loop.attempt(partial(self.on_unmarked, pid))
        table.complete = not self._is_incomplete(table)
        return table

    def _is_incomplete(self, table: ProcessTable) -> bool:
        """Return whether an orphan is missing in ``table``, or its marks could not be read.

        They cannot be read of a process that exits, or is just between two programs.
        """
        seen: set[int] = set()
        while True:
            new = set(self._orphans(own_children() or ())) - seen
            if not new:
                return False
            for pid in new:
                if pid in table.by_pid:
                    if marks_of(table, pid)[0] is None and pid not in self._unmarked:
                        return True
                    continue
                process = read_process(pid)
                if process is not None and not process.has_exited:
                    return True
            # The zombies among them have handed their children over: these are listed now.
            seen |= new

    def _orphans(self, children: Iterable[int]) -> Iterable[int]:
        return (
            pid for pid in children if pid not in self.first_processes and pid not in self.searches
        )

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
                refusal = refusal_text(number)
                if refusal is not None:
                    if refusal not in self._refusals:
                        self._refusals.add(refusal)
                        self.loop.attempt(partial(self.on_refusal, refusal))
                    continue
                owner = self.first_processes.get(pid)
                if owner is not None:
                    self.loop.attempt(partial(owner.exec_failed, number))
