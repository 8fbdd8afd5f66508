"""The Linux calls that Python's library lacks."""

from __future__ import annotations

import ctypes
import os

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_SYS_PIDFD_OPEN = 434  # the same number on every architecture

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


def set_parent_death_signal(number: int) -> None:
    """Have the kernel send ``number`` to this process when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def set_process_name(name: bytes) -> None:
    """Set what ``ps`` and ``top`` show (15 bytes)."""
    buffer = ctypes.create_string_buffer(name[:15])
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0)


def become_subreaper() -> bool:
    """Make orphaned descendants children of this process; False where the kernel refuses."""
    return bool(_prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def pidfd_open(pid: int) -> int:
    """Return a descriptor that becomes readable when process ``pid`` ends.

    Raises:
        OSError: No such process, or the kernel (before 5.3) or a sandbox refuses.
    """
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    # A Python built against old headers lacks the name; the kernel may have the call.
    fd = int(_libc.syscall(_SYS_PIDFD_OPEN, pid, 0))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.set_inheritable(fd, False)
    return fd
