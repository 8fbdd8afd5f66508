"""Know when to stop, wake up at once for it, and know how long one may still take."""

from __future__ import annotations

import os
import select
import signal
import time
from _thread import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from .context import Context


class Stopped(BaseException):
    """Breaks off what :meth:`Stop.interruptible` guards; not caught by ``except Exception``."""


class Stop:
    """Whether the plugin was asked to end: by SIGTERM or SIGINT, or by :meth:`set`.

    The main thread makes it; every thread may ask it and wait for it.

    Args:
        context: Whose grace period :meth:`remaining` counts; None: that of this
            process's environment.
        signals: The signals that ask to end.

    Raises:
        ValueError: Not in the main thread.
    """

    latest: Stop | None = None
    """The one that was made last and not closed."""

    def __init__(
        self,
        context: Context | None = None,
        signals: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT),
    ) -> None:
        self._context = context
        self._grace: float | None = None
        self._asked_at: float | None = None
        self._guard: _Guard | None = None
        self._thread = get_ident()
        # Never read from: what makes it readable once wakes all who wait, at once.
        self._wake, self._waker = os.pipe()
        self._earlier = {number: signal.signal(number, self._signalled) for number in signals}
        self._before, Stop.latest = Stop.latest, self

    def close(self) -> None:
        """Give the signals back to whom they belonged; for tests, which go on."""
        for number, earlier in self._earlier.items():
            signal.signal(number, earlier)
        self._earlier = {}
        os.close(self._wake)
        os.close(self._waker)
        if Stop.latest is self:
            Stop.latest = self._before

    def is_set(self) -> bool:
        """Tell whether to end."""
        return self._asked_at is not None

    def set(self) -> None:
        """Ask to end, as a signal does."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            os.write(self._waker, b"x")

    def wait(self, seconds: float) -> bool:
        """Wait, but not on when it is time to end.

        Args:
            seconds: How long at most.

        Returns:
            Whether to end.
        """
        deadline = time.monotonic() + seconds
        while self._asked_at is None:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            poll.poll(min(left, 86_400) * 1000)
        return self._asked_at is not None

    def remaining(self) -> float:
        """Return the seconds of the grace period that are left, before SIGKILL comes.

        All of them as long as nobody asked to end; 0 when they are over.
        """
        if self._grace is None:
            self._grace = self._read_grace()
        if self._asked_at is None:
            return self._grace
        return max(self._asked_at + self._grace - time.monotonic(), 0.0)

    def fileno(self) -> int:
        """Return a descriptor that is readable once it is time to end, for a selector."""
        return self._wake

    def interruptible(self, after: float = 0.0) -> _Guard:
        """Return a guard of work that may be broken off when it is time to end.

        ``with stop.interruptible(): client.post(...)`` ends as soon as the
        signal comes, even in the middle of a read, and the program goes on
        after the block. In the main thread only: there Python handles signals.
        What a C library waits for without letting it (a name being looked up,
        a disk that does not answer) is not broken off.

        Args:
            after: Seconds that the work may still take after the signal. SIGALRM
                is used for them.
        """
        return _Guard(self, after)

    def _read_grace(self) -> float:
        from .grace import stop_grace  # it reads the supervisor's own table of settings

        return stop_grace(self._context)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.set()
        earlier = self._earlier.get(number)
        if callable(earlier) and isinstance(getattr(earlier, "__self__", None), Stop):
            earlier(number, frame)
        if self._guard is not None:
            self._guard.signalled(frame)


class _Guard:
    """What :meth:`Stop.interruptible` returns; each is entered once."""

    def __init__(self, stop: Stop, after: float) -> None:
        self._stop = stop
        self._after = max(after, _AT_ONCE)
        self._inside = False
        self._armed = False

    def __enter__(self) -> None:
        if self._stop._thread != get_ident():
            raise RuntimeError("only the main thread can be interrupted")
        self._stop._guard = self
        if self._stop._asked_at is not None:
            self._arm()
        self._inside = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._inside = False
        self._stop._guard = None
        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return kind is Stopped

    def signalled(self, frame: FrameType | None) -> None:
        """Break off the block that is running, at once or later."""
        if self._after <= _AT_ONCE and self._may_raise(frame):
            raise Stopped
        self._arm()

    def _arm(self) -> None:
        self._armed = True
        signal.signal(signal.SIGALRM, self._alarmed)
        signal.setitimer(signal.ITIMER_REAL, self._after)

    def _alarmed(self, _number: int, frame: FrameType | None) -> None:
        if self._stop._guard is not self:
            return  # the work was done in time
        if self._may_raise(frame):
            raise Stopped
        signal.setitimer(signal.ITIMER_REAL, _AT_ONCE)

    def _may_raise(self, frame: FrameType | None) -> bool:
        # What is raised inside __enter__ or __exit__ would not be caught by the block.
        return self._inside and (frame is None or frame.f_code not in _OWN_CODE)


_AT_ONCE = 0.001
_OWN_CODE = (_Guard.__enter__.__code__, _Guard.__exit__.__code__)
