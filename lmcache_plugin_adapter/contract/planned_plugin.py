# SPDX-License-Identifier: Apache-2.0
"""The planner's decisions for the supervisor: typed.

The planning child sends a plan through its pipe as the values of its fields, in
their order: plain values that ``marshal`` carries, read by the same interpreter.
"""

from __future__ import annotations

import os

from .frozen import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal


@frozen
class PlannedPlugin:
    """A plugin that a process runs, or has to refuse.

    Attributes:
        names: What settings and commands may call it, the most general first:
            its name in the plan, its file name, its path.
        path: Absolute, as reached; ``pkg:NAME`` of an installed plugin.
        key: Device and inode: the same file has the same key. For an installed
            plugin, its name.
        file: The file name in log records.
        signature: Changes when the file changes: device, inode, time of modification
            in nanoseconds, size in bytes.
        package: Name and version of the package that installed it; None for a
            file.
        argv: The command; ``argv[0]`` is an absolute path. Empty if refused.
        own_args: The number of arguments at the end of ``argv`` that come from
            settings and may be secret.
        environment: Variables of this plugin alone: from settings, of its user, and the paths
            of its user's files.
        refused: Why it must not or cannot run and how to repair it, in one line
            without the plugin's name; None if it runs.
        restart: The restart policy.
        backoff: Seconds: the first delay, the longest, and the uptime that
            resets the delay.
        stop_grace: Seconds between SIGTERM and SIGKILL.
        every: Seconds from one scheduled run to the next; None without a schedule.
        jitter: The greatest random delay of a scheduled run, in seconds.
        timeout: The longest duration of a scheduled run, in seconds; None for no limit.
        notify: Whether it reports its readiness, by the protocol of sd_notify(3).
        ready_timeout: Seconds from its start until it must be ready.
        watchdog: The longest time between two signs of life, in seconds; None without.
        max_line_bytes: The length at which a line is cut.
        log_buffer_bytes: The size of the memory of last lines.
        rate_limit: Lines, per seconds, burst; None for no limit.
        log: Directory, bytes of a file and number of files; None for the
            engine's log.
        relay: Whether its output goes to Python logging in the engine.
        leftovers: Whether leftover processes are stopped or kept.
        nice: The nice value of its processes and of its sessions' autogroups.
        oom_score_adj: How much sooner the kernel kills its processes if memory runs out.
        memory_max: The limit of its memory in bytes, and the full key of the setting; or None.
        max_processes: The limit of its processes, and the full key of the setting; or None.
        credentials: The numbers of user, group, and all groups it runs as; None for the engine's.
        no_new_privs: Whether no program that it executes gains privileges.
        hidden: The variables of the engine that it does not get.
        checked: The paths whose permissions are checked again before each start.
        shares: The interpreter that imports from the file's directory, or None.
    """

    names: tuple[str, ...]
    path: str
    key: tuple[int, int] | tuple[str, str]
    file: str
    signature: tuple[int, ...]
    package: tuple[str, str] | None
    argv: tuple[bytes, ...]
    own_args: int
    environment: Mapping[bytes, bytes]
    refused: str | None
    restart: Literal["never", "on-failure", "always"]
    backoff: tuple[float, float, float]
    stop_grace: float
    every: float | None
    jitter: float
    timeout: float | None
    notify: bool
    ready_timeout: float
    watchdog: float | None
    max_line_bytes: int
    log_buffer_bytes: int
    rate_limit: tuple[int, float, int] | None
    log: tuple[str, int, int] | None
    relay: bool
    leftovers: Literal["stop", "keep"]
    nice: int
    oom_score_adj: int
    memory_max: tuple[int, str] | None
    max_processes: tuple[int, str] | None
    credentials: tuple[int, int, tuple[int, ...]] | None
    no_new_privs: bool
    hidden: tuple[bytes, ...]
    checked: tuple[str, ...]
    shares: str | None

    @property
    def name(self) -> str:
        """Its name in the plan."""
        return self.names[0]

    @property
    def command(self) -> str:
        """Interpreter and file, without the arguments from settings, which may be secret."""
        return " ".join(map(os.fsdecode, self.argv[: len(self.argv) - self.own_args]))


@frozen
class PlannedMetrics:
    """How the supervisor writes metrics of plugins.

    Attributes:
        directory: ``PROMETHEUS_MULTIPROC_DIR``, or that of the setting ``metrics.textfile``.
        module: The file of ``prometheus_client.mmap_dict``; None for a text file.
        labels: Role, rank and replica, on every series.
    """

    directory: str
    module: str | None
    labels: Mapping[str, str]


@frozen
class SupervisorPlan:
    """The result of a search for plugins, for the supervisor.

    Attributes:
        plugins: The plugins to run and the refused ones, by path.
        environment: Variables that all plugins get on top of the engine's;
            None removes one.
        skipped: Locations that do not answer.
        metrics: None without metrics.
        relay: Whether the supervisor's own records go to Python logging in the
            engine.
        watched: The directories that are watched for changes; None without ``auto_reload``.
    """

    plugins: tuple[PlannedPlugin, ...]
    environment: Mapping[bytes, bytes | None]
    skipped: tuple[str, ...]
    metrics: PlannedMetrics | None
    relay: bool
    watched: tuple[str, ...] | None

    def to_values(self) -> tuple[Any, ...]:
        """Return the plan in plain values."""
        plugins = tuple(tuple(vars(plugin).values()) for plugin in self.plugins)
        metrics = self.metrics and tuple(vars(self.metrics).values())
        return (plugins, self.environment, self.skipped, metrics, self.relay, self.watched)

    @classmethod
    def from_values(cls, values: tuple[Any, ...]) -> SupervisorPlan:
        """Return the plan that :meth:`to_values` described."""
        plugins, environment, skipped, metrics, relay, watched = values
        return cls(
            tuple(PlannedPlugin(*plugin) for plugin in plugins),
            environment,
            skipped,
            metrics and PlannedMetrics(*metrics),
            relay,
            watched,
        )
