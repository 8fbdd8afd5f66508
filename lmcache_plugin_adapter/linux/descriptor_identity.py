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


def is_pidfd_of(fd: int, pid: int) -> bool:
    """Return whether ``fd`` is a pidfd of process ``pid``, or of one that was reaped.

    Before Linux 6.9 all pidfds share one inode, so the check reads fdinfo.
    """
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb", buffering=0) as file:
            fields = file.read(1024).split()
    except OSError:
        return identity_of(fd) is not None  # without /proc, all that is known is that it is open
    return b"Pid:" in fields and int(fields[fields.index(b"Pid:") + 1]) in (pid, -1)
