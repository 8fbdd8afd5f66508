# SPDX-License-Identifier: Apache-2.0
"""Learn when to stop, wake up at once, and know how much time is left."""

from __future__ import annotations

import os
import select
import signal
import time
from _thread import get_ident

from .errors import ContextError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from .context import Context


class Stopped(BaseException):
    """Interrupts :meth:`Stop.interruptible`; ``except Exception`` does not catch it."""


class Stop:
    """Whether the plugin is to stop: after SIGTERM or SIGINT, or after :meth:`set`.

    The main thread creates it; every thread may check it and wait for it.

    Args:
        context: The context with the grace period; None: that of this process's environment.
        signals: The signals that stop the plugin.

    Raises:
        ValueError: The current thread is not the main thread.
    """

    latest: Stop | None = None
    """The stop that was created last and is not closed."""

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
        # Never read: one byte makes the pipe readable for all waiting threads.
        self._wake, self._waker = os.pipe()
        self._earlier = {number: signal.signal(number, self._signalled) for number in signals}
        self._before, Stop.latest = Stop.latest, self

    def close(self) -> None:
        """Restore the previous signal handlers, for tests."""
        for number, earlier in self._earlier.items():
            signal.signal(number, earlier)
        self._earlier = {}
        os.close(self._wake)
        os.close(self._waker)
        if Stop.latest is self:
            Stop.latest = self._before

    def is_set(self) -> bool:
        """Return whether to stop."""
        return self._asked_at is not None

    def set(self) -> None:
        """Stop the plugin, as a signal does."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            os.write(self._waker, b"x")

    def wait(self, seconds: float) -> bool:
        """Wait until the plugin is to stop, at most ``seconds``; return whether it is."""
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
        """Return the seconds of the grace period that are left before SIGKILL.

        Before the stop, that is the whole grace period.
        """
        if self._grace is None:
            self._grace = self._read_grace()
        if self._asked_at is None:
            return self._grace
        return max(self._asked_at + self._grace - time.monotonic(), 0.0)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the plugin is to stop, for a selector."""
        return self._wake

    def interruptible(self, after: float = 0.0) -> _Guard:
        """Return a context manager that interrupts its block when the plugin is to stop.

        ``with stop.interruptible(): client.post(...)`` ends at the signal, even in the middle of a
        read, and the program continues after the block. It works in the main thread only, which
        handles Python's signals. It does not interrupt C code that blocks, such as a name lookup
        or a disk that does not answer.

        Args:
            after: Seconds that the block may still take after the signal, timed by SIGALRM.
        """
        return _Guard(self, after)

    def _read_grace(self) -> float:
        # Late: the supervisor's table of settings takes time to load.
        from lmcache_plugin_adapter.configuration.settings import read_settings

        from .context import Context

        try:
            ctx = self._context or Context.from_environ()
            extra_config, names = ctx.config.get("extra_config"), ctx.names
        except ContextError:
            extra_config, names = None, ()
        settings, _ = read_settings(extra_config)
        return settings.for_plugin(*names).stop_grace

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.set()
        earlier = self._earlier.get(number)
        if callable(earlier) and isinstance(getattr(earlier, "__self__", None), Stop):
            earlier(number, frame)
        if self._guard is not None:
            self._guard.signalled(frame)


class _Guard:
    """The context manager of :meth:`Stop.interruptible`; each is entered once."""

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
        """Interrupt the running block, at once or later."""
        if self._after <= _AT_ONCE and self._may_raise(frame):
            raise Stopped
        self._arm()

    def _arm(self) -> None:
        self._armed = True
        signal.signal(signal.SIGALRM, self._alarmed)
        signal.setitimer(signal.ITIMER_REAL, self._after)

    def _alarmed(self, _number: int, frame: FrameType | None) -> None:
        if self._stop._guard is not self:
            return  # the block ended in time
        if self._may_raise(frame):
            raise Stopped
        signal.setitimer(signal.ITIMER_REAL, _AT_ONCE)

    def _may_raise(self, frame: FrameType | None) -> bool:
        # The block would not catch an exception raised inside __enter__ or __exit__.
        return self._inside and (frame is None or frame.f_code not in _OWN_CODE)


_AT_ONCE = 0.001
_OWN_CODE = (_Guard.__enter__.__code__, _Guard.__exit__.__code__)
