# SPDX-License-Identifier: Apache-2.0
"""The settings under ``extra_config.runtime_plugins``, typed and complete."""

from __future__ import annotations

import os

from lmcache_plugin_adapter.contract.frozen import frozen

from .settings_reader import GROUPS, SettingsReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

    from lmcache_plugin_adapter.messages.problem import Problem


@frozen
class BackoffSettings:
    """Seconds before a restart: ``initial``, doubling up to ``max``.

    After a run of ``reset_after`` seconds, the next delay is ``initial`` again.
    """

    initial: float
    max: float
    reset_after: float


@frozen
class RateLimit:
    """Limit of a plugin's lines in the engine's log: ``lines`` in each ``per`` seconds.

    After a quiet time, ``burst`` lines pass at once.
    """

    lines: int
    per: float
    burst: int


@frozen
class LogFiles:
    """One file per plugin in ``directory``, rotated before it exceeds ``max_bytes``.

    ``directory`` is expanded; a relative one is relative to the engine's working
    directory. ``files`` is the number kept per plugin, the current one included.
    """

    directory: str
    max_bytes: int
    files: int


@frozen
class PluginSettings:
    """The settings in force for one plugin.

    Attributes:
        enabled: False if the plugin is known but not started.
        args: Arguments after the plugin's path.
        env: Additional environment variables.
        restart: When to restart the plugin after it exits.
        backoff: The delay before a restart.
        stop_grace: Seconds between SIGTERM and SIGKILL.
        every: Seconds from one scheduled run to the next; None without a schedule.
        jitter: The greatest random delay of a scheduled run, in seconds.
        timeout: The longest duration of a scheduled run, in seconds; None for no limit.
        notify: Whether the plugin reports its readiness, by the protocol of sd_notify(3).
        ready_timeout: Seconds from its start until it must be ready.
        watchdog: The longest time between two signs of life, in seconds; None without.
        max_line_bytes: Longer lines are cut.
        log_buffer_bytes: Memory for the last lines of output.
        rate_limit: None for no limit.
        log: None for the engine's stderr or its logging.
        relay: Output goes through Python's logging in the engine.
        leftovers: What happens to processes that outlive the plugin's first one.
        nice: CPU priority, for processes and sessions.
        oom_score_adj: How much sooner the kernel kills its processes if memory runs out.
        memory_max: The limit of bytes in memory for all its processes.
        max_processes: The limit of the number of its processes.
        user: The name or number of the user it runs as; None for the engine's.
        group: The name or number of the group it runs as; None for the user's.
        no_new_privs: Whether no program that it executes gains privileges.
        env_hide: Patterns of the variables that it does not get.
    """

    enabled: bool
    args: tuple[str, ...]
    env: Mapping[str, str]
    restart: Literal["never", "on-failure", "always"]
    backoff: BackoffSettings
    stop_grace: float
    every: float | None
    jitter: float
    timeout: float | None
    notify: bool
    ready_timeout: float
    watchdog: float | None
    max_line_bytes: int
    log_buffer_bytes: int
    rate_limit: RateLimit | None
    log: LogFiles | None
    relay: bool
    leftovers: Literal["stop", "keep"]
    nice: int
    oom_score_adj: int
    memory_max: int | None
    max_processes: int | None
    user: str | None
    group: str | None
    no_new_privs: bool
    env_hide: tuple[str, ...]


@frozen
class Settings:
    """Everything under ``extra_config.runtime_plugins``.

    Attributes:
        enabled: False leaves the plugins to LMCache's own launcher.
        locations: As found; :func:`.configuration.locations.merge_locations` validates them.
        data_parallel: Which data-parallel replicas run plugins.
        metrics: Write metrics of plugins, which vLLM serves.
        metrics_textfile: The directory of node_exporter's textfile collector, or None.
        auto_reload: Reload after changes in the locations.
        allow_insecure_permissions: Run plugins that everyone may write to.
        filter_by_role: False if every process runs every plugin.
        defaults: The settings of plugins without settings of their own.
        plugins: By key, merged over ``defaults``.
    """

    enabled: bool
    locations: object
    data_parallel: Literal["local-rank-0", "all"]
    metrics: bool
    metrics_textfile: str | None
    auto_reload: bool
    allow_insecure_permissions: bool
    filter_by_role: bool
    defaults: PluginSettings
    plugins: Mapping[str, PluginSettings]

    def key_for(self, *names: str) -> str | None:
        """Return the key in ``plugins`` that applies to a plugin.

        Args:
            names: The plugin's names from general to specific: stem, file name,
                path relative to the location. The most specific key applies.
        """
        return next((name for name in reversed(names) if name in self.plugins), None)

    def for_plugin(self, *names: str) -> PluginSettings:
        """Return the settings in force for a plugin, by the names of :meth:`key_for`."""
        key = self.key_for(*names)
        return self.defaults if key is None else self.plugins[key]


def read_settings(
    extra_config: object, environ: Mapping[str, str] | None = None
) -> tuple[Settings, list[Problem]]:
    """Read the settings in LMCache's ``extra_config``; never raises.

    Args:
        extra_config: LMCache's value, of any type.
        environ: For ``~`` and ``$VARS`` in directories; None for this process's.

    Returns:
        The settings in force, and the problems of invalid ones.
    """
    reader = SettingsReader(os.environ if environ is None else environ)
    values, defaults, plugins = reader.read(extra_config)
    settings = Settings(
        enabled=values["enabled"],
        locations=values["locations"],
        data_parallel=values["data_parallel"],
        metrics=values["metrics"],
        metrics_textfile=values["metrics.textfile"],
        auto_reload=values["auto_reload"],
        allow_insecure_permissions=values["allow_insecure_permissions"],
        filter_by_role=values["filter_by_role"],
        defaults=_plugin_settings(defaults),
        plugins={name: _plugin_settings(own) for name, own in plugins.items()},
    )
    return settings, reader.problems


def _plugin_settings(values: dict[str, Any]) -> PluginSettings:
    """Return the typed settings of one plugin."""

    def group(name: str) -> dict[str, Any]:
        return {key: values[f"{name}.{key}"] for key in GROUPS[name]}

    typed = {name: values[name] for name in PluginSettings.__annotations__ if name in values}
    typed |= {
        "env": dict(values["env"]),
        "backoff": BackoffSettings(**group("backoff")),
        "rate_limit": RateLimit(**group("rate_limit")) if values["rate_limit"] else None,
        "log": LogFiles(**group("log")) if values["log.directory"] is not None else None,
        "relay": values["log"] == "logging" and values["log.directory"] is None,
    }
    if values["every"] is None:
        typed["timeout"] = None
    if not values["notify"]:
        typed["watchdog"] = None
    if values["no_new_privs"] is None:
        typed["no_new_privs"] = values["user"] is not None or values["group"] is not None
    return PluginSettings(**typed)
