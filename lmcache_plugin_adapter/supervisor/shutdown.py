"""The end of a supervisor: nothing of its plugins is left, and nothing is waited for in vain."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

from lmcache_plugin_adapter.contract.log_records import ERROR
from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.linux.procfs import ProcessTable, own_children
from lmcache_plugin_adapter.supervisor.processes.leftovers import (
    CHASE_SECONDS,
    kill_child,
    why_left,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.linux.event_loop import Loop, Timer

    from .plugin_set import Catalog
    from .services import Shared

_KILL_SECONDS = 1.0
"""How long SIGKILL may take, from the first on, before what is left is named and left."""

_MOMENT = 0.05
"""Seconds by which a plugin's own end of its grace period comes first, and says so."""

_LOOK_AGAIN = 0.005
_LOOK_AGAIN_IN_GRACE = 0.05
"""Seconds between two looks; in the grace period SIGCHLD tells of most."""


class Ending:
    """Looks until no descendant is left, then stops the loop.

    The supervisor is a subreaper: when it has no child any more, it has no
    descendant either.

    Args:
        loop: The supervisor's loop.
        catalog: The plugins, each of which ends by itself once it was told to.
        shared: What they share.
        reap: Reaps what has ended; true when no child is left.
        say: Logs a line.
    """

    def __init__(
        self,
        loop: Loop,
        catalog: Catalog,
        shared: Shared,
        reap: Callable[[], bool],
        say: Callable[[int, str], None],
    ) -> None:
        self._loop = loop
        self._catalog = catalog
        self._shared = shared
        self._reap = reap
        self._say = say
        self._deadline = 0.0
        self._killing_since: float | None = None
        self._strays_asked = False
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Begin to look; all gets the longest grace period of any plugin."""
        # Of any: what a plugin was allowed to leave behind has one, too.
        self._deadline = time.monotonic() + self._catalog.longest_grace + _MOMENT
        self._loop.call_soon(self.look)

    def look(self) -> None:
        """End the loop if nothing is left; else chase what is, and look again."""
        now = time.monotonic()
        late = now - self._deadline
        self._look_again_in(
            _LOOK_AGAIN if late >= 0 or not self._strays_asked else _LOOK_AGAIN_IN_GRACE
        )
        if self._reap():
            self._loop.stop()
            for plugin in self._catalog:
                if plugin.state in (State.STOPPING, State.CLEARING):
                    self._loop.attempt(plugin.cleared)
            return
        if self._strays_asked and self._shared.by_pid and late < 0:
            self._look_again_in(-late)  # the next SIGCHLD brings us back before
            return
        table = ProcessTable()
        for plugin in self._catalog:
            self._loop.attempt(partial(plugin.look, table))
        me = os.getpid()
        strays = table.with_descendants([me]) - {me}
        if late >= 0:
            if self._killing_since is None:
                self._killing_since = now
            table.kill(strays)
            # Not from the deadline on: who was stopped or starved meanwhile has killed nothing yet.
            if not self._chase_children() and now - self._killing_since > _KILL_SECONDS:
                # The table lacks what /proc hides, such as another user's processes.
                self._say(ERROR, f"Left behind, {why_left(strays.union(own_children()))}")
                self._loop.stop()
        elif not self._strays_asked:
            self._strays_asked = True
            # A plugin's group has been asked with it.
            first = self._shared.by_pid
            asked = {pid for pid in strays if table.by_pid[pid].group in first}
            table.send(strays - asked, signal.SIGTERM)
            table.send(strays - asked, signal.SIGCONT)

    def _look_again_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.look)

    def _chase_children(self) -> bool:
        """Kill for a moment all that becomes a child of ours, as what forks and exits does.

        Returns:
            Whether nothing is left.
        """
        until = time.monotonic() + CHASE_SECONDS
        while not self._reap():
            if time.monotonic() >= until:
                return False
            for pid in own_children():
                kill_child(pid)
        return True
