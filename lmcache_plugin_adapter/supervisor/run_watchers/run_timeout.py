# SPDX-License-Identifier: Apache-2.0
"""The longest duration of a scheduled run (``timeout``)."""

from __future__ import annotations

from lmcache_plugin_adapter.linux.event_loop import NO_TIMER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.linux.event_loop import Loop


class RunTimeout:
    """End a run that takes too long.

    Args:
        loop: The supervisor's loop.
        seconds: The longest duration.
        fail: Ends the run as a failure, with the cause.
    """

    def __init__(self, loop: Loop, seconds: float, fail: Callable[[str], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._fail = fail
        self._timer = NO_TIMER

    def run_started(self, _pid: int) -> None:
        """Begin to watch a run."""
        self._timer = self._loop.call_later(self._seconds, self._elapsed)

    def run_ended(self) -> None:
        """Stop watching the run."""
        self._timer.cancel()

    def _elapsed(self) -> None:
        self._fail(f"Did not finish within {self._seconds:g} s (timeout)")
