# SPDX-License-Identifier: Apache-2.0
"""Delay the exit of an engine that is PID 1, so that plugins get their grace period.

Supervisors leave the engine's process tree and so become children of PID 1.
When that is the server itself and it exits, the kernel kills them and the
plugins at once, whatever their grace period.
"""

from __future__ import annotations

import atexit
import os
import select
import time

from lmcache_plugin_adapter.contract.run_token import SUPERVISOR_NAME
from lmcache_plugin_adapter.linux.procfs import ProcessTable, command_of
from lmcache_plugin_adapter.linux.syscalls import pidfd_open

WAIT_SECONDS = 2.0
"""How long the exit of PID 1 waits for the supervisors, at most."""


def wait_at_exit() -> None:
    """In PID 1: have the exit of this process wait for the supervisors. Elsewhere: nothing."""
    if os.getpid() == 1:
        atexit.unregister(wait_for_supervisors)  # registered once per process
        atexit.register(wait_for_supervisors)


def wait_for_supervisors(seconds: float = WAIT_SECONDS) -> None:
    """Wait until the supervisors among our children have ended, and reap only them."""
    deadline = time.monotonic() + seconds
    me = os.getpid()
    poll = select.poll()
    waiting: dict[int, int] = {}
    for process in ProcessTable().by_pid.values():
        if process.parent == me and command_of(process.pid) == SUPERVISOR_NAME:
            try:
                fd = pidfd_open(process.pid)
            except OSError:
                continue
            waiting[fd] = process.pid
            poll.register(fd, select.POLLIN)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            poll.unregister(fd)
            os.close(fd)
            try:
                os.waitpid(waiting.pop(fd), os.WNOHANG)
            except ChildProcessError:
                pass  # somebody else reaped it
    for fd in waiting:
        os.close(fd)
