"""Read a plugin's pipe: at once when it is quiet, in larger pieces the more it writes."""

from __future__ import annotations

import fcntl
import os
import time

from .line_framing import LineFramer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.linux.event_loop import Loop, Timer

    from .plugin_output import EventLog, PluginOutput

_READ_BYTES = 1 << 16
_FLOOD_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031  # fcntl has the name from Python 3.10 on only where its headers had it

_FLOOD_BYTES = 1 << 16
"""Of a read that finds a whole pipe full, what the limit holds back is counted, not framed."""

_PIECE_BYTES = 1 << 12
"""So much of a flood is framed before the limit is asked again."""

_URGENT_MARKS = (b"\n<0", b"\n<1", b"\n<2", b"\n<3")

_FLOOD_PAUSE = 0.05
"""Seconds that a pipe may fill while nothing more of it may be logged: fewer, larger reads."""

_SMALL_BYTES = 1 << 14

_GATHER_PAUSE = 0.01
"""Seconds that small writes which follow each other may come together."""

_CONGESTED_PAUSE = 0.5
"""Seconds without a write to the log after which lines are dropped rather than waited with."""


class Capture:
    """The pipe of one run of a plugin; goes on until the last process that holds it is gone.

    Args:
        fd: The read end; owned from now on.
        output: Where the lines go.
        loop: The supervisor's loop.
        log: For the state of the writer.
        on_end: Called once, after the pipe is closed.
    """

    def __init__(
        self,
        fd: int,
        output: PluginOutput,
        loop: Loop,
        log: EventLog,
        on_end: Callable[[Capture], None],
    ) -> None:
        self._fd = fd
        self._output = output
        self._loop = loop
        self._log = log
        self._on_end = on_end
        self._framer = LineFramer(output.max_line_bytes)
        self._pause: Timer | None = None
        self._patience = 0.0
        self._written = -1
        self._widened = False
        self._read_at = 0.0
        self._finishing = False
        loop.watch(fd, self._readable)

    def _readable(self) -> None:
        if self._output.writer.congested and self._wait_for_room():
            return
        self._read()

    def _read(self) -> bool:
        """Read once; False at the end of the file or when nothing is there."""
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
        if self._output.spent():
            self._slow_down()
        elif len(chunk) < _SMALL_BYTES:
            self._gather()
        return True

    def _gather(self) -> None:
        """Let more lines come together when they come one after the other."""
        now = time.monotonic()
        if now - self._read_at < 2 * _GATHER_PAUSE:
            self._suspend(_GATHER_PAUSE)
        self._read_at = now

    def _skim(self, chunk: bytes) -> bytes:
        """Log of a flood what the limit passes and count what it does not; return the end.

        The end fills the plugin's memory of its last lines.
        """
        output = self._output
        start = 0
        end = chunk.rfind(b"\n", 0, max(chunk.rfind(b"\n") - output.ring.limit, 0)) + 1
        while start < end:
            # First of all ends the line that an earlier read has begun: it may be urgent.
            if start and output.spent():
                if not _is_urgent(chunk, start - 1, end):
                    output.hold_back(chunk.count(b"\n", start, end))
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
        """Pause while the log is behind; False once it has taken nothing for too long."""
        now = time.monotonic()
        written = self._output.writer.written
        if written != self._written:
            self._written = written
            self._patience = now + _CONGESTED_PAUSE
        elif now >= self._patience:
            return False
        self._suspend(self._patience - now)
        self._log.waiting[self] = None
        return True

    def _suspend(self, seconds: float) -> None:
        if self._pause is None and self._fd >= 0:
            self._loop.unwatch(self._fd)
            self._pause = self._loop.call_later(seconds, self.resume)

    def resume(self) -> None:
        """Read again after a pause."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            if self._fd >= 0:
                self._loop.watch(self._fd, self._readable)
        if self._finishing:
            self.finish()

    def drain(self, patient: bool = True) -> bool:
        """Read what is there now, at most two pipes full.

        Args:
            patient: Leave for later what the log, where it is behind, would have to drop.

        Returns:
            False where something is left for later.
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
        """Read what is there and close the pipe, once the log has caught up."""
        self._finishing = True
        if self.drain():
            self.close()

    def close(self) -> None:
        """Log an unfinished line and close the pipe."""
        if self._fd < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._output.add(self._framer.flush())
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._on_end(self)


def _is_urgent(chunk: bytes, start: int, end: int) -> bool:
    """Whether a line after ``start`` may be an error or worse; to look for one byte is quick."""
    return chunk.find(b"<", start, end) >= 0 and any(
        chunk.find(mark, start, end) >= 0 for mark in _URGENT_MARKS
    )
