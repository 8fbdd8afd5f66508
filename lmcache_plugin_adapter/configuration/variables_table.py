# SPDX-License-Identifier: Apache-2.0
"""The environment variables of plugins and of this package, for the reference page."""

from __future__ import annotations

from lmcache_plugin_adapter.contract import variables
from lmcache_plugin_adapter.contract.frozen import frozen

from . import locations


@frozen
class Variable:
    """One row of the table.

    Attributes:
        name: The variable.
        value: What it holds (Markdown).
    """

    name: str
    value: str


VARIABLES_SET: tuple[Variable, ...] = (
    Variable(
        variables.ROLE,
        "`SCHEDULER`, `WORKER` or `SERVER`; empty if the host has no roles.",
    ),
    Variable(
        variables.WORKER_ID,
        "Rank of this worker in its replica, from 0; `-1` on the scheduler.",
    ),
    Variable(
        variables.WORKER_COUNT,
        "Number of workers in this replica (tensor × pipeline × prefill context parallel size).",
    ),
    Variable(
        variables.CONFIG,
        "LMCache's whole configuration as JSON, `runtime_plugin_locations` and `extra_config` "
        "included. If it exceeds the kernel's limit for one variable (128 KiB), the variable "
        "holds only these two keys; if they exceed it too, the variable is not set.",
    ),
    Variable(
        variables.CONFIG_FILE,
        "Path of a file with the whole JSON of any size, which only the engine's user can read. "
        "Not set if the file could not be written.",
    ),
    Variable(
        variables.ENDING_FILE,
        "Path of a file that exists if the engine is the reason for a SIGTERM. It holds the "
        "reason in one word: `closing` (the engine shuts down in order), `failed` (an exception "
        "ends the engine), `died` (the engine was killed or crashed), `replaced` (the engine "
        "replaced itself with another program) or `told` (a signal stops the supervisor). "
        "Without the file, only this plugin is to stop. Not set without a runtime directory.",
    ),
    Variable(variables.DP_RANK, "Index of the data-parallel replica, from 0."),
    Variable(variables.DP_SIZE, "Number of data-parallel replicas."),
    Variable(variables.ENGINE_PID, "Process id of the engine process that the plugin belongs to."),
    Variable(variables.NAME, "The plugin's name, as in the log and in the settings."),
    Variable(
        variables.RUN_ID,
        "Run token: a random value for each engine process. Processes that a plugin starts "
        "inherit it, and the supervisor finds and stops them by it. Do not change it.",
    ),
    Variable("PYTHONUNBUFFERED", "`1`, so that a Python plugin's output appears at once."),
    Variable("PATH", "The engine's PATH, with the directory of the engine's Python first."),
    Variable(
        variables.METRICS_DIRECTORY,
        "Removed, in lower case too: a plugin would write its own metrics to the engine's files.",
    ),
    Variable(
        variables.METRICS_HANDED_OVER, f"The engine's `{variables.METRICS_DIRECTORY}`, if set."
    ),
    Variable(
        variables.NOTIFY_SOCKET,
        "With `notify`: where to report readiness, as sd_notify(3) does. Else removed: the "
        "engine's service manager is not the plugin's.",
    ),
    Variable(
        variables.WATCHDOG_USEC, "With `notify` and `watchdog`: the latter in µs. Else removed."
    ),
    Variable(
        variables.WATCHDOG_PID,
        "With `notify` and `watchdog`: the process that sends `WATCHDOG=1`. Else removed.",
    ),
)
"""Every variable that differs from the engine's environment."""

VARIABLES_READ: tuple[tuple[str, str], ...] = (
    ("LMCACHE_CONFIG_FILE", "Path of `lmcache.yaml`, for LMCache and for commands without `-c`."),
    (
        locations.VARIABLES[0],
        f"Replaces `{locations.KEY}` of the file (older name: `{locations.VARIABLES[1]}`).",
    ),
    ("LMCACHE_EXTRA_CONFIG", "Replaces the whole `extra_config` of the file; JSON."),
    (
        "LMCACHE_PLUGINS_RUNTIME_DIR",
        (
            "Directory for control sockets and configuration files, instead of the first usable "
            "of `/run/lmcache-plugins-UID`, `/dev/shm/lmcache-plugins-UID` and "
            "`/tmp/lmcache-plugins-UID`."
        ),
    ),
    (
        "LMCACHE_LOG_LEVEL",
        (
            "LMCache's own log level. Records below it, plugins' lines included, do not reach "
            "the engine's log. If it is not set, all records do, debug lines included."
        ),
    ),
    ("NO_COLOR", "Any value switches colours off."),
    ("TERM", "`dumb` switches colours off."),
)
"""Every variable that the adapter reads, in the engine's environment or a command's."""
