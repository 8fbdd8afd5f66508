# SPDX-License-Identifier: Apache-2.0
"""The credentials of the peer of a Unix socket, as the kernel keeps them."""

from __future__ import annotations

import socket
import struct

_CREDENTIALS = struct.Struct("=iII")


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Return the pid and the user id of the process that connected or listened (unix(7))."""
    size = _CREDENTIALS.size
    pid, uid, _gid = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return pid, uid
