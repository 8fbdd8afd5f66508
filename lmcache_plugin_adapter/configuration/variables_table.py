"""The environment variables of plugins and of this package, for the reference page."""

from __future__ import annotations

from lmcache_plugin_adapter.contract import variables as names
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
        names.ROLE,
        "`SCHEDULER`, `WORKER` or `SERVER`; empty where the host has no roles.",
    ),
    Variable(
        names.WORKER_ID,
        "Rank of this worker in its replica, from 0; `-1` on the scheduler.",
    ),
    Variable(
        names.WORKER_COUNT,
        "Number of workers in this replica (tensor × pipeline × prefill context parallel size).",
    ),
    Variable(
        names.CONFIG,
        "LMCache's whole configuration as JSON, `runtime_plugin_locations` and `extra_config` "
        "included. Where that is over the kernel's limit for one variable (128 KiB), only these "
        "two; where they are over it too, the variable is not set.",
    ),
    Variable(
        names.CONFIG_FILE,
        "Path of a file with the whole JSON, whatever its size, that only the engine's user can "
        "read. Not set where no such file could be written.",
    ),
    Variable(
        names.ENDING_FILE,
        "Path of a file that is there when SIGTERM comes because of the engine, and says why in "
        "one word: `closing` (the engine ends in order), `failed` (an exception ends it), `died` "
        "(its process has ended without a word: killed, crashed), `replaced` (it became another "
        "program) or `told` (the supervisor was told to stop by a signal). No such file: only "
        "this plugin is to end. Not set where there is no runtime directory.",
    ),
    Variable(names.DP_RANK, "Index of the data-parallel replica, from 0."),
    Variable(names.DP_SIZE, "Number of data-parallel replicas."),
    Variable(names.ENGINE_PID, "Process id of the engine process that the plugin belongs to."),
    Variable(names.NAME, "The plugin's own name, as the log and the settings have it."),
    Variable(
        names.RUN_ID,
        "Random mark of the engine process. What a plugin starts inherits it, and is found and "
        "stopped by it when the engine is gone: leave it in place.",
    ),
    Variable("PYTHONUNBUFFERED", "`1`, so that a Python plugin's output is seen at once."),
    Variable("PATH", "The engine's, with the directory of the engine's Python put first."),
    Variable(
        names.METRICS_DIRECTORY,
        "Removed, in lower case too: a plugin's own metrics would land in the engine's files.",
    ),
    Variable(
        names.METRICS_HANDED_OVER, f"The engine's `{names.METRICS_DIRECTORY}`, where it has one."
    ),
)
"""Every variable that differs from the engine's environment."""

VARIABLES_READ: tuple[tuple[str, str], ...] = (
    ("LMCACHE_CONFIG_FILE", "The `lmcache.yaml`, for LMCache and for commands without `-c`."),
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
            "LMCache's own log level: records below it, plugins' lines included, do not reach "
            "the engine's log. Where it is not set, all do, debug lines too."
        ),
    ),
    ("NO_COLOR", "Set to anything: no colours, on a terminal either."),
    ("TERM", "`dumb`: no colours."),
)
"""What the adapter itself looks at in the engine's environment, or in that of a command."""
