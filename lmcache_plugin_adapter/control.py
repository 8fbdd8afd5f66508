"""The supervisor's answers to the command line and to the launcher: JSON, one line each.

A request is one line such as ``{"op": "status"}``; the answer is one line with
``"ok": true`` and what was asked for, or ``"ok": false`` and ``"error"``.
"""

from __future__ import annotations

import os
import select
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .loop import Loop

    Handler = Callable[[Mapping[str, Any]], dict[str, Any]]

PROTOCOL = 1
"""Version of the requests and answers; told in each answer."""

_REQUEST_BYTES = 1 << 16
_CLIENTS = 32
_PEER = struct.Struct("3i")


class ControlServer:
    """Listen at ``path`` and answer peers of the same user and of root.

    Args:
        loop: The supervisor's loop.
        handlers: What to call for each operation.
    """

    def __init__(self, loop: Loop, handlers: Mapping[str, Handler]) -> None:
        self._loop = loop
        self._handlers = handlers
        self._listener: socket.socket | None = None
        self._clients: set[_Client] = set()

    def listen(self, directory: str, name: str) -> None:
        """Listen at ``name`` in ``directory``.

        Raises:
            OSError: The socket cannot be made.
        """
        path = f"{directory}/{name}"
        if os.path.lexists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Through /proc/self/fd, as a socket's path is limited to 107 bytes.
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mask = os.umask(0o177)
        try:
            listener.bind(f"/proc/self/fd/{fd}/{name}")
        finally:
            os.umask(mask)
            os.close(fd)
        listener.listen(_CLIENTS)
        listener.setblocking(False)
        self._listener = listener
        self._loop.watch(listener.fileno(), self._accept)

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that was handed over by the engine."""
        if len(self._clients) >= _CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        self._clients.add(_Client(self._loop, connection, self._answer, self._clients.discard))

    def close(self) -> None:
        """Stop listening and drop all clients."""
        for client in list(self._clients):
            client.close()
        if self._listener is not None:
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 - watched only while it is there
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        _, uid, _ = _PEER.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        )
        if uid not in (0, os.getuid()):
            connection.close()
            return
        self.adopt(connection)

    def _answer(self, line: bytes) -> bytes:
        import json  # only who is asked pays for it

        try:
            request = json.loads(line)
            handler = self._handlers.get(request["op"])
            if handler is None:
                known = ", ".join(sorted(self._handlers))
                error = f"unknown op {request['op']!r}: known are {known}"
                answer: dict[str, Any] = {"ok": False, "protocol": PROTOCOL, "error": error}
            else:
                answer = {"ok": True, "protocol": PROTOCOL, **handler(request)}
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            answer = {"ok": False, "protocol": PROTOCOL, "error": str(problem)}
        return json.dumps(answer).encode() + b"\n"


class _Client:
    """One connection: bounded in, buffered out, never waited for."""

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        answer: Callable[[bytes], bytes],
        forget: Callable[[_Client], None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._answer = answer
        self._forget = forget
        self._in = b""
        self._out = b""
        loop.watch(connection.fileno(), self._ready)

    def close(self) -> None:
        self._loop.unwatch(self._connection.fileno())
        self._connection.close()
        self._forget(self)

    def _ready(self) -> None:
        if self._out:
            self._flush()
            return
        try:
            part = self._connection.recv(_REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        self._in += part
        if not part or len(self._in) > _REQUEST_BYTES:
            self.close()
            return
        line, newline, rest = self._in.partition(b"\n")
        if newline:
            self._in = rest
            self._out = self._answer(line)
            self._flush()

    def _flush(self) -> None:
        try:
            sent = self._connection.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._out = self._out[sent:]
        events = select.EPOLLOUT if self._out else select.EPOLLIN
        self._loop.watch(self._connection.fileno(), self._ready, events)
