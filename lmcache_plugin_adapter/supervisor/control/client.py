# SPDX-License-Identifier: Apache-2.0
"""One client of the control socket: its requests, and what is sent to it."""

from __future__ import annotations

import select
import time
from functools import partial

from lmcache_plugin_adapter.contract.wire import PROTOCOL

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from lmcache_plugin_adapter.linux.event_loop import Loop

    from .kept_lines import KeptLines, Line

_REQUEST_BYTES = 1 << 16
_CLIENT_BYTES = 1 << 20
"""Bytes queued for a slow client from which it misses lines of output."""

_KEPT_BYTES = 1 << 16
"""Bytes of kept lines that are encoded for a client at once."""


class Client:
    """One connection, with bounded queues in both directions; the server never waits for it.

    Requests are met one after the other: the next one once the client has its answer. A
    client that has closed its sending side still gets its answers.
    """

    def __init__(
        self,
        loop: Loop,
        connection: _socket.socket,
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
        self._requests_end = False
        self._awaited = False
        self._kept: KeptLines | None = None
        self._lines: Iterator[Line] = iter(())
        self._first = bytearray()
        self._out = bytearray()
        self._skipped = 0
        self.follows = False
        """Whether it follows output."""
        self.idle_since = time.monotonic()
        """The monotonic time of the last read or write."""
        self._ending = False
        self.open = True
        """Whether the connection has not ended."""
        self.on_close: list[Callable[[], None]] = [lambda: forget(self)]
        """Called once when the connection has ended."""
        loop.watch(connection.fileno(), self._ready)

    @property
    def busy(self) -> bool:
        """Whether it waits for an answer or follows output."""
        return self._awaited or self.follows

    def send(self, answer: Mapping[str, Any]) -> None:
        """Answer a request."""
        self._send({"ok": True, "protocol": PROTOCOL, **answer})

    def fail(self, error: str) -> None:
        """Answer that a request cannot be met."""
        self._send(refusal(error))

    def send_kept(self, answer: Mapping[str, Any], lines: KeptLines) -> None:
        """Answer a request and send kept lines, as fast as the client reads."""
        self._kept, self._lines = lines, iter(lines)
        self._first += encoded({"ok": True, "protocol": PROTOCOL, **answer})
        self._answered()

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
        self._awaited = self.follows = False
        self._flush()

    def close(self) -> None:
        """End the connection."""
        if not self.open:
            return
        self.open = False
        self._loop.unwatch(self._connection.fileno())
        self._connection.close()
        for callback in self.on_close:
            self._loop.attempt(callback)

    def _send(self, message: Mapping[str, Any]) -> None:
        self._out += encoded(message)
        self._answered()

    def _answered(self) -> None:
        self._awaited = False
        self._flush()
        if self._in:
            self._loop.call_soon(self._answer_next)

    def _ready(self) -> None:
        try:
            if self._first or self._out:
                self._flush()
            elif not self._receive():
                return
            self._answer_next()
        except Exception:
            self.close()  # it must not wait for what will not come
            raise

    def _answer_next(self) -> None:
        while b"\n" in self._in and self.open and not (self._awaited or self._first or self._out):
            line, _, self._in = self._in.partition(b"\n")
            self._awaited = True
            self._loop.attempt(partial(self._answer, line, self))
        self._flush()

    def _receive(self) -> bool:
        try:
            part = self._connection.recv(_REQUEST_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            part = b""
        self.idle_since = time.monotonic()
        self._in += part
        if not part:
            self._requests_end = True
            self._in += b"" if self._in[-1:] in (b"", b"\n") else b"\n"
        if len(self._in) > _REQUEST_BYTES or (not part and self._is_gone()):
            self.close()
            return False
        return True

    def _is_gone(self) -> bool:
        """Return whether the client reads no answers any more."""
        poll = select.poll()
        poll.register(self._connection, 0)
        return bool(poll.poll(0))

    def _flush(self) -> None:
        if not self.open:
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
        if not unsent and (self._ending or self._has_all()):
            self.close()
            return
        events = select.EPOLLOUT if unsent else select.EPOLLIN
        if not unsent and (self._awaited or self._requests_end):
            events = 0  # only a hang-up
        self._loop.watch(self._connection.fileno(), self._ready, events)

    def _has_all(self) -> bool:
        """Return whether all requests of a client that sends no more have been met."""
        return self._requests_end and not (self._in or self.busy)

    def _take_kept(self) -> None:
        """Encode the next kept lines."""
        kept = self._kept
        if kept is None:
            return
        for line in self._lines:
            self._first += _encoded_line(line, kept.missed)
            kept.missed = 0
            if len(self._first) > _KEPT_BYTES:
                return
        self._skipped += kept.missed
        self._kept = None


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
