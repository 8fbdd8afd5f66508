"""The states of a plugin, as the supervisor keeps them and commands, metrics and JSON show them."""

from __future__ import annotations

import enum

NO_RESTART_CODE = 125
"""The exit code by which a plugin says "do not restart me" (as in s6)."""


class State(str, enum.Enum):
    """Where a plugin stands. The value is what people and JSON see."""

    STARTING = "starting"
    RUNNING = "running"
    CLEARING = "clearing"
    BACKING_OFF = "backing-off"
    STOPPING = "stopping"
    STOPPED = "stopped"
    EXITED = "exited"
    FAILED = "failed"
    REFUSED = "refused"

    @property
    def meaning(self) -> str:
        """One line for people."""
        return _MEANING[self]

    @property
    def settled(self) -> bool:
        """Whether nothing happens any more unless somebody asks for it."""
        return self in (State.STOPPED, State.EXITED, State.FAILED, State.REFUSED)


_MEANING = {
    State.STARTING: "about to be started",
    State.RUNNING: "its first process runs",
    State.CLEARING: "its first process ended; what it left behind is being ended",
    State.BACKING_OFF: "waits before it is started again",
    State.STOPPING: "was sent SIGTERM; its grace period runs",
    State.STOPPED: "stopped on request",
    State.EXITED: "ended, and its restart policy leaves it so",
    State.FAILED: "cannot run, or asked not to be restarted (exit code 125)",
    State.REFUSED: "not started: its file must be mended first",
}
