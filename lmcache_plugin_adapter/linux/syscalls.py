# SPDX-License-Identifier: Apache-2.0
"""System calls that Python's library lacks."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SYS_PIDFD_OPEN = 434  # the same number on every architecture

_IN_SELF = 0x400 | 0x800  # IN_DELETE_SELF, IN_MOVE_SELF
_IN_ENTRIES = 0x200 | 0x40  # IN_DELETE, IN_MOVED_FROM

_IN_CHANGES = (
    _IN_SELF | _IN_ENTRIES | 0x4 | 0x8 | 0x80 | 0x100 | 0x1000000
)  # IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_TO, IN_CREATE, IN_ONLYDIR

_SIGNAL_SET_BYTES = 128  # sigset_t of glibc and musl

if sys.platform == "linux":  # elsewhere this module can be imported, and nothing calls it
    _libc = ctypes.CDLL(None, use_errno=True)
    _prctl = _libc.prctl
    _prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
    _sigprocmask = _libc.sigprocmask
    _sigprocmask.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

_NO_SIGNALS = ctypes.create_string_buffer(_SIGNAL_SET_BYTES)
_NO_SIGNALS_AT = ctypes.addressof(_NO_SIGNALS)
_SET_MASK = int(signal.SIG_SETMASK)
_SIGNAL_INFO_BYTES = 128  # struct signalfd_siginfo, which begins with the number


def set_parent_death_signal(number: int) -> None:
    """Make the kernel send ``number`` to this process when the thread that forked it exits."""
    _prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def set_no_new_privileges() -> None:
    """Keep this process, and all that it executes, from gaining privileges.

    Raises:
        OSError: The kernel refuses.
    """
    _checked(_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def unblock_all_signals() -> None:
    """Unblock all signals; ``pthread_sigmask`` touches more memory, which a fork then copies."""
    _sigprocmask(_SET_MASK, _NO_SIGNALS_AT, None)


def signal_descriptor(numbers: Iterable[int], fd: int = -1) -> int:
    """Return a close-on-exec descriptor to read signals from.

    Args:
        numbers: The signals, which have to be blocked.
        fd: An existing descriptor to change; -1 to create one.

    Raises:
        OSError: The descriptor could not be created.
    """
    mask = ctypes.create_string_buffer(_SIGNAL_SET_BYTES)
    for number in numbers:
        _libc.sigaddset(mask, int(number))
    return _checked(_libc.signalfd(fd, mask, os.O_CLOEXEC | os.O_NONBLOCK))


def removal_descriptor(root: str, directory: str) -> int:
    """Return a descriptor that becomes readable when something in ``directory`` may be missing.

    Args:
        root: The directory that holds ``directory``: its own removal or move counts.
        directory: Its removal or move counts, and that of its entries.

    Raises:
        OSError: The kernel refuses, or a directory does not exist.
    """
    fd = change_descriptor()
    try:
        _checked(_libc.inotify_add_watch(fd, os.fsencode(root), _IN_SELF))
        _checked(_libc.inotify_add_watch(fd, os.fsencode(directory), _IN_SELF | _IN_ENTRIES))
    except OSError:
        os.close(fd)
        raise
    return fd


def change_descriptor() -> int:
    """Return a descriptor that becomes readable after changes in directories.

    Raises:
        OSError: The kernel refuses.
    """
    return _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))


def watch_changes(fd: int, directory: str) -> None:
    """Have a :func:`change_descriptor` report changes of a directory and of its entries.

    Raises:
        OSError: The kernel refuses, or the directory does not exist.
    """
    _checked(_libc.inotify_add_watch(fd, os.fsencode(directory), _IN_CHANGES))


def read_signals(fd: int) -> list[int]:
    """Return the signals that arrived at a :func:`signal_descriptor`."""
    try:
        data = os.read(fd, 32 * _SIGNAL_INFO_BYTES)
    except BlockingIOError:
        return []
    return [
        int.from_bytes(data[start : start + 4], sys.byteorder)
        for start in range(0, len(data), _SIGNAL_INFO_BYTES)
    ]


def set_process_name(name: bytes) -> None:
    """Set the name that ``ps`` and ``top`` show (15 bytes)."""
    buffer = ctypes.create_string_buffer(name[:15])
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0)


def become_subreaper() -> bool:
    """Make orphaned descendants children of this process; False if the kernel refuses."""
    return bool(_prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def pidfd_open(pid: int) -> int:
    """Return a descriptor that becomes readable when process ``pid`` exits.

    Raises:
        OSError: The process does not exist, or the kernel (before 5.3) or a sandbox refuses.
    """
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    # A Python built against old headers lacks the function; the kernel may have the call.
    fd = _checked(_libc.syscall(_SYS_PIDFD_OPEN, pid, 0))
    os.set_inheritable(fd, False)
    return fd


def _checked(result: int) -> int:
    """Return the result of a system call, or raise its error."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
