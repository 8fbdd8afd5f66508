# SPDX-License-Identifier: Apache-2.0
"""The names of the environment variables of the plugin contract, and the exit reasons."""

OWN = "LMCACHE_RUNTIME_PLUGIN_"
OLDER = "LMCACHE_PLUGIN_"
"""The prefixes of the names: the current one, and that of older LMCache versions."""

ROLE = f"{OWN}ROLE"
WORKER_ID = f"{OWN}WORKER_ID"
WORKER_COUNT = f"{OWN}WORKER_COUNT"
CONFIG = f"{OWN}CONFIG"
CONFIG_FILE = f"{OWN}CONFIG_FILE"
ENDING_FILE = f"{OWN}ENDING_FILE"
DP_RANK = f"{OWN}DP_RANK"
DP_SIZE = f"{OWN}DP_SIZE"
ENGINE_PID = f"{OWN}ENGINE_PID"
NAME = f"{OWN}NAME"
RUN_ID = f"{OWN}RUN_ID"

CLOSING, FAILED, DIED, REPLACED, TOLD = EXIT_REASONS = (
    "closing",
    "failed",
    "died",
    "replaced",
    "told",
)
"""The words that the file of :data:`ENDING_FILE` may hold."""

METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client writes. Plugins get the value under another name only."""

METRICS_HANDED_OVER = f"{OWN}{METRICS_DIRECTORY}"

NOTIFY_SOCKET = "NOTIFY_SOCKET"
WATCHDOG_USEC = "WATCHDOG_USEC"
WATCHDOG_PID = "WATCHDOG_PID"
"""The variables of sd_notify(3): never the engine's, whose service manager is another one."""

OLDER_NAMES = {name: name.replace(OWN, OLDER) for name in (ROLE, WORKER_ID, WORKER_COUNT, CONFIG)}
"""The older name of each variable that has one; both have the same value."""
