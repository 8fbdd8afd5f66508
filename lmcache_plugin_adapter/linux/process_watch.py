# SPDX-License-Identifier: Apache-2.0
"""Watch for the engine's exit, independent of forks of it."""

from __future__ import annotations

from .procfs import read_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .event_loop import Loop

POLL_SECONDS = 0.5
"""How often ``/proc`` is read if the kernel or a sandbox refuses pidfds."""


def watch_engine(
    loop: Loop,
    pidfd: int,
    pid: int,
    start: int,
    on_end: Callable[[], None],
    warn: Callable[[str], None],
) -> None:
    """Call ``on_end`` when process ``pid`` has exited.

    Args:
        loop: The supervisor's loop.
        pidfd: The engine's own pidfd; -1 if there is none.
        pid: The engine.
        start: The engine's start time, which tells it from a later process of that pid.
        on_end: Called once.
        warn: Logs a warning.
    """
    if pidfd >= 0:

        def ended() -> None:
            loop.unwatch(pidfd)
            on_end()

        loop.watch(pidfd, ended)
        return

    warn(
        f"No pidfd for the engine (kernel before 5.3, or a sandbox): "
        f"its end is looked for every {POLL_SECONDS} s",
    )

    def look() -> None:
        engine = read_process(pid)
        if engine is None or engine.start != start or engine.has_exited:
            on_end()
        else:
            loop.call_later(POLL_SECONDS, look)

    loop.call_later(POLL_SECONDS, look)
