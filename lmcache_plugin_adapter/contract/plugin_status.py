# SPDX-License-Identifier: Apache-2.0
"""A supervisor's report on one plugin: typed, each field written once."""

from __future__ import annotations

from .frozen import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .plugin_states import State


@frozen
class PluginStatus:
    """The status of one plugin; the field names are the keys of its JSON.

    Attributes:
        name: As in settings and in the log.
        path: Its file; ``pkg:NAME`` of an installed plugin.
        package: Name and version of the package that installed it.
        command: Interpreter and file.
        state: Where it stands.
        reason: Why it was refused, cannot run or has failed; else None.
        ready: Whether it has reported that it is ready; None if it need not.
        status_text: What it has reported about its state.
        pid: Of its first process while that runs.
        uptime: Seconds since that was started.
        restarts: How often its restart policy restarted it.
        last_exit: Exit code, or minus the signal's number; None if it never exited.
        next_start_in: Seconds, while it waits for a restart or a scheduled run.
        last_success: When a scheduled run last succeeded, in seconds since the epoch.
        lines: Lines of output.
        lines_dropped: Lines that did not reach the log.
        bytes: Bytes of output.
    """

    name: str
    path: str
    package: tuple[str, str] | None
    command: str
    state: State
    reason: str | None
    ready: bool | None
    status_text: str | None
    pid: int | None
    uptime: float | None
    restarts: int
    last_exit: int | None
    next_start_in: float | None
    last_success: float | None
    lines: int
    lines_dropped: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the status as the control socket sends it."""
        package = self.package and dict(zip(("name", "version"), self.package, strict=True))
        return {**vars(self), "package": package, "state": self.state.value}
