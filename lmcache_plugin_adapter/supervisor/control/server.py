# SPDX-License-Identifier: Apache-2.0
"""The server of the control socket: answers the command line and the launcher in JSON lines.

A request is one line such as ``{"op": "status"}``; the answer is one line with
``"ok": true`` and the result, or ``"ok": false`` and ``"error"``.
"""

from __future__ import annotations

import os
import select
import socket
import time

from lmcache_plugin_adapter.contract.wire import PROTOCOL
from lmcache_plugin_adapter.linux.peer import peer_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from lmcache_plugin_adapter.linux.event_loop import Loop

    Line = tuple[float, str, int, str]
    """Time, plugin, level and text."""

    Handler = Callable[[Mapping[str, Any], "Client"], "dict[str, Any] | None"]

_REQUEST_BYTES = 1 << 16
CLIENTS = 32
"""How many clients are served at once."""

_TOO_MANY = f"the supervisor serves {CLIENTS} clients already: end some of them, or try again"
_IDLE_SECONDS = 1.0
"""Idle time after which a client may be evicted to make room for a new one."""

_ACCEPT_PAUSE = 1.0
_CLIENT_BYTES = 1 << 20
"""Bytes queued for a slow client from which it misses lines of output."""

_KEPT_BYTES = 1 << 16
"""Bytes of kept lines that are encoded for a client at once."""


