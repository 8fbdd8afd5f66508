# SPDX-License-Identifier: Apache-2.0
"""The token of a run, which marks all that its plugins start, and the name of supervisors.

Processes of this package recognise each other in ``/proc`` by both.
"""

from __future__ import annotations

import os

from lmcache_plugin_adapter.linux.procfs import read_process

SUPERVISOR_NAME = b"lmcache-plugins"
"""The name of a supervisor's process in the kernel (15 bytes at most)."""


def new_run_id() -> str:
    """Return a token for a run: PID namespace, engine's pid and start time, and chance."""
    me = read_process(os.getpid())
    start = me.start if me is not None else 0
    return f"{pid_namespace()}.{os.getpid()}.{start}.{os.urandom(8).hex()}"


def engine_lives(name: str) -> bool:
    """Return whether an engine of this PID namespace lives, whose run token ``name`` begins with.

    Args:
        name: A run token, or the name of a supervisor's directory.
    """
    parts = name.split(".")
    if len(parts) < 4 or parts[0] != pid_namespace():
        return False
    return not engine_is_gone(".".join(parts[:4]))


def engine_is_gone(run_id: str) -> bool:
    """Return whether the engine that made ``run_id`` has exited, as far as visible from here."""
    parts = run_id.split(".")
    if len(parts) != 4 or parts[0] != pid_namespace() or not parts[1].isdigit():
        return False
    engine = read_process(int(parts[1]))
    return engine is None or engine.has_exited or str(engine.start) != parts[2]


def pid_namespace() -> str:
    """Return the number of this process's PID namespace, with which its run tokens begin."""
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return "0"
