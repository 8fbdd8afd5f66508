# SPDX-License-Identifier: Apache-2.0
"""Read a plugin's pipes: a quiet pipe at once, a busy pipe in larger pieces."""

from __future__ import annotations

import fcntl
import os
import time

from .line_framing import LineFramer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.linux.event_loop import Timer

    from .event_log import EventLog
    from .plugin_output import PluginOutput

_READ_BYTES = 1 << 16
_FLOOD_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031  # fcntl has the name from Python 3.10 on only where its headers had it

_FLOOD_BYTES = 1 << 16
"""From this size of a read on, lines that the rate limit suppresses are counted, not framed."""

_PIECE_BYTES = 1 << 12
"""Bytes of a flood that are framed between two checks of the rate limit."""

_URGENT_MARKS = (b"\n<0", b"\n<1", b"\n<2", b"\n<3")

_FLOOD_PAUSE = 0.05
"""Seconds that a pipe may fill while the rate limit is exhausted: fewer, larger reads."""

_SMALL_BYTES = 1 << 14

_GATHER_PAUSE = 0.01
"""Seconds in which successive small writes are gathered into one read."""

_PROGRESS_SECONDS = 1.0
"""Seconds between two records of an unfinished line that replaces its text."""

_CONGESTED_PAUSE = 0.5
"""Seconds without a write to the log after which lines are dropped instead of waiting."""


class PipeReader:
    """Read the pipe of one run of a plugin until the last process that holds it has exited.

    Args:
        fd: The read end; owned by the reader.
        output: Receives the lines.
        events: The log, whose readers pause while it is behind.
        on_end: Called once, after the pipe is closed.
    """

    def __init__(
        self,
        fd: int,
        output: PluginOutput,
        events: EventLog,
        on_end: Callable[[PipeReader], None],
    ) -> None:
        self._fd = fd
        self._output = output
        self._loop = events.loop
        self._events = events
        self._on_end = on_end
        self._framer = LineFramer(output.max_line_bytes)
        self._pause: Timer | None = None
        self._progress: Timer | None = None
        self._wait_until = 0.0
        self._written = -1
        self._widened = False
        self._read_at = 0.0
        self._finishing = False
        self._loop.watch(fd, self._readable)

    def _readable(self) -> None:
        if self._output.writer.congested and self._wait_for_room():
            return
        self._read()

    def _read(self) -> bool:
        """Read once; return False at the end of the file or if the pipe is empty."""
        try:
            chunk = os.read(self._fd, _FLOOD_PIPE_BYTES if self._widened else _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:
            self.close()
            return False
        self._output.bytes += len(chunk)
        if len(chunk) >= _FLOOD_BYTES and self._output.limited:
            chunk = self._skim(chunk)
        self._output.add(self._framer.feed(chunk))
        if self._progress is None and self._framer.has_progress:
            self._progress = self._loop.call_later(_PROGRESS_SECONDS, self._show_progress)
        if self._output.exhausted():
            self._slow_down()
        elif len(chunk) < _SMALL_BYTES:
            self._gather()
        return True

    def _show_progress(self) -> None:
        self._progress = None
        if self._fd >= 0:
            self._output.add(self._framer.progress())

    def _gather(self) -> None:
        """Pause if small writes follow each other, so that the next read finds several."""
        now = time.monotonic()
        if now - self._read_at < 2 * _GATHER_PAUSE:
            self._suspend(_GATHER_PAUSE)
        self._read_at = now

    def _skim(self, chunk: bytes) -> bytes:
        """Log the lines of a flood that the rate limit admits, count the others, return the end.

        The end fills the plugin's ring of last lines.
        """
        output = self._output
        start = 0
        end = chunk.rfind(b"\n", 0, max(chunk.rfind(b"\n") - output.ring.limit, 0)) + 1
        while start < end:
            # The first piece completes a line that an earlier read began; it may be urgent.
            if start and output.exhausted():
                if not _is_urgent(chunk, start - 1, end):
                    output.suppress(chunk.count(b"\n", start, end))
                    start = end
                break
            piece = chunk.find(b"\n", start + _PIECE_BYTES, end) + 1 or end
            output.add(self._framer.feed(chunk[start:piece]))
            start = piece
        return chunk[start:]

    def _slow_down(self) -> None:
        if not self._widened:
            self._widened = True
            try:
                fcntl.fcntl(self._fd, _F_SETPIPE_SZ, _FLOOD_PIPE_BYTES)
            except OSError:
                pass  # over the user's share of pipe memory: the flood waits a little more
        self._suspend(_FLOOD_PAUSE)

    def _wait_for_room(self) -> bool:
        """Pause while the log is behind; return False if it has taken nothing for too long."""
        now = time.monotonic()
        written = self._output.writer.written
        if written != self._written:
            self._written = written
            self._wait_until = now + _CONGESTED_PAUSE
        elif now >= self._wait_until:
            return False
        self._suspend(self._wait_until - now)
        self._events.waiting[self._resume] = None
        return True

    def _suspend(self, seconds: float) -> None:
        if self._pause is None and self._fd >= 0:
            self._loop.unwatch(self._fd)
            self._pause = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        """Read again after a pause."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            if self._fd >= 0:
                self._loop.watch(self._fd, self._readable)
        if self._finishing:
            self.finish()

    def drain(self, patient: bool = True) -> bool:
        """Read what the pipe holds now, at most two pipes full.

        Args:
            patient: Wait for a log that is behind, instead of dropping lines.

        Returns:
            False if something is left for later.
        """
        budget = 2 * _FLOOD_PIPE_BYTES
        before = self._output.bytes
        while self._fd >= 0 and self._output.bytes - before < budget:
            if patient and self._output.writer.congested and self._wait_for_room():
                return False
            if not self._read():
                break
        return True

    def finish(self) -> None:
        """Read what the pipe holds and close it, as soon as the log has caught up."""
        self._finishing = True
        if self.drain():
            self.close()

    def close(self) -> None:
        """Log an unfinished line and close the pipe."""
        if self._fd < 0:
            return
        for timer in (self._pause, self._progress):
            if timer is not None:
                timer.cancel()
        self._output.add(self._framer.flush())
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._on_end(self)


def _is_urgent(chunk: bytes, start: int, end: int) -> bool:
    """Whether a line after ``start`` may be an error or worse; the search for one byte is fast."""
    return chunk.find(b"<", start, end) >= 0 and any(
        chunk.find(mark, start, end) >= 0 for mark in _URGENT_MARKS
    )


class PipeReaders:
    """The pipes of one plugin: of its current run, and of runs whose leftovers hold theirs open."""

    def __init__(self, events: EventLog, output: PluginOutput) -> None:
        self._events = events
        self._output = output
        self._readers: list[PipeReader] = []

    def add(self, fd: int) -> None:
        """Read the pipe of a new run."""
        reader = PipeReader(fd, self._output, self._events, self._readers.remove)
        self._readers.append(reader)

    def drain(self) -> None:
        """Read what the pipes hold now."""
        for reader in list(self._readers):
            reader.drain()

    def finish(self) -> None:
        """Read what the pipes hold and close them, as soon as the log has caught up."""
        for reader in list(self._readers):
            reader.finish()

    def close(self) -> None:
        """Read what the pipes hold and close them now."""
        for reader in list(self._readers):
            reader.drain(patient=False)
            reader.close()