class ControlServer:
    """Answer clients of the same user and of root.

    Args:
        loop: The supervisor's loop.
        handlers: A handler for each operation. It gets the request and the
            client and returns the answer, or None if the answer comes later.
            None: they are set later.
    """

    def __init__(self, loop: Loop, handlers: Mapping[str, Handler] | None = None) -> None:
        self._loop = loop
        self.handlers = handlers or {}
        self._listener: socket.socket | None = None
        self._clients: set[Client] = set()

    def listen(self, directory: str, name: str) -> None:
        """Listen at ``name`` in ``directory``.

        Raises:
            OSError: The socket cannot be created; a previous one stays open.
        """
        path = f"{directory}/{name}"
        for left in (path, f"{path}.new"):
            if os.path.lexists(left):
                os.unlink(left)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Through /proc/self/fd, as a socket's path is limited to 107 bytes.
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mask = os.umask(0o177)
        try:
            listener.bind(f"/proc/self/fd/{fd}/{name}.new")
        finally:
            os.umask(mask)
            os.close(fd)
        listener.listen(CLIENTS)
        os.rename(f"{path}.new", path)  # the name appears once the socket listens
        listener.setblocking(False)
        self._stop_listening()
        self._listener = listener
        self._loop.watch(listener.fileno(), self._accept)

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that the engine handed over."""
        if not self._admit(connection, os.getuid()):
            connection.close()

    def close(self) -> None:
        """Stop listening and drop all clients."""
        for client in list(self._clients):
            client.close()
        self._stop_listening()

    def _stop_listening(self) -> None:
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
            return  # the client has disconnected
        except OSError:
            # No descriptor is free and the client keeps waiting: avoid a busy loop.
            self._loop.unwatch(self._listener.fileno())
            self._loop.call_later(_ACCEPT_PAUSE, self._listen_again)
            return
        _, uid = peer_of(connection)
        if uid not in (0, os.getuid()):
            connection.close()
        elif not self._admit(connection, uid):
            try:
                connection.send(_encoded(_refusal(_TOO_MANY)), socket.MSG_DONTWAIT)
            except OSError:
                pass  # the client has disconnected
            connection.close()

    def _admit(self, connection: socket.socket, user: int) -> bool:
        """Serve a client, if necessary in the place of an idle one; return whether it is served."""
        if len(self._clients) >= CLIENTS:
            idle = [client for client in self._clients if not client.busy]
            oldest = min(idle, key=lambda client: client.idle_since, default=None)
            if oldest is None or time.monotonic() - oldest.idle_since < _IDLE_SECONDS:
                return False
            oldest.fail(_TOO_MANY)
            oldest.close()
        connection.setblocking(False)
        client = Client(self._loop, connection, user, self._answer, self._clients.discard)
        self._clients.add(client)
        return True

    def _listen_again(self) -> None:
        if self._listener is not None:
            self._loop.watch(self._listener.fileno(), self._accept)

    def _answer(self, line: bytes, client: Client) -> None:
        import json  # imported with the first request, as it takes memory

        try:
            request = json.loads(line)
            handler = self.handlers.get(request["op"])
            if handler is None:
                known = ", ".join(sorted(self.handlers))
                client.fail(f"unknown op {request['op']!r}: known are {known}")
                return
            answer = handler(request, client)
            if answer is not None:
                client.send(answer)
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            client.fail(str(problem))
        except Exception as problem:
            client.fail(f"internal error: {problem!r}")
            raise


class Client:
    """One connection, with bounded queues in both directions; the server never waits for it."""

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        user: int,
        answer: Callable[[bytes, Client], None],
        forget: Callable[[Client], None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self.user = user
        """The client's user id."""
        self._answer = answer
        self._in = b""
        self._kept: Iterator[Line] = iter(())
        self._first = bytearray()
        self._out = bytearray()
        self._skipped = 0
        self.busy = False
        """Whether it waits for an answer or follows output."""
        self.idle_since = time.monotonic()
        """The monotonic time of the last read or write."""
        self._ending = False
        self._open = True
        self.on_close: list[Callable[[], None]] = [lambda: forget(self)]
        """Called once when the connection has ended."""
        loop.watch(connection.fileno(), self._ready)

    def send(self, answer: Mapping[str, Any]) -> None:
        """Answer a request."""
        self._send({"ok": True, "protocol": PROTOCOL, **answer})

    def fail(self, error: str) -> None:
        """Answer that a request cannot be met."""
        self._send(_refusal(error))

    def send_kept(self, answer: Mapping[str, Any], lines: Iterable[Line]) -> None:
        """Answer a request and send kept lines: all of them, as fast as the client reads."""
        self._kept = iter(lines)
        self._first += _encoded({"ok": True, "protocol": PROTOCOL, **answer})
        self._flush()

    def send_lines(self, lines: Iterable[Line]) -> None:
        """Send new lines; a client that reads too slowly misses some."""
        for line in lines:
            if len(self._out) > _CLIENT_BYTES:
                self._skipped += 1
                continue
            self._out += _encoded_line(line, self._skipped)
            self._skipped = 0
        self._flush()

    def finish(self) -> None:
        """End the connection once all is sent."""
        self._ending = True
        self.busy = False
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
        self.busy = False
        self._out += _encoded(message)
        self._flush()

    def _ready(self) -> None:
        if self._first or self._out:
            self._flush()
        elif not self._receive():
            return
        # A client that does not read its answers gets no more of them.
        while b"\n" in self._in and self._open and not (self._first or self._out):
            line, _, self._in = self._in.partition(b"\n")
            self.busy = True
            self._answer(line, self)

    def _receive(self) -> bool:
        try:
            part = self._connection.recv(_REQUEST_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            part = b""
        self.idle_since = time.monotonic()
        self._in += part
        if not part or len(self._in) > _REQUEST_BYTES:
            self.close()
            return False
        return True

    def _flush(self) -> None:
        if not self._open:
            return
        out = self._first or self._out
        try:
            sent = self._connection.send(out) if out else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent:
            self.idle_since = time.monotonic()
            del out[:sent]
        if not self._first:
            self._take_kept()
        unsent = bool(self._first or self._out)
        if self._ending and not unsent:
            self.close()
            return
        events = select.EPOLLOUT if unsent else select.EPOLLIN
        self._loop.watch(self._connection.fileno(), self._ready, events)

    def _take_kept(self) -> None:
        """Encode the next kept lines."""
        for line in self._kept:
            self._first += _encoded_line(line)
            if len(self._first) > _KEPT_BYTES:
                break


def _refusal(error: str) -> dict[str, Any]:
    return {"ok": False, "protocol": PROTOCOL, "error": error}


def _encoded_line(line: Line, skipped: int = 0) -> bytes:
    message = dict(zip(("time", "name", "level", "text"), line, strict=True))
    return _encoded({**message, "skipped": skipped} if skipped else message)


def _encoded(message: Mapping[str, Any]) -> bytes:
    import json  # imported with the first request, as it takes memory

    return json.dumps(message).encode() + b"\n"
