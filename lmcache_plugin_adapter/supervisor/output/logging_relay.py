"""Records to Python logging in the engine, for those who configure it there (``log: logging``).

Loaded only where that is asked for. A socket leads to a thread of the engine
(:mod:`.engine.logging_receiver`). The engine may be busy, or gone: then records
go to its stderr as they do otherwise.
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
    from .plugin_output import Way
    from .writer import Writer

PATIENCE_SECONDS = 2
"""How long the engine may take nothing, before records go to stderr."""

_TIMEVAL = struct.Struct("ll")


class RelayFormat:
    """The frame around the lines of one source: level, time, name, file, pid, text.

    Args:
        name: What stands in brackets before each line.
        file: The file that the record is said to come from.
        pid: The process.
    """

    __slots__ = ("_source",)

    def __init__(self, name: str, file: str, pid: int) -> None:
        source = f"{name}\x1f{file}\x1f{pid}\x1f"
        self._source = source.encode("utf-8", "backslashreplace")

    def frame(self, level: int, text: bytes, _stamp: str) -> bytes:
        """Return ``text``, clean lines joined by newlines, as one record a line."""
        head = b"%d\x1f%.3f\x1f%s" % (level, time.time(), self._source)
        return head + text.replace(b"\n", b"\n" + head) + b"\n"

    @property
    def overhead(self) -> int:
        """The most bytes that the frame adds to a line."""
        return len(self._source) + 20


class Relay:
    """A way of records, and their target.

    Args:
        link: The connection to the engine, over which it gets its end.
        writer: On whose thread :meth:`write` is called.
        stderr: Where records go that the engine does not take.

    Raises:
        OSError: There is no connection.
    """

    batch_bytes = STREAM_BATCH_BYTES

    def __init__(self, link: socket.socket, writer: Writer, stderr: Way) -> None:
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
        """Send the engine no more.

        A process that ends closes its end some time after others can see that it ends, a
        forked copy of it never: what goes there until then is lost.
        """
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the engine or the writer has closed it

    def make_format(self, name: str, file: str, pid: int) -> RelayFormat:
        """Return the frame of the records of one source."""
        return RelayFormat(name, file, pid)

    def write(self, data: bytes) -> None:
        """Write ``data``, whole records.

        Raises:
            OSError: Neither the engine nor its stderr takes it.
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
            # Of a record that the engine has the beginning of, it gets the end, too.
            end = data.find(b"\n", sent) + 1
            self._begun, self._sent = data[start:end], sent - start
            start = end
        if start < len(data):
            self._stderr.target.write(b"".join(map(self._frame, data[start:].splitlines())))

    def write_ready(self, data: bytes) -> bytes:
        """Write what the engine takes without waiting; return the rest.

        Raises:
            OSError: Neither the engine nor its stderr takes it.
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
        """Wait for the engine to take its end or to close it: what is sent before could be lost."""
        if self._accepted or not self._open:
            return
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return
        try:
            self._accepted = self._socket.recv(1) == ACCEPTED
        except OSError:
            pass  # it is gone
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
        """Return a record as it looks on stderr."""
        level, when, name, file, pid, text = record.split(FIELD_SEPARATOR, 5)
        seconds = float(when)
        second = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
        stamp = f"{second},{int(seconds % 1 * 1000):03d}"
        source = self._stderr.make_format(name.decode(), file.decode(), int(pid))
        return source.frame(int(level), text, stamp)
