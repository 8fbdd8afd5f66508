# SPDX-License-Identifier: Apache-2.0
"""The supervisor's event loop: what is due is called, what is cancelled is forgotten."""

from __future__ import annotations

import threading
from functools import partial

from lmcache_plugin_adapter.linux.event_loop import Loop


def test_cancelled_timers_are_not_kept() -> None:
    """Timers that are set and cancelled again and again take no memory until they are due."""
    errors: list[BaseException] = []
    loop = Loop(errors.append)
    called: list[int] = []
    for number in range(10_000):
        loop.call_later(3600, lambda: None).cancel()
        if number % 100 == 0:
            loop.call_later(0.01, partial(called.append, number))
    assert len(loop._timers) < 500
    loop.call_later(0.05, loop.stop)
    loop.run()
    assert sorted(called) == list(range(0, 10_000, 100))
    assert not errors


def test_equal_callbacks_are_called_once() -> None:
    """Methods of one object are equal; partials are not."""
    errors: list[BaseException] = []
    loop = Loop(errors.append)
    called: list[str] = []

    class Asker:
        def ask(self) -> None:
            called.append("method")

    asker = Asker()
    for _ in range(2):
        loop.call_soon(asker.ask)
        loop.call_soon(partial(called.append, "partial"))
    loop.call_soon(loop.stop)
    loop.run()
    assert called == ["method", "partial", "partial"]
    assert not errors


def test_a_timer_may_be_further_away_than_epoll_can_wait() -> None:
    """A plugin may extend its time by thousands of years; that must not end the loop."""
    errors: list[BaseException] = []
    loop = Loop(errors.append)
    loop.call_later(1e12, loop.stop)
    waker = threading.Timer(0.1, loop.wake, [loop.stop])
    waker.start()
    loop.run()
    waker.join()
    assert not errors
