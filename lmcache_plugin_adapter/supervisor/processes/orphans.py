# SPDX-License-Identifier: Apache-2.0
"""Find and kill the processes that a dead supervisor left, by the run token they carry.

If a supervisor is killed with SIGKILL, the plugins' first processes die with it
(parent-death signal). The processes that those had started survive; the run
token in their environment marks them. Processes that cleared their environment
or belong to another user cannot be found: a documented limit.
"""

from __future__ import annotations

import os
import signal
import time

from lmcache_plugin_adapter.contract.run_token import SUPERVISOR_NAME, engine_is_gone
from lmcache_plugin_adapter.contract.runtime_dir import recorded_processes, remove_unheld
from lmcache_plugin_adapter.contract.variables import RUN_ID
from lmcache_plugin_adapter.linux.procfs import (
    ProcessTable,
    arguments_of,
    command_of,
    environment_of,
    variable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    Recorded = Collection[tuple[int, int]]

_RUN_ID = RUN_ID.encode()

_SECONDS = 1.0
"""Seconds that killing orphans may take."""

_PAUSE = 0.005

_EMPTY_LOOKS = 2
"""Looks in a row that find none: a process that forks and exits while /proc is read hides one."""


def previous_supervisor(run_id: str, label: str) -> int:
    """Return a supervisor of a previous launch by the engine that made ``run_id``, or 0.

    Its command line ends in its run token and its label (:meth:`.SupervisorStart.start`).
    """
    mine = [run_id.encode(), label.encode()]
    engine = mine[0].rpartition(b".")[0]
    for pid in ProcessTable().by_pid:
        if command_of(pid) == SUPERVISOR_NAME and _is_trusted(pid):
            theirs = arguments_of(pid)[-2:]
            if theirs != mine and theirs[1:] == mine[1:] and theirs[0].startswith(engine + b"."):
                return pid
    return 0


def kill_left(run_id: str, recorded: Recorded) -> int:
    """Kill what a dead supervisor left, and return the number of processes.

    Args:
        run_id: The run token that marks them.
        recorded: Pid and start time of first processes, whose sessions and groups may
            hold processes without a mark.
    """
    mark = run_id.encode()
    return _kill_until_none(lambda table: _marked(table, mark) | _of_recorded(table, recorded))


def clear_launches(directories: Iterable[str]) -> None:
    """Kill what killed supervisors of earlier launches left, and remove their directories."""
    for path in directories:
        kill_left(os.path.basename(path).rpartition(".")[0], recorded_processes(path))
        try:
            remove_unheld(path)
        except OSError:
            pass  # its supervisor is still dying: the next engine of this user removes it


def kill_recorded(recorded: Recorded) -> int:
    """Kill first processes, and all in their sessions and groups, and return their number."""
    return _kill_until_none(lambda table: _of_recorded(table, recorded))


def kill_orphans() -> int:
    """Kill the plugins' processes of dead engines that no supervisor supervises."""
    return _kill_until_none(_orphans)


def _kill_until_none(find: Callable[[ProcessTable], set[int]]) -> int:
    deadline = time.monotonic() + _SECONDS
    killed: set[int] = set()
    empty_looks = 0
    while True:
        table = ProcessTable()
        found = find(table)
        empty_looks = 0 if found else empty_looks + 1
        if empty_looks == _EMPTY_LOOKS or time.monotonic() > deadline:
            return len(killed)
        killed |= found
        table.send(found, signal.SIGKILL)
        time.sleep(_PAUSE)


def _marked(table: ProcessTable, run_id: bytes) -> set[int]:
    me = os.getpid()
    return {
        pid
        for pid in table.by_pid
        if pid != me and variable(environment_of(pid), _RUN_ID) == run_id
    }


def _of_recorded(table: ProcessTable, recorded: Recorded) -> set[int]:
    """Return first processes, the members of their sessions and groups, and their descendants.

    A pid is not reused while it is the number of a session or a group.
    """
    ids = {}
    for pid, start in recorded:
        leader = table.by_pid.get(pid)
        if leader is None or leader.start == start:
            ids[pid] = start
    members = {
        pid
        for pid, process in table.by_pid.items()
        for id_ in (process.session, process.group)
        if (id_ in ids and process.start >= ids[id_]) or ids.get(pid) == process.start
    }
    return table.with_descendants(members) - {os.getpid()}


def _orphans(table: ProcessTable) -> set[int]:
    found = set()
    gone: dict[bytes, bool] = {}
    for pid in table.by_pid:
        run_id = variable(environment_of(pid), _RUN_ID)
        if run_id is None:
            continue
        if run_id not in gone:
            gone[run_id] = engine_is_gone(run_id.decode("ascii", "replace"))
        if gone[run_id] and not _is_supervised(table, pid):
            found.add(pid)
    return found


def _is_trusted(pid: int) -> bool:
    """Whether a process is root's or this user's: others may call theirs what they like."""
    try:
        return os.stat(f"/proc/{pid}").st_uid in (0, os.getuid())
    except OSError:
        return False


def _is_supervised(table: ProcessTable, pid: int) -> bool:
    """Whether an ancestor is a supervisor."""
    seen = set()
    while pid in table.by_pid and pid not in seen:
        seen.add(pid)
        pid = table.by_pid[pid].parent
        if command_of(pid) == SUPERVISOR_NAME:
            return True
    return False
