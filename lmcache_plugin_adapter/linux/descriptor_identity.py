# SPDX-License-Identifier: Apache-2.0
"""Whether a descriptor number still leads to the file that this process opened.

A host may close all descriptors and open its own under the same numbers.
"""

from __future__ import annotations

import os


def identity_of(fd: int) -> tuple[int, int] | None:
    """Return device and inode of an open descriptor; None if it is not open."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_pidfd_of(fd: int, pid: int, identity: tuple[int, int] | None) -> bool:
    """Return whether ``fd`` is still the pidfd of process ``pid`` that had this identity.

    Before Linux 6.9 all pidfds share one inode, so the check also reads fdinfo, where the
    kernel has it: -1 stands for a process that was reaped.
    """
    if identity is None or identity_of(fd) != identity:
        return False
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb", buffering=0) as file:
            fields = file.read(1024).split()
    except OSError:
        return True
    return b"Pid:" not in fields or int(fields[fields.index(b"Pid:") + 1]) in (pid, -1)
