# SPDX-License-Identifier: Apache-2.0
"""Objects that the plugins of one supervisor share."""

from __future__ import annotations

from lmcache_plugin_adapter.supervisor.processes.oom_kills import OomKills

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.contract.runtime_dir import InstanceDir
    from lmcache_plugin_adapter.linux.event_loop import Loop
    from lmcache_plugin_adapter.supervisor.output.event_log import EventLog
    from lmcache_plugin_adapter.supervisor.processes.reaper import Reaper
    from lmcache_plugin_adapter.supervisor.processes.spawn import ChildSetup


class Services:
    """The loop, the log and the children of one supervisor, and values that its parts set later.

    Args:
        loop: The supervisor's loop.
        events: The log of events, and the routes to the engine's log.
        setup: How children are started.
        reaper: Waits for children.
        file_label: Role and rank, as part of a file name.
    """

    def __init__(
        self,
        loop: Loop,
        events: EventLog,
        setup: ChildSetup,
        reaper: Reaper,
        file_label: str,
    ) -> None:
        self.loop = loop
        self.events = events
        self.setup = setup
        self.reaper = reaper
        self.file_label = file_label
        self.environment: dict[bytes, bytes] = {}
        """The environment of all plugins, without the variables of a single one."""
        self.oom_kills = OomKills()
        """Whether the kernel killed a process because memory ran out."""
        self.instance: InstanceDir | None = None
        """The supervisor's directory; None if there is no usable one."""
        self.sockets: dict[str, Callable[[], None]] = {}
        """The plugins' sockets in that directory, and what makes each again."""
        self.plugin_count = 0
        """How many plugins there are."""
        self.record: Callable[[int], None] = lambda _pid: None
        """Records a first process for the next supervisor."""
        self.stopping = False
        """Whether the supervisor stops: it then starts nothing."""
