# SPDX-License-Identifier: Apache-2.0
"""The states of a plugin, for the supervisor, the commands, metrics and JSON."""

from __future__ import annotations

import enum

NO_RESTART_CODE = 125
"""The exit code of a plugin that must not be restarted (as in s6)."""


class State(str, enum.Enum):
    """The state of a plugin. Its value is shown to people and in JSON."""

    STARTING = "starting"
    RUNNING = "running"
    CLEARING = "clearing"
    BACKING_OFF = "backing-off"
    WAITING = "waiting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    EXITED = "exited"
    FAILED = "failed"
    REFUSED = "refused"

    @property
    def meaning(self) -> str:
        """The state in words."""
        return _MEANING[self]

    @property
    def settled(self) -> bool:
        """Whether the state changes only on request."""
        return self in (State.STOPPED, State.EXITED, State.FAILED, State.REFUSED)


_MEANING = {
    State.STARTING: "about to be started",
    State.RUNNING: "its first process runs",
    State.CLEARING: "its first process ended; its leftover processes are being stopped",
    State.BACKING_OFF: "waits before it is started again",
    State.WAITING: "waits for its next scheduled run",
    State.STOPPING: "was sent SIGTERM; its grace period runs",
    State.STOPPED: "stopped on request",
    State.EXITED: "ended, as a failure or not, and its restart policy leaves it so",
    State.FAILED: "cannot run, or asked not to be restarted (exit code 125)",
    State.REFUSED: "not started: its file must be repaired first",
}
