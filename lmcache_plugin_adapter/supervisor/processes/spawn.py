"""Start a plugin's first process with everything in the state that the contract promises.

A plain fork, and not a posix_spawn: the parent-death signal can only be set
between fork and exec. The supervisor is small, so the fork is cheap.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct

from lmcache_plugin_adapter.linux.syscalls import set_parent_death_signal, unblock_all_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ALL_SIGNALS = signal.valid_signals()

# An error of a write, and not the end of the supervisor. Blocked and not ignored:
# exec would hand that on.
_BLOCKED = (signal.SIGPIPE, signal.SIGXFSZ)

EXEC_REPORT = struct.Struct("=ii")
"""What a child that cannot exec writes: its pid and the error number."""

EXEC_FAILED_CODE = 127

_EXEC_HINTS = {
    errno.ENOEXEC: "exec format error; add a first line such as '#!/bin/sh', "
    "or build it for this machine",
    errno.E2BIG: "its environment or arguments are too long for the kernel (see 'ulimit -s')",
}

_MANY_FILES = 65536

SPARE_FILES = 12
"""Descriptors that plugins leave to the supervisor: for ``/proc``, clients, a search."""


def reset_signals() -> None:
    """Give signals their default action and unblock all: nothing of the engine's stays.

    Those of a write that nobody takes are blocked: the supervisor outlives its
    engine and the reader of its log.
    """
    for number in _ALL_SIGNALS:
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue  # SIGKILL, SIGSTOP and those the C library keeps
    signal.pthread_sigmask(signal.SIG_SETMASK, _BLOCKED)


def raise_file_limit() -> tuple[int, int] | None:
    """Allow this process as many open files as it may have; return the limits to give back."""
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
    """What a supervisor's children share: made once, applied in each child.

    Args:
        supervisor: The supervisor's pid, to notice its death before the
            parent-death signal was armed.
        nofile: The engine's soft limit of open files, which the supervisor
            raised for itself; None where it did not.
    """

    __slots__ = ("_nofile", "_supervisor", "most_files")

    def __init__(self, supervisor: int, nofile: tuple[int, int] | None) -> None:
        self._supervisor = supervisor
        self._nofile = nofile
        self.most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        """How many descriptors the supervisor may have."""

    def fork(self) -> int:
        """Fork; returns twice, as ``os.fork`` does. In the child no signal is blocked.

        The child does as little as it can: each page of memory that it touches
        is copied.

        Raises:
            OSError: No process could be made.
        """
        pid = os.fork()
        if pid == 0:
            set_parent_death_signal(signal.SIGKILL)
            if os.getppid() != self._supervisor:
                os._exit(EXEC_FAILED_CODE)
            unblock_all_signals()
        return pid

    def restore_limits(self) -> None:
        """Give the child the engine's limit of open files back."""
        if self._nofile is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._nofile)


def spawn(
    setup: ChildSetup,
    argv: Sequence[bytes],
    environment: Mapping[bytes, bytes],
    null: int,
    report: int,
) -> tuple[int, int]:
    """Start ``argv`` in a session and group of its own.

    Returns before the exec: a child that cannot exec writes an
    :data:`EXEC_REPORT` to ``report`` and exits with 127.

    Args:
        setup: See :class:`ChildSetup`.
        argv: The program, by path, and its arguments.
        environment: The whole environment.
        null: A descriptor of ``/dev/null``, for stdin.
        report: A close-on-exec pipe to the supervisor.

    Returns:
        Its pid, and the non-blocking read end of the pipe that its stdout and
        stderr are.

    Raises:
        OSError: No process or no pipe could be made.
    """
    read_end, output = _output_pipe(setup.most_files - SPARE_FILES)
    try:
        pid = setup.fork()
        if pid == 0:
            _become(setup, argv, environment, null, output, report)
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(output)
    return pid, read_end


def exec_error_text(number: int) -> str:
    """Return in words why a child could not exec, from its :data:`EXEC_REPORT`."""
    if number <= 0:
        return "an error before its start"
    return _EXEC_HINTS.get(number) or os.strerror(number)


def _output_pipe(below: int) -> tuple[int, int]:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    if write_end >= below:
        os.close(read_end)
        os.close(write_end)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    os.set_blocking(read_end, False)
    return read_end, write_end


def _become(
    setup: ChildSetup,
    argv: Sequence[bytes],
    environment: Mapping[bytes, bytes],
    null: int,
    output: int,
    report: int,
) -> None:
    """In the child: become the program, or report why not and exit; never returns."""
    error = 0
    try:
        os.setsid()
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        setup.restore_limits()
        os.execve(argv[0], list(argv), environment)
    except OSError as problem:
        error = problem.errno or 0
    except BaseException:  # noqa: BLE001 - nothing of the supervisor's may run in the child
        error = -1
    try:
        os.write(report, EXEC_REPORT.pack(os.getpid(), error))
    finally:
        os._exit(EXEC_FAILED_CODE)
