# SPDX-License-Identifier: Apache-2.0
"""Find what belongs to one run of a plugin besides its first process, and kill what escapes."""

from __future__ import annotations

import os
import signal
import time

from lmcache_plugin_adapter.contract.variables import NAME, RUN_ID
from lmcache_plugin_adapter.linux.procfs import environment_of, own_children, variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from lmcache_plugin_adapter.linux.procfs import ProcessTable

_MARKS = (RUN_ID.encode(), NAME.encode())

CHASE_SECONDS = 0.005
"""Seconds for which a chase keeps the supervisor from all other work."""


def leftovers_of(
    table: ProcessTable, first: int, name: str, run_id: bytes, first_processes: Container[int]
) -> set[int]:
    """Return the processes of a run: its group, its session, its orphans, their descendants.

    All are descendants of this supervisor, a subreaper, so that a stranger
    with a reused pid is never among them.

    Args:
        table: The process table.
        first: The pid of the run's first process, which may have exited.
        name: The plugin's name.
        run_id: The run token, which marks all processes that plugins start.
        first_processes: The first processes of all plugins that have not been
            reaped.
    """
    me = os.getpid()
    mark = (run_id, os.fsencode(name))
    roots = {first} if first in first_processes else set()
    for pid in table.with_descendants([me]):
        process = table.by_pid[pid]
        if pid == me or pid in first_processes:
            continue
        if first in (process.group, process.session) or (
            process.parent == me and marks_of(table, pid) == mark
        ):
            roots.add(pid)
    return table.with_descendants(roots)


def carries(pid: int, run_id: bytes, name: str) -> bool:
    """Whether a process's environment carries the run token and the plugin's name."""
    environment = environment_of(pid)
    return tuple(variable(environment, each) for each in _MARKS) == (run_id, os.fsencode(name))


def marks_of(table: ProcessTable, pid: int) -> tuple[bytes | None, ...]:
    """Return the run token and the plugin's name that a process carries, each None if missing."""
    return table.variables(pid, *_MARKS)


def chase(takes: Callable[[int], bool], is_over: Callable[[], bool] = lambda: False) -> bool:
    """Kill every child of this supervisor that appears within a moment.

    A process that forks and exits again and again is another process by the
    time that the process table has been read. Its orphans become children of
    the supervisor, which are listed fast. A child's pid is not reused before
    the supervisor reaps it.

    Args:
        takes: Whether to kill a child.
        is_over: Whether no child is left; reaps.

    Returns:
        Whether no child is left.
    """
    until = time.monotonic() + CHASE_SECONDS
    while not is_over():
        if time.monotonic() >= until:
            return False
        for pid in own_children() or ():
            if takes(pid):
                kill_child(pid)
    return True


def kill_child(pid: int) -> None:
    """Kill a child that has not been reaped; a child of another user may refuse."""
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        pass  # reported at the end


def why_left(pids: Iterable[int]) -> str:
    """Return why these processes survived SIGKILL."""
    stuck, foreign = [], []
    for pid in sorted(pids):
        try:
            os.kill(pid, 0)
        except PermissionError:
            foreign.append(str(pid))
        except OSError:
            pass  # it has exited just now
        else:
            stuck.append(str(pid))
    causes = {"of another user, who may not be signalled": foreign, "stuck in the kernel": stuck}
    parts = [f"{cause}: pid {', '.join(some)}" for cause, some in causes.items() if some]
    return "; ".join(parts) or "but ended meanwhile"
