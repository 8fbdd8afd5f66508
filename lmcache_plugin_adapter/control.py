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
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from .loop import Loop

    Handler = Callable[[Mapping[str, Any], "Client"], "dict[str, Any] | None"]

PROTOCOL = 1
"""Version of the requests and answers; told in each answer."""

_REQUEST_BYTES = 1 << 16
_CLIENTS = 32
_ACCEPT_PAUSE = 1.0
_CLIENT_BYTES = 1 << 20
"""What may wait for a client that reads slowly, before it misses lines of output."""

_PEER = struct.Struct("=iII")


class ControlServer:
    """Listen at ``path`` and answer peers of the same user and of root.

    Args:
        loop: The supervisor's loop.
        handlers: What to call for each operation, with the request and the
            client; returns the answer, or None where it comes later.
    """

    def __init__(self, loop: Loop, handlers: Mapping[str, Handler]) -> None:
        self._loop = loop
        self._handlers = handlers
        self._listener: socket.socket | None = None
        self._clients: set[Client] = set()

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
            listener.bind(f"/proc/self/fd/{fd}/{name}.new")
        finally:
            os.umask(mask)
            os.close(fd)
        listener.listen(_CLIENTS)
        os.rename(f"{path}.new", path)  # who sees the name finds somebody who listens
        listener.setblocking(False)
        self._listener = listener
        self._loop.watch(listener.fileno(), self._accept)

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that was handed over by the engine."""
        if len(self._clients) >= _CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        self._clients.add(Client(self._loop, connection, self._answer, self._clients.discard))

    def close(self) -> None:
        """Stop listening and drop all clients."""
        for client in list(self._clients):
            client.close()
        if self._listener is not None:
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return  # it has given up
        except OSError:
            # No descriptor is free, and the client goes on waiting: not in a busy loop.
            self._loop.unwatch(self._listener.fileno())
            self._loop.call_later(_ACCEPT_PAUSE, self._listen_again)
            return
        _, uid, _ = _PEER.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        )
        if uid not in (0, os.getuid()):
            connection.close()
            return
        self.adopt(connection)

    def _listen_again(self) -> None:
        if self._listener is not None:
            self._loop.watch(self._listener.fileno(), self._accept)

    def _answer(self, line: bytes, client: Client) -> None:
        import json  # only who is asked pays for it

        try:
            request = json.loads(line)
            handler = self._handlers.get(request["op"])
            if handler is None:
                known = ", ".join(sorted(self._handlers))
                client.fail(f"unknown op {request['op']!r}: known are {known}")
                return
            answer = handler(request, client)
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            client.fail(str(problem))
            return
        if answer is not None:
            client.send(answer)


class Client:
    """One connection: bounded in, bounded out, never waited for."""

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        answer: Callable[[bytes, Client], None],
        forget: Callable[[Client], None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._answer = answer
        self._in = b""
        self._out = bytearray()
        self._skipped = 0
        self._ending = False
        self._open = True
        self.on_close: list[Callable[[], None]] = [lambda: forget(self)]
        """Called once when the connection has ended."""
        loop.watch(connection.fileno(), self._ready)

    def send(self, answer: Mapping[str, Any]) -> None:
        """Answer a request."""
        self._send({"ok": True, "protocol": PROTOCOL, **answer})

    def fail(self, error: str) -> None:
        """Answer that a request cannot be done."""
        self._send({"ok": False, "protocol": PROTOCOL, "error": error})

    def send_lines(self, lines: Iterable[tuple[float, str, int, str]]) -> None:
        """Send lines of output (time, plugin, level, text); one who does not read misses some."""
        for when, name, level, text in lines:
            if len(self._out) > _CLIENT_BYTES:
                self._skipped += 1
                continue
            line: dict[str, Any] = {"time": when, "name": name, "level": level, "text": text}
            if self._skipped:
                line["skipped"], self._skipped = self._skipped, 0
            self._out += _encoded(line)
        self._flush()

    def finish(self) -> None:
        """End the connection once all is sent."""
        self._ending = True
        self._flush()

    def close(self) -> None:
        """End the connection."""
        if not self._open:
            return
        self._open = False
        self._loop.unwatch(self._connection.fileno())
        self._connection.close()
        for callback in self.on_close:
            callback()

    def _send(self, message: Mapping[str, Any]) -> None:
        self._out += _encoded(message)
        self._flush()

    def _ready(self) -> None:
        if self._out:
            self._flush()
        elif not self._receive():
            return
        # Who does not read its answers is given no more of them.
        while b"\n" in self._in and self._open and not self._out:
            line, _, self._in = self._in.partition(b"\n")
            self._answer(line, self)

    def _receive(self) -> bool:
        try:
            part = self._connection.recv(_REQUEST_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            part = b""
        self._in += part
        if not part or len(self._in) > _REQUEST_BYTES:
            self.close()
            return False
        return True

    def _flush(self) -> None:
        if not self._open:
            return
        try:
            sent = self._connection.send(self._out) if self._out else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._out[:sent]
        if self._ending and not self._out:
            self.close()
            return
        events = select.EPOLLOUT if self._out else select.EPOLLIN
        self._loop.watch(self._connection.fileno(), self._ready, events)


def _encoded(message: Mapping[str, Any]) -> bytes:
    import json  # only who is asked pays for it

    return json.dumps(message).encode() + b"\n"
