# SPDX-License-Identifier: Apache-2.0
"""Names and meanings of the series."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmcache_plugin_adapter.supervisor.plugin import Plugin

STATE = "lmcache_plugin_state"
LAST_EXIT = "lmcache_plugin_last_exit_code"
MEMORY = "lmcache_plugin_supervisor_resident_memory_bytes"
READY = "lmcache_plugin_ready"
SUCCESS = "lmcache_plugin_last_success_timestamp_seconds"
RESTARTS = "lmcache_plugin_restarts"
LINES = "lmcache_plugin_output_lines"
DROPPED = "lmcache_plugin_output_lines_dropped"

HELP = {
    STATE: "1 for the state that the plugin is in, 0 for the others.",
    LAST_EXIT: "Exit code of the plugin's last run, or minus the number of the signal.",
    MEMORY: "Resident memory of the supervisor.",
    READY: "1 if the plugin has reported that it is ready, else 0.",
    SUCCESS: "When a scheduled run of the plugin last succeeded, in seconds since the epoch.",
    RESTARTS: "How often the plugin was started again by its restart policy.",
    LINES: "Lines that the plugin printed.",
    DROPPED: "Lines of the plugin that did not reach the log.",
}

COUNTERS = (RESTARTS, LINES, DROPPED)
"""The counters; the names of their samples end in ``_total``."""

MARK = "lmcacheplugins"
"""Part of the names of the files."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


def gauges_of(plugin: Plugin) -> Iterator[tuple[str, float]]:
    """Yield the gauges that a plugin has at present, beside its state."""
    for metric, value in (
        (LAST_EXIT, plugin.last_exit),
        (READY, plugin.ready),
        (SUCCESS, plugin.last_success),
    ):
        if value is not None:
            yield metric, float(value)


def resident() -> int:
    """Return this process's resident memory in bytes."""
    with open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read(128).split()[1]) * _PAGE
