# SPDX-License-Identifier: Apache-2.0
"""Pass descriptors over a Unix socket, close-on-exec and without waiting.

``socket.send_fds`` and ``socket.recv_fds`` ignore their flags in some Pythons:
received descriptors would leak into every child.
"""

from __future__ import annotations

import socket
import struct

_FD = struct.Struct("i")


def send_descriptor(connection: socket.socket, data: bytes, fd: int) -> None:
    """Send ``data`` and a descriptor; never waits and never causes SIGPIPE.

    Raises:
        OSError: The peer is gone or does not read.
    """
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(fd))
    connection.sendmsg([data], [rights], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def receive_descriptors(connection: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Receive up to ``size`` bytes and ``most`` descriptors, all close-on-exec; never waits.

    Raises:
        OSError: The connection is broken, or no data has arrived.
    """
    space = socket.CMSG_SPACE(most * _FD.size)
    data, messages, _, _ = connection.recvmsg(
        size, space, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
    )
    fds = []
    for level, kind, payload in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = len(payload) - len(payload) % _FD.size
            fds += [fd for (fd,) in _FD.iter_unpack(payload[:whole])]
    return data, fds
