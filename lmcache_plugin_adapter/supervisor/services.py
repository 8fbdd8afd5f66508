"""What all plugins of one supervisor share."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from lmcache_plugin_adapter.linux.event_loop import Loop
    from lmcache_plugin_adapter.supervisor.output.plugin_output import EventLog
    from lmcache_plugin_adapter.supervisor.output.writer import Writer
    from lmcache_plugin_adapter.supervisor.processes.spawn import ChildSetup

    from .plugin import Plugin


class Shared:
    """See the module.

    Args:
        loop: The supervisor's loop.
        log: The way to the engine's log.
        setup: How children are made.
        files: The writer of the plugins' own log files.
        run_id: The token that marks all that plugins start.
        label: Role and rank, as part of a file's name.
        link: The connection to the engine.
    """

    def __init__(
        self,
        loop: Loop,
        log: EventLog,
        setup: ChildSetup,
        files: Writer,
        run_id: bytes,
        label: str,
        link: socket.socket,
    ) -> None:
        self.loop = loop
        self.log = log
        self.setup = setup
        self.files = files
        self.run_id = run_id
        self.label = label
        self.link = link
        self.environment: dict[bytes, bytes] = {}
        """Of every plugin, without what is its own."""
        self.null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.report_r, self.report_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.changed: Callable[[Plugin], None] = lambda _plugin: None
        """Called when a plugin has changed its state."""
        self.ending = False
        """Whether the supervisor stops: then nothing is started any more."""
        self.by_pid: dict[int, Plugin] = {}
        """The first processes that have not been reaped."""
