# SPDX-License-Identifier: Apache-2.0
"""Start a plugin's first process in the state that the contract promises.

A plain fork, not posix_spawn: the parent-death signal can only be set between
fork and exec. The supervisor is small, so that a fork is cheap.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct

from lmcache_plugin_adapter.contract.variables import WATCHDOG_PID
from lmcache_plugin_adapter.contract.version import __version__, installed_version
from lmcache_plugin_adapter.linux.syscalls import (
    set_no_new_privileges,
    set_parent_death_signal,
    unblock_all_signals,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcache_plugin_adapter.contract.planned_plugin import PlannedPlugin

_WATCHDOG_PID = WATCHDOG_PID.encode()

_ALL_SIGNALS = signal.valid_signals()

# Blocked, so that a failed write is an error and does not kill the supervisor. Not
# ignored: a plugin would inherit that through exec.
_BLOCKED = (signal.SIGPIPE, signal.SIGXFSZ)

EXEC_REPORT = struct.Struct("=ii")
"""The report of a child that cannot exec: its pid and the error number."""

EXEC_FAILED_CODE = 127

REFUSED = -2
"""The error number of a child that found that others could change what it would run."""

_REFUSALS = {
    1: "nice value: cannot change it",
    2: "oom_score_adj: cannot write /proc/self/oom_score_adj",
}
"""Refused changes of a child, by the thousands of the negative number in its report."""

_NICE, _OOM_SCORE_ADJ = _REFUSALS

_EXEC_HINTS = {
    errno.ENOEXEC: "exec format error; add a first line such as '#!/bin/sh', "
    "or build it for this machine",
    errno.E2BIG: "its environment or arguments are too long for the kernel (see 'ulimit -s')",
}

_MANY_FILES = 65536

SPARE_FILES = 12
"""Descriptors that plugins leave free: for ``/proc``, clients and a search."""


_FEW_FILES = 48


def file_limit_problem(plugins: int) -> str:
    """Return which limit of open files so many plugins need, and which one there is."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    one = "1 plugin needs" if plugins == 1 else f"{plugins} plugins need"
    return (
        f"the hard limit of open files is {hard}, {one} {_FEW_FILES + 2 * plugins}: "
        "raise it for the engine ('ulimit -Hn')"
    )


def reset_signals() -> None:
    """Reset all signals to their default action and unblock them.

    Only the signals of a failed write stay blocked: the supervisor outlives its
    engine and the reader of its log.
    """
    for number in _ALL_SIGNALS:
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue  # SIGKILL, SIGSTOP and the C library's own
    signal.pthread_sigmask(signal.SIG_SETMASK, _BLOCKED)


def raise_file_limit() -> tuple[int, int] | None:
    """Raise the limit of open files as far as allowed; return the previous limits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return None
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return None
    return soft, hard


class ChildSetup:
    """The setup that all children of a supervisor share.

    Args:
        supervisor: The supervisor's pid, so that a child notices its death before
            the parent-death signal is armed.
        nofile: The engine's limits of open files, if the supervisor raised its
            own; else None.
    """

    __slots__ = (
        "_nice",
        "_nofile",
        "_oom_score_adj",
        "_report",
        "_supervisor",
        "most_files",
        "null",
        "reports",
    )

    def __init__(self, supervisor: int, nofile: tuple[int, int] | None) -> None:
        self._supervisor = supervisor
        self._nofile = nofile
        self._nice = os.getpriority(os.PRIO_PROCESS, 0)
        self._oom_score_adj = _own_oom_score_adj()
        self.most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        """How many descriptors the supervisor may have."""
        self.null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.reports, self._report = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        """The pipe on which children write an :data:`EXEC_REPORT`."""

    def fork(self) -> int:
        """Fork, as ``os.fork`` does; no signal is blocked in the child.

        The child does as little as possible: each page of memory that it
        touches is copied.

        Raises:
            OSError: No process could be started.
        """
        pid = os.fork()
        if pid == 0:
            self._die_with_supervisor()
            unblock_all_signals()
        return pid

    def _die_with_supervisor(self) -> None:
        set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != self._supervisor:
            os._exit(EXEC_FAILED_CODE)

    def become_user(self, planned: PlannedPlugin) -> None:
        """Give a child the user and the groups of its plugin, and take privileges from it."""
        if planned.credentials is not None:
            uid, gid, groups = planned.credentials
            os.fchown(1, uid, gid)  # so that it can open /dev/stdout
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            self._die_with_supervisor()  # a change of the user clears the signal
        if planned.no_new_privs:
            set_no_new_privileges()

    def lower_priority(self, planned: PlannedPlugin) -> None:
        """Give a child the priorities of its plugin, never higher than the engine's."""
        try:
            if planned.nice > self._nice:
                os.setpriority(os.PRIO_PROCESS, 0, planned.nice)
        except OSError as error:
            self._report_refusal(_NICE, error)
        try:
            if planned.oom_score_adj > self._oom_score_adj:
                fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
                os.write(fd, b"%d" % planned.oom_score_adj)
                os.close(fd)
        except OSError as error:
            self._report_refusal(_OOM_SCORE_ADJ, error)

    def _report_refusal(self, what: int, error: OSError) -> None:
        try:
            self.report(-1000 * what - (error.errno or 0))
        except OSError:
            pass  # the pipe is full of such reports

    def restore_limits(self) -> None:
        """Restore the engine's limit of open files in a child."""
        if self._nofile is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._nofile)

    def report(self, error: int) -> None:
        """Report from a child that it cannot exec, and why."""
        os.write(self._report, EXEC_REPORT.pack(os.getpid(), error))


