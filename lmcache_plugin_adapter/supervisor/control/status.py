# SPDX-License-Identifier: Apache-2.0
"""Describe a plugin for the control socket."""

from __future__ import annotations

from lmcache_plugin_adapter.contract.plugin_status import PluginStatus
from lmcache_plugin_adapter.messages.wording import decodable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lmcache_plugin_adapter.supervisor.plugin import Plugin


def plugin_status(plugin: Plugin, now: float) -> PluginStatus:
    """Return the status of a plugin at monotonic time ``now``."""
    due = plugin.next_start
    text = None if plugin.notifications is None else plugin.notifications.text
    return PluginStatus(
        name=plugin.name,
        path=decodable(plugin.planned.path),
        package=plugin.planned.package,
        command=_printable(plugin.planned.command),
        state=plugin.state,
        reason=None if plugin.trouble is None else _printable(plugin.trouble),
        ready=plugin.ready,
        status_text=None if text is None else _printable(text),
        pid=plugin.pid if plugin.running else None,
        uptime=round(now - plugin.started_at, 3) if plugin.running else None,
        restarts=plugin.restarts.count,
        last_exit=plugin.last_exit,
        next_start_in=None if due is None else round(max(due - now, 0.0), 3),
        last_success=plugin.last_success,
        lines=plugin.output.lines,
        lines_dropped=plugin.output.dropped,
        bytes=plugin.output.bytes,
    )


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
