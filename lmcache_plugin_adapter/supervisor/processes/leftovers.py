"""What belongs to one run of a plugin, besides its first process."""

from __future__ import annotations

import os
import signal
import time

from lmcache_plugin_adapter.contract.variables import NAME, RUN_ID
from lmcache_plugin_adapter.linux.procfs import environment_of, own_children, variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from lmcache_plugin_adapter.linux.procfs import ProcessTable

_MARKS = (RUN_ID.encode(), NAME.encode())

CHASE_SECONDS = 0.005
"""How long a chase keeps the supervisor from all else."""


def remains_of(
    table: ProcessTable, first: int, name: str, run_id: bytes, first_processes: Container[int]
) -> set[int]:
    """Return what lives of a run: its group, its session, its orphans, and their descendants.

    All are descendants of this supervisor, a subreaper, so that no stranger
    that got a number again is among them.

    Args:
        table: The processes there are.
        first: The pid of the run's first process, ended or not.
        name: The plugin.
        run_id: The token that marks what plugins start.
        first_processes: Those of all plugins that have not been reaped.
    """
    me = os.getpid()
    mark = (run_id, os.fsencode(name))
    roots = {first} if first in first_processes else set()
    for pid in table.with_descendants([me]):
        process = table.by_pid[pid]
        if pid == me or pid in first_processes:
            continue
        if first in (process.group, process.session) or (
            process.parent == me and table.variables(pid, *_MARKS) == mark
        ):
            roots.add(pid)
    return table.with_descendants(roots)


def chase(name: str, run_id: bytes, first_processes: Container[int]) -> None:
    """Kill for a moment whatever of plugin ``name`` becomes a child of this supervisor.

    A process that forks and exits again and again is another by the time that
    a look at all processes has found it; its orphans come to us, and to look
    at our own children is fast. A child's pid is not used again before we reap it.
    """
    mark = (run_id, os.fsencode(name))
    until = time.monotonic() + CHASE_SECONDS
    while time.monotonic() < until:
        for pid in own_children():
            if pid in first_processes:
                continue
            environment = environment_of(pid)
            if tuple(variable(environment, each) for each in _MARKS) == mark:
                kill_child(pid)


def kill_child(pid: int) -> None:
    """Kill a child that has not been reaped; one that became another user's may refuse."""
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        pass  # it is named when all is over


def why_left(pids: Iterable[int]) -> str:
    """Say why these processes outlived SIGKILL."""
    stuck, foreign = [], []
    for pid in sorted(pids):
        try:
            os.kill(pid, 0)
        except PermissionError:
            foreign.append(str(pid))
        except OSError:
            pass  # it has ended just now
        else:
            stuck.append(str(pid))
    causes = {"of another user, who may not be signalled": foreign, "stuck in the kernel": stuck}
    said = [f"{cause}: pid {', '.join(some)}" for cause, some in causes.items() if some]
    return "; ".join(said) or "but ended meanwhile"