def spawn(
    setup: ChildSetup,
    planned: PlannedPlugin,
    environment: Mapping[bytes, bytes],
    is_checked: bool,
) -> tuple[int, int]:
    """Start a plugin's command in a session and group of its own.

    Returns before the exec: a child that cannot exec reports that and exits
    with 127.

    Args:
        setup: See :class:`ChildSetup`.
        planned: The plugin.
        environment: The whole environment.
        is_checked: Whether the permissions of what it runs have just been checked.

    Returns:
        Its pid, and the non-blocking read end of the pipe of its stdout and
        stderr.

    Raises:
        OSError: No process or no pipe could be created.
    """
    read_end, output = _output_pipe(setup.most_files - SPARE_FILES)
    try:
        pid = setup.fork()
        if pid == 0:
            _become(setup, planned, environment, output, is_checked)
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(output)
    return pid, read_end


def exec_error_text(number: int) -> str:
    """Return why a child could not exec, for the error in its :data:`EXEC_REPORT`."""
    if number == REFUSED:
        return "others could change what it runs, as the line above says"
    if number <= 0:
        return "an error before its start"
    return _EXEC_HINTS.get(number) or os.strerror(number)


def refusal_text(number: int) -> str | None:
    """Return what a child could not change and why, or None for an error of its exec."""
    what, error = divmod(-number, 1000)
    if what not in _REFUSALS:
        return None
    return f"Plugins keep the engine's {_REFUSALS[what]}: {os.strerror(error)}"


def _own_oom_score_adj() -> int:
    try:
        with open("/proc/self/oom_score_adj", "rb", buffering=0) as file:
            return int(file.read(16))
    except (OSError, ValueError):
        return -1001  # unknown: a child finds out whether it can write it


def _output_pipe(below: int) -> tuple[int, int]:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    if write_end >= below:
        os.close(read_end)
        os.close(write_end)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    os.set_blocking(read_end, False)
    return read_end, write_end


def _why_refused(planned: PlannedPlugin) -> str | None:
    """Return why it must not start, in the child that is about to become the plugin."""
    if not planned.checked or installed_version() != __version__:
        return None  # the check's own code was removed or replaced, which only the owner can do
    # Imported in the child alone, as it takes memory.
    from .start_check import why_refused

    uid = planned.credentials and planned.credentials[0]
    return why_refused(planned.checked, planned.shares, uid)


def _become(
    setup: ChildSetup,
    planned: PlannedPlugin,
    environment: Mapping[bytes, bytes],
    output: int,
    is_checked: bool,
) -> None:
    """Exec the program in the child, or report why not and exit; never return."""
    error = 0
    try:
        os.setsid()
        setup.lower_priority(planned)
        os.dup2(setup.null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        refusal = None if is_checked else _why_refused(planned)
        if refusal is not None:
            os.write(2, f"<3>Refused: {refusal}\n".encode("utf-8", "surrogateescape"))
            setup.report(REFUSED)
            os._exit(EXEC_FAILED_CODE)
        setup.restore_limits()
        setup.become_user(planned)
        if _WATCHDOG_PID in environment:
            environment = {**environment, _WATCHDOG_PID: b"%d" % os.getpid()}
        os.execve(planned.argv[0], list(planned.argv), environment)
    except OSError as problem:
        error = problem.errno or 0
    except BaseException:  # noqa: BLE001 - the supervisor's code must not run in the child
        error = -1
    try:
        setup.report(error)
    finally:
        os._exit(EXEC_FAILED_CODE)
