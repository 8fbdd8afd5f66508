# SPDX-License-Identifier: Apache-2.0
"""Leave the engine's process tree, import the rest, and run a supervisor."""

from __future__ import annotations

import errno
import os
import resource
import sys


def leave_engine_tree() -> None:
    """Fork and exit: the kernel gives the child to init or a subreaper.

    vLLM stops an engine by killing all its descendants without a warning; a
    supervisor among them could not warn its plugins.
    """
    if os.fork():
        os._exit(0)
    os.setsid()


def settle(descriptors: list[int]) -> None:
    """Open the standard descriptors, and keep ``descriptors`` from the plugins."""
    null = os.open(os.devnull, os.O_RDWR)
    while null < 3:  # the engine may run with some of 0-2 closed
        null = os.dup(null)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    for fd in descriptors:
        if fd >= 0:
            os.set_inheritable(fd, False)
    try:
        # The engine may be pinned to cores; plugins must not be pinned to them.
        os.sched_setaffinity(0, range(os.sysconf("SC_NPROCESSORS_CONF")))
    except OSError:
        pass  # refused: plugins stay on the engine's cores
    try:
        if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
            # A plugin would inherit the real-time policy, under which nice has no effect.
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError:
        pass  # a C library or a sandbox without these calls


def run_supervisor(argv: list[str]) -> None:
    """Run a supervisor; ``argv`` comes from :meth:`.SupervisorStart.start`."""
    leave_engine_tree()
    connection, pidfd, spec, engine, start, previous, again = map(int, argv[2:9])
    image, run_id, label = argv[9:12]
    settle([connection, pidfd, spec])
    sys.setswitchinterval(0.0005)  # so that the loop does not delay the writer thread

    try:
        from lmcache_plugin_adapter.contract.run_token import SUPERVISOR_NAME
        from lmcache_plugin_adapter.linux.syscalls import set_process_name
        from lmcache_plugin_adapter.supervisor.handover import Handover
        from lmcache_plugin_adapter.supervisor.supervisor import Supervisor

        set_process_name(SUPERVISOR_NAME)
        handover = Handover(
            connection, pidfd, spec, engine, start, previous, again != 0, image, run_id, label
        )
        Supervisor(handover).run()
    except BaseException as error:  # noqa: BLE001 - logged here; the engine starts another supervisor
        text = f"Supervisor of {label} ends by an internal error: {error!r}"
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            text = (
                f"Cannot run a supervisor of {label}: the hard limit of open files is {hard}, it "
                "needs 48 and 2 for each plugin: raise it for the engine ('ulimit -Hn')"
            )
        os.write(2, text.encode("utf-8", "replace") + b"\n")
        os._exit(1)
    os._exit(0)  # a thread may be blocked in a write to a log that nobody reads
