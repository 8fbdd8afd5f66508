# SPDX-License-Identifier: Apache-2.0
"""A plugin's own log file, rotated by size (``log: {directory: …}``)."""

from __future__ import annotations

import errno
import os
import stat

from .writer import FILE_BATCH_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .writer import Writer


class RotatedFile:
    """Append records to ``path``; over ``max_bytes`` rotate it to ``path.1``, that to ``path.2``.

    Only the writer's thread writes to it.

    Args:
        writer: The queue whose thread writes the records.
        path: The file; a missing directory is created.
        max_bytes: Size at which the file is rotated.
        files: How many files are kept, the current one included.
        on_lost: Called on the loop with the number of lines that could not be
            written, and the reason.
    """

    batch_bytes = FILE_BATCH_BYTES

    def __init__(
        self,
        writer: Writer,
        path: bytes,
        max_bytes: int,
        files: int,
        on_lost: Callable[[int, str], None] | None = None,
    ) -> None:
        self.writer = writer
        self.on_lost = on_lost
        self.path = path
        self._max_bytes = max_bytes
        self._files = files
        self._fd = -1
        self._size = 0

    def put(self, record: bytes, lines: int) -> bool:
        """Queue ``record`` for the file; False if it was dropped."""
        return self.writer.put(self, record, lines)

    def write(self, data: bytes) -> None:
        """Write ``data``; rotate the file first if ``data`` does not fit.

        Raises:
            OSError: The file cannot be opened or written.
        """
        if self._fd < 0 or self._was_moved():
            self.close()
            self._open()
        while data:
            end = len(data)
            if self._size + end > self._max_bytes:
                end = data.rfind(b"\n", 0, max(self._max_bytes - self._size, 0)) + 1
                if not end and self._size:
                    self._rotate()
                    continue
                end = end or data.find(b"\n") + 1 or len(data)
            written = os.write(self._fd, data[:end])
            self._size += written
            data = data[written:]

    def write_ready(self, data: bytes) -> bytes:
        """Write ``data`` as :meth:`write` does: a file never makes a writer wait.

        Raises:
            OSError: As :meth:`write`.
        """
        self.write(data)
        return b""

    def retire(self) -> None:
        """Close the file once its queued records have been written."""
        self.writer.put(_Retired(self), b"", 0)

    def close(self) -> None:
        """Close the file; the next record opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        os.makedirs(os.path.dirname(self.path), mode=0o750, exist_ok=True)
        # Non-blocking, so that a FIFO in its place cannot block the writer.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path, flags | os.O_NONBLOCK, 0o640)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file")
        self._fd, self._size = fd, found.st_size
        if self._size >= self._max_bytes:
            self._rotate()

    def _was_moved(self) -> bool:
        """Whether another program, such as logrotate, has rotated the file."""
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except OSError:
            return True

    def _rotate(self) -> None:
        self.close()
        for number in range(self._files - 1, 0, -1):
            older = self.path + b".%d" % number
            newer = self.path + b".%d" % (number - 1) if number > 1 else self.path
            if os.path.lexists(newer):
                os.replace(newer, older)
        if self._files == 1:
            os.unlink(self.path)
        self._open()


class _Retired:
    """Close a file on the writer's thread."""

    batch_bytes = FILE_BATCH_BYTES

    def __init__(self, file: RotatedFile) -> None:
        self._file = file

    def write(self, _data: bytes) -> None:
        """Close the file."""
        self._file.close()

    def write_ready(self, _data: bytes) -> bytes:
        """Close the file; return nothing to write."""
        self._file.close()
        return b""
