# SPDX-License-Identifier: Apache-2.0
"""Pass descriptors over a Unix socket, close-on-exec and without waiting.

``socket.send_fds`` and ``socket.recv_fds`` ignore their flags in some Pythons:
received descriptors would leak into every child.
"""

from __future__ import annotations

import _socket  # not socket, whose enumerations take 0.4 MB
import struct

_FD = struct.Struct("i")


def send_descriptor(connection: _socket.socket, data: bytes, fd: int) -> None:
    """Send ``data`` and a descriptor; never waits and never causes SIGPIPE.

    Raises:
        OSError: The peer is gone or does not read.
    """
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _FD.pack(fd))
    connection.sendmsg([data], [rights], _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)


def receive_descriptors(
    connection: _socket.socket, size: int, most: int
) -> tuple[bytes, list[int]]:
    """Receive up to ``size`` bytes and ``most`` descriptors, all close-on-exec; never waits.

    Raises:
        OSError: The connection is broken, or no data has arrived.
    """
    space = _socket.CMSG_SPACE(most * _FD.size)
    data, messages, _, _ = connection.recvmsg(
        size, space, _socket.MSG_CMSG_CLOEXEC | _socket.MSG_DONTWAIT
    )
    fds = []
    for level, kind, payload in messages:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            whole = len(payload) - len(payload) % _FD.size
            fds += [fd for (fd,) in _FD.iter_unpack(payload[:whole])]
    return data, fds
