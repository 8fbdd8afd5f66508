# SPDX-License-Identifier: Apache-2.0
"""One client of the control socket: its requests, and what is sent to it."""

from __future__ import annotations

import select
import time

from lmcache_plugin_adapter.contract.wire import PROTOCOL

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from lmcache_plugin_adapter.linux.event_loop import Loop

    Line = tuple[float, str, int, str]
    """Time, plugin, level and text."""

_REQUEST_BYTES = 1 << 16
_CLIENT_BYTES = 1 << 20
"""Bytes queued for a slow client from which it misses lines of output."""

_KEPT_BYTES = 1 << 16
"""Bytes of kept lines that are encoded for a client at once."""


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
        self._send(refusal(error))

    def send_kept(self, answer: Mapping[str, Any], lines: Iterable[Line]) -> None:
        """Answer a request and send kept lines: all of them, as fast as the client reads."""
        self._kept = iter(lines)
        self._first += encoded({"ok": True, "protocol": PROTOCOL, **answer})
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
        self._out += encoded(message)
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


def refusal(error: str) -> dict[str, Any]:
    """Return the answer to a request that cannot be met."""
    return {"ok": False, "protocol": PROTOCOL, "error": error}


def _encoded_line(line: Line, skipped: int = 0) -> bytes:
    message = dict(zip(("time", "name", "level", "text"), line, strict=True))
    return encoded({**message, "skipped": skipped} if skipped else message)


def encoded(message: Mapping[str, Any]) -> bytes:
    """Return a message as a line of JSON."""
    import json  # imported with the first request, as it takes memory

    return json.dumps(message).encode() + b"\n"
