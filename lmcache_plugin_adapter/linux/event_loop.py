# SPDX-License-Identifier: Apache-2.0
"""The supervisor's event loop: descriptors, timers and signals; without any due, it sleeps."""

from __future__ import annotations

import os
import select
import signal
import time
from _heapq import heapify, heappop, heappush  # not heapq, whose Python code takes 30 kB

from .syscalls import read_signals, signal_descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FEW_TIMERS = 64
"""Below this number of timers, cancelled ones are not searched for."""

_LONGEST_SLEEP = 86_400.0
"""Seconds; ``epoll`` refuses more than 24 days."""

_EPOLLIN = 1
"""``select.EPOLLIN``, which only Linux has; this module can be imported elsewhere, too."""


class Timer:
    """A callback with a time; cancelling it is final."""

    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callable[[], None] | None) -> None:
        self.due = due
        self.callback = callback

    def __lt__(self, other: Timer) -> bool:
        return self.due < other.due

    def cancel(self) -> None:
        """Prevent the callback from being called."""
        self.callback = None


NO_TIMER = Timer(0.0, None)
"""A timer that is cancelled already: where none has been set yet."""


class Loop:
    """Wait for descriptors, timers (monotonic clock) and signals, and call their callbacks.

    Args:
        on_error: Called with an exception that a callback raised. An error of one
            plugin must not end the supervision of the others.
    """

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timers: list[Timer] = []
        self._prune_at = _FEW_TIMERS
        self._stopped = False
        self._signal_callbacks: dict[int, Callable[[], None]] = {}
        self._soon: dict[Callable[[], None], None] = {}
        self._signals = -1
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.watch(self._wake_r, self._wake)
        self._on_wake: Callable[[], None] | None = None
        self.on_activity: Callable[[], None] = lambda: None
        """Called when descriptors were ready, after their callbacks."""

    def watch(self, fd: int, callback: Callable[[], None], events: int = _EPOLLIN) -> None:
        """Call ``callback`` when ``fd`` is ready; replaces a previous callback."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching ``fd``; to be called before it is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` in ``delay`` seconds."""
        if len(self._timers) >= self._prune_at:  # drop cancelled timers
            self._timers = [timer for timer in self._timers if timer.callback is not None]
            heapify(self._timers)
            self._prune_at = max(_FEW_TIMERS, 2 * len(self._timers))
        timer = Timer(time.monotonic() + delay, callback)
        heappush(self._timers, timer)
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after everything that is ready now.

        Equal callbacks are called once. Two bound methods of one object are
        equal, two partials are not.
        """
        self._soon[callback] = None

    def on_signal(self, number: signal.Signals, callback: Callable[[], None]) -> None:
        """Call ``callback`` from the loop when the signal arrives.

        The signal is blocked and read from a descriptor: a child has no handlers to
        reset and only calls :func:`.linux.syscalls.unblock_all_signals`. Call this
        before other threads start, which would receive the signal.
        """
        self._signal_callbacks[number] = callback
        if number == signal.SIGCHLD:
            # If the parent left it ignored, the kernel would reap children and send no signal.
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        self._signals = signal_descriptor(self._signal_callbacks, self._signals)
        self.watch(self._signals, self._on_signals)

    def wake(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` from the loop; for other threads."""
        self._on_wake = callback
        try:
            os.write(self._wake_w, b"\0")
        except BlockingIOError:
            pass  # the pipe is full of wake-ups already

    def stop(self) -> None:
        """Make :meth:`run` return."""
        self._stopped = True

    def run(self) -> None:
        """Wait for events and call callbacks until :meth:`stop`."""
        while not self._stopped:
            ready = self._poll()
            for fd, _ in ready:
                callback = self._callbacks.get(fd)
                if callback is not None:
                    self.attempt(callback)
            if ready:
                self.attempt(self.on_activity)
            now = time.monotonic()
            while self._timers and self._timers[0].due <= now:
                timer = heappop(self._timers)
                if timer.callback is not None:
                    self.attempt(timer.callback)
            if self._soon:
                soon, self._soon = self._soon, {}
                for callback in soon:
                    self.attempt(callback)

    def _poll(self) -> list[tuple[int, int]]:
        while self._timers and self._timers[0].callback is None:
            heappop(self._timers)
        if self._soon:
            return self._epoll.poll(0)
        if not self._timers:
            return self._epoll.poll(-1)
        # Rounded up to epoll's millisecond: the timer must be due when epoll returns.
        seconds = max(0.0, self._timers[0].due - time.monotonic())
        return self._epoll.poll(min(seconds, _LONGEST_SLEEP) + 0.0005)

    def _wake(self) -> None:
        try:
            os.read(self._wake_r, 4096)
        except BlockingIOError:
            return
        if self._on_wake is not None:
            self.attempt(self._on_wake)

    def _on_signals(self) -> None:
        for number in read_signals(self._signals):
            self.attempt(self._signal_callbacks[number])

    def attempt(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, and report an exception of it."""
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - see the class
            self._on_error(error)
