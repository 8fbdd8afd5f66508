# SPDX-License-Identifier: Apache-2.0
"""The credentials of the peer of a Unix socket, as the kernel keeps them."""

from __future__ import annotations

import _socket  # not socket, whose enumerations take 0.4 MB
import struct

_CREDENTIALS = struct.Struct("=iII")
_MESSAGE_BYTES = 4096
_DESCRIPTORS = 253
"""The kernel's limit for one message."""


def peer_of(connection: _socket.socket) -> tuple[int, int]:
    """Return the pid and the user id of the process that connected or listened (unix(7))."""
    size = _CREDENTIALS.size
    pid, uid, _gid = _CREDENTIALS.unpack(
        connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, size)
    )
    return pid, uid


def receive_datagram(receiver: _socket.socket) -> tuple[bytes, int, int, list[int]]:
    """Receive a message with its sender's credentials; never waits.

    Args:
        receiver: A socket with SO_PASSCRED.

    Returns:
        The message (empty if it is too long), pid and user id of the sender, and the
        descriptors that it passed, which the caller closes.

    Raises:
        OSError: No message has arrived.
    """
    space = _socket.CMSG_SPACE(_CREDENTIALS.size) + _socket.CMSG_SPACE(_DESCRIPTORS * 4)
    flags = _socket.MSG_CMSG_CLOEXEC | _socket.MSG_DONTWAIT
    data, messages, found, _ = receiver.recvmsg(_MESSAGE_BYTES, space, flags)
    pid, uid = 0, -1
    fds: list[int] = []
    for level, kind, payload in messages:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS):
            pid, uid, _gid = _CREDENTIALS.unpack(payload[: _CREDENTIALS.size])
        elif (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            fds += struct.unpack(f"{len(payload) // 4}i", payload[: len(payload) // 4 * 4])
    return b"" if found & _socket.MSG_TRUNC else data, pid, uid, fds
