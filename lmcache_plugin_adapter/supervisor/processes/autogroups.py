# SPDX-License-Identifier: Apache-2.0
"""Extend the nice value of plugins to their sessions.

With autogroups, Linux shares CPU time between sessions first, so that the nice
value of a process counts only within its session. The autogroup of each session has
a nice value of its own, which no session inherits.
"""

from __future__ import annotations

import os
import time

from lmcache_plugin_adapter.contract.log_records import WARNING
from lmcache_plugin_adapter.linux.procfs import own_descendants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from lmcache_plugin_adapter.linux.event_loop import Loop, Timer
    from lmcache_plugin_adapter.supervisor.output.event_log import EventLog

_LOOKS = (0.1, 1.0)
"""Seconds from a start, and to the look after it: a plugin may start sessions itself."""

_LATER_SECONDS = 10.0
"""Between later looks: while such sessions exist, and when the supervisor is awake anyway."""

_AGAIN_SECONDS = 0.11
"""The kernel accepts one change in 0.1 s from users without CAP_SYS_ADMIN."""


class Autogroups:
    """Set the nice values of autogroups, soon after plugins have started.

    Args:
        loop: The supervisor's loop.
        events: The log.
        first_processes: The first processes of plugins, which lead their sessions.
    """

    def __init__(self, loop: Loop, events: EventLog, first_processes: Collection[int]) -> None:
        self._loop = loop
        self._events = events
        self._first_processes = first_processes
        self._timer: Timer | None = None
        self._next = 0
        self._due = 0.0
        self._searched = time.monotonic()
        """When the sessions that plugins have started were last searched."""
        self._is_of_use = os.path.exists("/proc/self/autogroup")

    def started(self) -> None:
        """Look soon, as a plugin has started; once for all that start now."""
        if self._is_of_use and (self._timer is None or self._next):
            self._next = 0
            self._look_in(_LOOKS[0])

    def awake(self) -> None:
        """Look if the last look is long ago."""
        if self._is_of_use and self._timer is None and time.monotonic() >= self._due:
            self._look()

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        self._due = time.monotonic() + _LATER_SECONDS
        try:
            has_more_sessions = self._update()
        except BlockingIOError:
            self._look_in(_AGAIN_SECONDS)
            return
        except OSError as error:
            self._is_of_use = False
            text = f"cannot write /proc/PID/autogroup: {error.strerror}"
            self._events.log(WARNING, f"Sessions of plugins keep their share of CPU time: {text}")
            return
        self._next += 1
        if self._next < len(_LOOKS):
            self._look_in(_LOOKS[self._next])
        elif has_more_sessions:
            self._look_in(_LATER_SECONDS)

    def _update(self) -> bool:
        """Give the autogroup of each session of plugins the nice value of its processes.

        The first look is at the sessions of first processes alone, unless starts follow each
        other so closely that no other look comes.

        Returns:
            Whether there are sessions that plugins have started.
        """
        first = self._first_processes
        sessions = {os.getsid(0)}
        now = time.monotonic()
        search = self._next > 0 or now - self._searched >= _LATER_SECONDS
        if search:
            self._searched = now
        for pid in own_descendants() if search else [*first]:
            try:
                session = os.getsid(pid)
                if session in sessions:
                    continue
                sessions.add(session)
                nice = os.getpriority(os.PRIO_PROCESS, pid)
                if nice > 0:
                    _raise_autogroup(pid, nice)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has exited
        return len(sessions) - 1 > len(first)


def _raise_autogroup(pid: int, nice: int) -> None:
    fd = os.open(f"/proc/{pid}/autogroup", os.O_RDWR | os.O_CLOEXEC)
    try:
        # Such as b"/autogroup-183319 nice 0\n"; empty without an autogroup.
        found = os.read(fd, 64).rpartition(b" ")[2]
        if found and int(found) < nice:
            os.write(fd, b"%d" % nice)
    finally:
        os.close(fd)
