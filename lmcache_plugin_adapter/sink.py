"""Write records to where the log goes, on a thread of its own that alone may block.

The engine's stderr belongs to the engine: it is never made non-blocking and
never reopened. When nobody reads it, the thread waits in ``write``, its queue
fills up to a bound, and what comes after is dropped and counted.
"""

from __future__ import annotations

import _thread
import errno
import os
import select
import stat
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    class Target(Protocol):
        """Where bytes end up."""

        def write(self, data: bytes) -> None:
            """Write ``data``, whole records; raises OSError."""

        def write_ready(self, data: bytes) -> bytes:
            """Write what is taken without waiting; return the rest; raises OSError."""


PIPE_BUF = 4096
"""The most that a write to a pipe keeps in one piece (Linux)."""

QUEUE_BYTES = 1 << 20
"""When so much waits for a writer, records are dropped and counted."""

_LOW_WATER = QUEUE_BYTES // 4


def write_all(fd: int, data: bytes) -> None:
    """Write ``data``, waiting where ``fd`` is non-blocking (its flag is not ours to change)."""
    while data:
        try:
            written = os.write(fd, data)
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
        else:
            data = data[written:]


class StreamTarget:
    """A descriptor that others write to as well: the engine's stderr.

    On anything but a regular file, each write ends at a record's end and is at
    most :data:`PIPE_BUF` bytes, so that records of several writers never mix.
    """

    __slots__ = ("_fd", "bounded")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.bounded = not stat.S_ISREG(os.fstat(fd).st_mode)

    def write(self, data: bytes) -> None:
        """Write ``data``, whole records.

        Raises:
            OSError: The descriptor takes no more.
        """
        for piece in self._pieces(data):
            write_all(self._fd, piece)

    def write_ready(self, data: bytes) -> bytes:
        """Write as much of ``data`` as is taken without waiting; return the rest.

        Raises:
            OSError: The descriptor takes no more.
        """
        done = 0
        for piece in self._pieces(data):
            if self.bounded and not _takes_more(self._fd):
                break
            write_all(self._fd, piece)
            done += len(piece)
        return data[done:]

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        if not self.bounded or len(data) <= PIPE_BUF:
            yield data
            return
        start = 0
        while start < len(data):
            end = start + PIPE_BUF
            if end < len(data):
                end = data.rfind(b"\n", start, end) + 1
                if end <= start:  # a record longer than PIPE_BUF: it goes alone
                    end = data.find(b"\n", start) + 1 or len(data)
            yield data[start:end]
            start = end


def _takes_more(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


class Writer:
    """A bounded queue and the thread that empties it.

    Where no thread can be started, as a limit of processes is reached, who
    puts a record also writes, as much as is taken without waiting.

    Args:
        on_room: Called (on the writer's thread) when a full queue has room
            again, and when a target takes records again after it refused some.
        soon: Calls what it is given once the caller has put all that it has: a
            thread that is woken for each record takes the interpreter away as often.
    """

    def __init__(
        self,
        on_room: Callable[[], None],
        soon: Callable[[Callable[[], None]], None] = lambda callback: callback(),
    ) -> None:
        self._on_room = on_room
        self._soon = soon
        self._queue: deque[tuple[Target, bytes, int]] = deque()
        self._pending = 0
        self._full = False
        self._busy = False
        self._lock = _thread.allocate_lock()
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC)
        self._started = False
        self.dropped = 0
        """Lines that a full queue did not take, since :meth:`collect_losses`."""
        self.failed = 0
        """Lines that a target refused (disk full, reader gone), likewise."""
        self.last_error = ""
        self.written = 0
        """Batches that have left the queue, to a target or to nowhere."""

    def put(self, target: Target, data: bytes, lines: int) -> bool:
        """Queue ``data`` (``lines`` whole records) for ``target``; False if it was dropped."""
        if not self._started:
            self._start()
        if self._pending >= QUEUE_BYTES:
            self._full = True
            self.dropped += lines
            return False
        with self._lock:
            first = not self._queue
            before = self._pending
            self._queue.append((target, data, lines))
            self._pending += len(data)
        if not self._started:
            self._write_ready()
        elif before < _LOW_WATER <= self._pending:
            self._wake()  # a burst that fills the queue is not waited for
        elif first:
            self._soon(self._wake)
        return True

    @property
    def congested(self) -> bool:
        """Whether the queue is so full that producers should pause."""
        if self._pending > QUEUE_BYTES // 2:
            self._full = True
            return True
        return False

    def collect_losses(self) -> tuple[int, int, str]:
        """Return lines dropped, lines refused and the last error, and start counting anew."""
        losses = self.dropped, self.failed, self.last_error
        self.dropped = self.failed = 0
        return losses

    def drain(self, seconds: float) -> None:
        """Wait until all is written, at most ``seconds``."""
        deadline = time.monotonic() + seconds
        self._wake()
        while (self._queue or self._busy) and time.monotonic() < deadline:
            if not self._started:
                self._write_ready()
            time.sleep(0.001)

    def _start(self) -> None:
        """Start the thread; where that fails, the next record tries again."""
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:
            return
        self._started = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            asleep = bool(self._queue) and not self._busy
        if asleep:
            os.write(self._wake_w, b"w")

    def _write_ready(self) -> None:
        """Write without a thread, and without waiting."""
        while self._queue:
            target, data, lines = self._queue.popleft()
            try:
                rest = target.write_ready(data)
            except OSError as error:
                self._refused(lines, error)
                rest = b""
            self._pending -= len(data) - len(rest)
            if rest:
                self._queue.appendleft((target, rest, lines))
                return
            self.written += 1

    def _refused(self, lines: int, error: OSError) -> None:
        self.failed += lines
        self.last_error = errno.errorcode.get(error.errno or 0, str(error))

    def _run(self) -> None:
        while True:
            os.read(self._wake_r, 4096)
            while True:
                with self._lock:
                    if not self._queue:
                        self._busy = False
                        break
                    self._busy = True
                    target, data, lines = self._take()
                recovered = self.failed > 0
                try:
                    target.write(data)
                except OSError as error:
                    recovered = False
                    self._refused(lines, error)
                self.written += 1
                if recovered or (self._full and self._pending < _LOW_WATER):
                    self._full = False
                    self._on_room()

    def _take(self) -> tuple[Target, bytes, int]:
        """Take the next item, joined with those for the same target behind it."""
        target, data, lines = self._queue.popleft()
        if self._queue and self._queue[0][0] is target:
            parts = [data]
            size = len(data)
            while self._queue and self._queue[0][0] is target and size < _LOW_WATER:
                _, more, count = self._queue.popleft()
                parts.append(more)
                size += len(more)
                lines += count
            data = b"".join(parts)
        self._pending -= len(data)
        return target, data, lines
