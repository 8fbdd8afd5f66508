# SPDX-License-Identifier: Apache-2.0
"""The route of log records to the engine's stderr."""

from __future__ import annotations

import os
import select
import stat

from lmcache_plugin_adapter.contract.log_records import RecordFormat

from .writer import FILE_BATCH_BYTES, STREAM_BATCH_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .writer import Writer

PIPE_BUF = 4096
"""The longest write to a pipe that Linux keeps in one piece."""


def write_all(fd: int, data: bytes) -> None:
    """Write ``data``; wait if ``fd`` is non-blocking, as its flag must not be changed."""
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
    """A descriptor that other processes write to as well: the engine's stderr.

    On anything but a regular file, each write ends at a record's end and is at
    most :data:`PIPE_BUF` bytes, so that records of several writers never mix.
    """

    __slots__ = ("_fd", "batch_bytes", "bounded")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.bounded = not stat.S_ISREG(os.fstat(fd).st_mode)
        self.batch_bytes = STREAM_BATCH_BYTES if self.bounded else FILE_BATCH_BYTES

    def write(self, data: bytes) -> None:
        """Write ``data``, whole records.

        Raises:
            OSError: The descriptor cannot be written.
        """
        for piece in self._pieces(data):
            write_all(self._fd, piece)

    def write_ready(self, data: bytes) -> bytes:
        """Write as much of ``data`` as possible without waiting; return the rest.

        Raises:
            OSError: The descriptor cannot be written.
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
                if end <= start:  # a record longer than PIPE_BUF is written alone
                    end = data.find(b"\n", start) + 1 or len(data)
            yield data[start:end]
            start = end


def _takes_more(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


class StderrRoute:
    """The route to the engine's stderr: a writer, its target, and the format of records."""

    def __init__(self, writer: Writer, target: StreamTarget, logger: str, color: bool) -> None:
        self.writer = writer
        self.target = target
        self.logger = logger
        self._color = color

    def make_format(self, name: str, file: str, pid: int) -> RecordFormat:
        """Return the format of the records of one source."""
        return RecordFormat(name, file, pid, self.logger, self._color)
