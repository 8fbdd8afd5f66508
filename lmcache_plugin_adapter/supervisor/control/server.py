# SPDX-License-Identifier: Apache-2.0
"""The server of the control socket: answers the command line and the launcher in JSON lines.

A request is one line such as ``{"op": "status"}``; the answer is one line with
``"ok": true`` and the result, or ``"ok": false`` and ``"error"``.
"""

from __future__ import annotations

import _socket  # not socket, whose enumerations take 0.4 MB
import os
import time

from lmcache_plugin_adapter.linux.peer import peer_of

from .client import Client, encoded, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from lmcache_plugin_adapter.linux.event_loop import Loop

    Handler = Callable[[Mapping[str, Any], "Client"], "dict[str, Any] | None"]

CLIENTS = 32
"""How many clients are served at once."""

_TOO_MANY = f"the supervisor serves {CLIENTS} clients already: end some of them, or try again"
_IDLE_SECONDS = 1.0
"""Idle time after which a client may be evicted to make room for a new one."""

_ACCEPT_PAUSE = 1.0


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
        self._listener: _socket.socket | None = None
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
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        # Through /proc/self/fd, as a socket's path is limited to 107 bytes.
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{fd}/{name}.new")
        finally:
            os.close(fd)
        os.chmod(f"{path}.new", 0o600)  # not by umask, which all threads share
        listener.listen(CLIENTS)
        os.rename(f"{path}.new", path)  # the name appears once the socket listens
        listener.setblocking(False)
        self._stop_listening()
        self._listener = listener
        self._loop.watch(listener.fileno(), self._accept)

    def adopt(self, connection: _socket.socket) -> None:
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
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return  # the client has disconnected
        except OSError:
            # No descriptor is free and the client keeps waiting: avoid a busy loop.
            self._loop.unwatch(self._listener.fileno())
            self._loop.call_later(_ACCEPT_PAUSE, self._listen_again)
            return
        connection = _socket.socket(fileno=fd)
        _, uid = peer_of(connection)
        if uid not in (0, os.getuid()):
            connection.close()
        elif not self._admit(connection, uid):
            try:
                connection.send(encoded(refusal(_TOO_MANY)), _socket.MSG_DONTWAIT)
            except OSError:
                pass  # the client has disconnected
            connection.close()

    def _admit(self, connection: _socket.socket, user: int) -> bool:
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
