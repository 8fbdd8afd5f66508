# SPDX-License-Identifier: Apache-2.0
"""Send one request to this process's own supervisor: over the connection, else its control socket.

The control socket is the second way: a host that closes all descriptors closes the
connection too, and the supervisor continues.
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from lmcache_plugin_adapter.contract.runtime_dir import CONTROL_SOCKET
from lmcache_plugin_adapter.contract.wire import CLIENT
from lmcache_plugin_adapter.linux.descriptor_passing import send_descriptor
from lmcache_plugin_adapter.linux.peer import peer_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .supervisor_connection import SupervisorConnection


def connect(directory: str, timeout: float) -> socket.socket:
    """Return a connection to the control socket in ``directory``.

    Raises:
        OSError: Nobody listens there, or the user there is not this user.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:  # through /proc/self/fd: a socket's path is limited to 107 bytes
        connection.connect(f"/proc/self/fd/{fd}/{CONTROL_SOCKET}")
        if peer_of(connection)[1] != os.getuid():
            raise PermissionError("another user listens there")  # noqa: TRY301
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(fd)
    return connection


def supervisor_pid(directory: str, timeout: float) -> int:
    """Return the pid of the supervisor that listens in ``directory``; 0 if none does."""
    try:
        with connect(directory, timeout) as connection:
            return peer_of(connection)[0]
    except OSError:
        return 0


def ask(
    connection: SupervisorConnection,
    directory: str | None,
    request: Mapping[str, Any],
    timeout: float,
) -> dict[str, Any] | None:
    """Send a request and return the answer; None if no supervisor answers in time.

    Args:
        connection: The connection to the supervisor, used if its descriptors are intact.
        directory: Where the control socket is, if anywhere.
        request: The request of the control protocol.
        timeout: Seconds to wait for the whole answer.
    """
    deadline = time.monotonic() + timeout
    try:
        if connection.intact:
            channel = _handed_over(connection)
        elif directory is not None:
            channel = connect(directory, timeout)
        else:
            return None
        with channel:
            channel.settimeout(max(deadline - time.monotonic(), 0.001))
            channel.sendall(json.dumps(request).encode() + b"\n", socket.MSG_NOSIGNAL)
            data = b""
            while not data.endswith(b"\n"):
                channel.settimeout(max(deadline - time.monotonic(), 0.001))
                part = channel.recv(1 << 16)
                if not part:
                    return None
                data += part
        answer: dict[str, Any] = json.loads(data)
    except (OSError, ValueError):
        return None
    return answer


def _handed_over(connection: SupervisorConnection) -> socket.socket:
    """Return a socket whose other end the supervisor serves as a client's.

    Raises:
        OSError: The supervisor has exited, or does not read.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            send_descriptor(connection.socket, CLIENT, theirs.fileno())
        except OSError:
            ours.close()
            raise
    return ours
