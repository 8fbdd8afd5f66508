# SPDX-License-Identifier: Apache-2.0
"""Send records to Python logging in the engine (``log: logging``).

Loaded only with that setting. A socket leads to a thread of the engine
(:mod:`.engine.logging_receiver`). If the engine is busy or has exited, records
go to its stderr.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time

from lmcache_plugin_adapter.contract.wire import ACCEPTED, FIELD_SEPARATOR, LOGGING, line
from lmcache_plugin_adapter.linux.descriptor_passing import send_descriptor

from .writer import STREAM_BATCH_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from .stderr_route import StderrRoute
    from .writer import Writer

PATIENCE_SECONDS = 2
"""Seconds without progress of the engine after which records go to stderr."""

_HEAD = FIELD_SEPARATOR.join((b"%d", b"%.3f", b"%s"))

_TIMEVAL = struct.Struct("ll")


class RelayFormat:
    """The frame around the lines of one source: level, time, name, file, pid, text.

    Args:
        name: The name in brackets before each line.
        file: The file that the record names as its source.
        pid: The process.
    """

    __slots__ = ("_source",)

    def __init__(self, name: str, file: str, pid: int) -> None:
        source = "".join(f"{field}{FIELD_SEPARATOR.decode()}" for field in (name, file, pid))
        self._source = source.encode("utf-8", "backslashreplace")

    def frame(self, level: int, text: bytes, _stamp: str) -> bytes:
        """Return ``text``, clean lines joined by newlines, as one record a line."""
        head = _HEAD % (level, time.time(), self._source)
        return head + text.replace(b"\n", b"\n" + head) + b"\n"

    @property
    def overhead(self) -> int:
        """The most bytes that the frame adds to a line."""
        return len(self._source) + 20


class LoggingRelay:
    """The route to Python logging in the engine, and its target.

    Args:
        link: The connection to the engine, which carries the engine's end of the socket.
        writer: Calls :meth:`write` on its thread.
        stderr: The route of records that the engine does not take.

    Raises:
        OSError: The connection to the engine is closed.
    """

    batch_bytes = STREAM_BATCH_BYTES

    def __init__(self, link: _socket.socket, writer: Writer, stderr: StderrRoute) -> None:
        self.writer = writer
        self.target = self
        self._stderr = stderr
        self._socket, theirs = socket.socketpair()
        with theirs:
            send_descriptor(link, line(LOGGING), theirs.fileno())
        timeout = _TIMEVAL.pack(PATIENCE_SECONDS, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        self._begun = b""
        self._sent = 0
        self._waiting = False
        self._accepted = False
        self._open = True

    def engine_ended(self) -> None:
        """Send nothing more to the engine.

        A process that exits closes its end some time after others can see its exit, and a
        forked copy of it never does: records sent until then are lost.
        """
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the engine or the writer has closed it

    def make_format(self, name: str, file: str, pid: int) -> RelayFormat:
        """Return the format of the records of one source."""
        return RelayFormat(name, file, pid)

    def write(self, data: bytes) -> None:
        """Write ``data``, whole records.

        Raises:
            OSError: Neither the engine nor its stderr takes ``data``.
        """
        self._await_engine(PATIENCE_SECONDS)
        data, sent = self._begun + data, self._sent
        self._begun, self._sent = b"", 0
        while sent < len(data) and self._is_ready():
            try:
                sent += os.write(self._socket.fileno(), data[sent:])
            except BlockingIOError:
                self._waiting = True  # until there is room again, without waiting for it
            except OSError:
                self._open = False
                self._socket.close()
        start = data.rfind(b"\n", 0, sent) + 1
        if self._open and start < sent:
            # The engine has the beginning of a record: it must get the end, too.
            end = data.find(b"\n", sent) + 1
            self._begun, self._sent = data[start:end], sent - start
            start = end
        if start < len(data):
            self._stderr.target.write(b"".join(map(self._frame, data[start:].splitlines())))

    def write_ready(self, data: bytes) -> bytes:
        """Write as much as the engine takes without waiting; return the rest.

        Raises:
            OSError: Neither the engine nor its stderr takes ``data``.
        """
        self._await_engine(0)
        if not self._accepted:
            self.write(data)
            return b""
        try:
            return data[self._socket.send(data, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            return data
        except OSError:
            self._open = False
            self.write(data)
            return b""

    def _await_engine(self, seconds: float) -> None:
        """Wait until the engine takes or closes its end: data sent before could be lost."""
        if self._accepted or not self._open:
            return
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return
        try:
            self._accepted = self._socket.recv(1) == ACCEPTED
        except OSError:
            pass  # the engine has exited
        if self._accepted:
            self._socket.shutdown(socket.SHUT_RD)
        else:
            self._open = False
            self._socket.close()

    def _is_ready(self) -> bool:
        if not (self._open and self._accepted and self._waiting):
            return self._open and self._accepted
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        if poll.poll(0):
            self._waiting = False
        return not self._waiting

    def _frame(self, record: bytes) -> bytes:
        """Return a record in the format of stderr."""
        level, when, name, file, pid, text = record.split(FIELD_SEPARATOR, 5)
        seconds = float(when)
        second = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
        stamp = f"{second},{int(seconds % 1 * 1000):03d}"
        source = self._stderr.make_format(name.decode(), file.decode(), int(pid))
        return source.frame(int(level), text, stamp)
