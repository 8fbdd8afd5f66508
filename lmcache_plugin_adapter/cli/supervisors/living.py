# SPDX-License-Identifier: Apache-2.0
"""Find living supervisors in ``/proc``: their runtime directory may have been removed."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import printable
from lmcache_plugin_adapter.contract.run_token import SUPERVISOR_NAME
from lmcache_plugin_adapter.contract.runtime_dir import DIRECTORY_VARIABLE, why_unusable
from lmcache_plugin_adapter.linux.procfs import (
    ProcessTable,
    arguments_of,
    command_of,
    environment_of,
    variable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_RUN_ID = re.compile(rb"\d+\.\d+\.\d+\.[0-9a-f]+")


def living_supervisors(environ: Mapping[str, str]) -> list[str]:
    """Return a description of each supervisor of this user that should be reachable.

    Not those with another runtime directory than ``LMCACHE_PLUGINS_RUNTIME_DIR`` names,
    if that is set.
    """
    chosen = environ.get(DIRECTORY_VARIABLE)
    found = []
    for pid in sorted(ProcessTable().by_pid):
        if command_of(pid) != SUPERVISOR_NAME or not _is_of_this_user(pid):
            continue
        theirs = variable(environment_of(pid), DIRECTORY_VARIABLE.encode())
        if chosen and theirs != os.fsencode(chosen):
            continue
        run_id, label = (*arguments_of(pid)[-2:], b"", b"")[:2]
        if not _RUN_ID.fullmatch(run_id):
            continue  # this command: the kernel gives a script its file's name
        engine = run_id.split(b".")[1].decode()
        text = f"supervisor {pid} ({label.decode('utf-8', 'replace')} of engine {engine})"
        found.append(
            f"{printable(text)} runs, but its control socket cannot be found: {_why(theirs)}"
        )
    return found


def _why(directory: bytes | None) -> str:
    if directory is None:
        return "its runtime directory was removed, or lies in another container"
    path = os.path.abspath(os.fsdecode(directory))
    shown = printable(path)
    problem = why_unusable(path) if os.path.lexists(path) else None
    if problem is not None:
        return (
            f"it cannot use '{shown}' ({printable(problem)}) and took another directory: mend this "
            f"and restart the engine, or unset {DIRECTORY_VARIABLE} for this command"
        )
    return f"its runtime directory '{shown}' was removed; or set {DIRECTORY_VARIABLE} to it"


def _is_of_this_user(pid: int) -> bool:
    """Whether it is a process of this user, in this PID namespace."""
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.getuid() and os.readlink(
            f"/proc/{pid}/ns/pid"
        ) == os.readlink("/proc/self/ns/pid")
    except OSError:
        return False  # it has exited
