# SPDX-License-Identifier: Apache-2.0
"""The table of settings: key, default, accepted values and meaning.

Each of these is written here only; the free names of ``env`` and ``plugins`` are read by
:mod:`.configuration.settings_reader` itself. The reader, its messages and
``docs/reference/settings.md`` use this table.
"""

from __future__ import annotations

from .setting_kinds import (
    DIRECTORY_SCHEMA,
    Setting,
    account,
    arguments,
    count,
    directory,
    flag,
    mapping_only,
    no_text_file,
    off,
    optional_flag,
    own_settings,
    patterns,
    seconds,
    seconds_or_off,
    size,
    word,
    word_or_directory,
)

PREFIX = "extra_config.runtime_plugins"
"""Where ``lmcache.yaml`` has the settings. Messages show keys in full."""

PLUGIN_KEY = "plugins.NAME."
"""The prefix of keys that exist only for a single plugin."""

SETTINGS: tuple[Setting, ...] = (
    flag(
        "enabled",
        True,
        "`false` leaves the plugins to LMCache's own launcher; no other setting has an effect "
        "then.",
    ),
    Setting(
        "locations",
        "list",
        (),
        "a location or a list of locations",
        "Additional locations, after those of `runtime_plugin_locations`.",
        read=lambda value, _environ: tuple(value) if isinstance(value, list) else value,
        schema={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    ),
    word(
        "data_parallel",
        "local-rank-0",
        ("local-rank-0", "all"),
        "Which data-parallel replicas run plugins: the first one of each node (in SGLang, of the "
        "job), so that two replicas do not compete for a port, or all replicas. The variable "
        "`LMCACHE_RUNTIME_PLUGIN_DP_RANK` contains the index of the plugin's replica.",
        per_plugin=False,
    ),
    word(
        "restart",
        "on-failure",
        ("never", "on-failure", "always"),
        "When to restart a plugin that exits on its own. A failure is an exit code other than 0, "
        "or a signal other than TERM, INT, HUP and PIPE. A plugin that exits with code 125 is "
        "never restarted.",
    ),
    Setting(
        "backoff",
        "mapping",
        None,
        "a mapping of `initial`, `max` and `reset_after`",
        "Delay before a restart; doubles after each failure.",
        mapping_only,
        per_plugin=True,
    ),
    seconds("backoff.initial", 0.5, 0.01, 86_400, "The first delay."),
    seconds("backoff.max", 30.0, 0.01, 86_400, "The longest delay; at least `initial`."),
    seconds(
        "backoff.reset_after",
        30.0,
        0,
        86_400,
        "After a run of this length, the next delay is `initial` again.",
    ),
    seconds("stop_grace", 5.0, 0, 3_600, "Grace period: time between SIGTERM and SIGKILL."),
    seconds_or_off(
        "every",
        0.1,
        604_800,
        "Schedule of a plugin that does one thing and exits: time from the start of one run to the "
        "start of the next. The first run starts at once. A run that comes due during the "
        "previous one is skipped. A failed run is logged, and the next one starts on schedule, "
        "so that `restart` and `backoff` have no effect. Exit code 125 ends the schedule.",
    ),
    seconds(
        "jitter",
        0.0,
        0,
        604_800,
        "Longest random delay of each scheduled run after the first, so that plugins of many "
        "engines do not run in the same moment; below `every`.",
    ),
    seconds_or_off(
        "timeout",
        0.1,
        604_800,
        "Longest duration of a scheduled run. A run that takes longer gets SIGTERM, `stop_grace` "
        "and SIGKILL, and counts as a failure.",
    ),
    flag(
        "notify",
        False,
        "`true`: the plugin reports when it is ready, by systemd's protocol (see "
        "[readiness](../plugin-authors/contract.md#readiness-and-watchdog)). Until then, "
        "`status --check` fails.",
        per_plugin=True,
    ),
    seconds(
        "ready_timeout",
        60.0,
        0.1,
        86_400,
        "Time from the start of a plugin with `notify` until it must be ready. A plugin that is "
        "late gets SIGABRT, `stop_grace` and SIGKILL, and counts as failed.",
    ),
    seconds_or_off(
        "watchdog",
        0.1,
        86_400,
        "Longest time between two signs of life (`WATCHDOG=1`) of a plugin with `notify`, once it "
        "is ready. A plugin that is late gets SIGABRT, `stop_grace` and SIGKILL, and counts as "
        "failed.",
    ),
    word(
        "leftovers",
        "stop",
        ("stop", "keep"),
        "What happens to leftover processes of a plugin whose first process has exited: the "
        "supervisor stops them before any restart, or keeps them until the engine exits.",
    ),
    count(
        "nice",
        "",
        19,
        0,
        19,
        "CPU priority of a plugin's processes: with 19, the default, plugins use the CPU time that "
        "the engine leaves. The supervisor also sets it for the plugin's sessions, since Linux' "
        "autogroups share CPU time between sessions. The engine's own nice value is the lowest.",
    ),
    count(
        "oom_score_adj",
        "",
        1_000,
        -1_000,
        1_000,
        "Which processes the kernel kills first if memory runs out: with 1,000, the default, a "
        "plugin before its engine. The engine's own value is the lowest.",
    ),
    size(
        "memory_max",
        None,
        16_777_216,  # an interpreter needs about 10 MiB
        1_099_511_627_776,
        "Limit of the memory that all processes of a plugin use together. The supervisor checks it "
        "every second. A plugin over it is stopped as a failure: SIGTERM, the grace period, "
        "SIGKILL, then `restart` applies. Pages that processes share count once.",
    ),
    count(
        "max_processes",
        "processes",
        None,
        1,
        100_000,
        "Limit of the number of processes of a plugin, its first one included. It applies as "
        "`memory_max` does. A plugin that starts more processes in its grace period is killed.",
    ),
    account(
        "user",
        "the engine's",
        "user",
        "The user that a plugin runs as; the engine must run as root. The plugin gets the user's "
        "groups, `HOME`, `USER` and `LOGNAME`, and a copy of the configuration file that only this "
        "user can read. The checks of permissions apply to this user. See "
        "[other users](../how-it-works/security.md#plugins-of-other-users).",
    ),
    account(
        "group",
        "the user's main group",
        "group",
        "The group that a plugin runs as; the engine must run as root.",
    ),
    optional_flag(
        "no_new_privs",
        "`true`: no program that the plugin executes gains privileges, such as set-uid programs. "
        "Without the key, this applies to plugins with a `user` or a `group`.",
    ),
    Setting(
        "env_hide",
        "list",
        (),
        "a list of patterns of names, such as `*TOKEN*`",
        "Variables of the engine's environment that plugins do not get. In a pattern, `*` stands "
        "for any text and `?` for one character. The variables of the "
        "[contract](../plugin-authors/contract.md), `PATH`, and those in `env` stay.",
        patterns,
        per_plugin=True,
        schema={"type": "array", "items": {"type": "string", "minLength": 1}},
    ),
    size(
        "max_line_bytes",
        3_072,
        128,
        65_536,
        "Longer lines of output are cut and marked. If the engine's log is not a regular file, "
        "a whole record has at most 4,096 bytes, since a pipe keeps only such records in one "
        "piece.",
    ),
    size(
        "log_buffer_bytes",
        16_384,
        1_024,
        1_048_576,
        "Memory for the last lines of a plugin's output, which `logs` and a crash report show. "
        "With more memory, a plugin that floods the log costs more CPU.",
    ),
    Setting(
        "rate_limit",
        "mapping",
        True,
        "a mapping of `lines`, `per` and `burst`, or `off`",
        "Limits how many lines a plugin may write to the engine's log. Suppressed lines are "
        "counted, and the count is logged. Log files and crash reports have no limit. Lines "
        "marked `<0>` to `<3>` (errors) have a burst of their own.",
        off,
        per_plugin=True,
        schema={"enum": ["off", False]},
    ),
    count(
        "rate_limit.lines",
        "lines",
        1_000,
        1,
        1_000_000,
        "Lines that pass in each period of `per` seconds.",
    ),
    seconds("rate_limit.per", 1.0, 0.1, 3_600, "The period of `lines`."),
    count(
        "rate_limit.burst", "lines", 10_000, 1, 10_000_000, "Lines that pass after a quiet time."
    ),
    Setting(
        "log",
        "text or mapping",
        "stderr",
        "`stderr`, `logging`, a directory (with a `/` in it), or a mapping of `directory`, "
        "`max_bytes` and `files`",
        "Where a plugin's output goes: to the engine's stderr; through Python's logging in the "
        "engine (see [the log](../operators/monitor.md#the-log)); or to one rotated file per "
        "plugin in a directory. The supervisor logs starts, exits and restarts to stderr, or "
        "through logging if `logging` is set for all plugins.",
        word_or_directory,
        per_plugin=True,
        schema={"anyOf": [{"enum": ["stderr", "logging"]}, DIRECTORY_SCHEMA]},
    ),
    Setting(
        "log.directory",
        "text",
        None,
        "a directory (with a `/` in it)",
        "`~` and `$VARS` are expanded. A relative path is relative to the engine's working "
        "directory. `max_bytes` and `files` require this key.",
        directory,
        per_plugin=True,
        schema=DIRECTORY_SCHEMA,
    ),
    size(
        "log.max_bytes",
        10_485_760,
        4_096,
        1_099_511_627_776,
        "A file is rotated before it exceeds this size.",
    ),
    count(
        "log.files",
        "files",
        5,
        1,
        1_000,
        "Number of files kept per plugin, the current one included.",
    ),
    Setting(
        "metrics",
        "boolean or mapping",
        False,
        "`true`, `false`, or a mapping of `textfile`",
        "`true`: vLLM's own `/metrics` shows state, restarts, last exit and lines of plugins, if "
        "vLLM runs with `PROMETHEUS_MULTIPROC_DIR`. The supervisor then wakes up every 5 s. A "
        "mapping writes the same metrics for node_exporter instead, for processes without vLLM's "
        "`/metrics` (see [metrics](metrics.md)).",
        no_text_file,
        schema={"type": "boolean"},
    ),
    Setting(
        "metrics.textfile",
        "text",
        None,
        "a directory (with a `/` in it)",
        "The directory of node_exporter's textfile collector (`--collector.textfile.directory`). "
        "Each supervisor keeps one file there, writes it when a state changes and every 15 s, and "
        "removes it when the engine exits. `~` and `$VARS` are expanded.",
        directory,
        schema=DIRECTORY_SCHEMA,
    ),
    flag(
        "auto_reload",
        False,
        "`true` reloads one second after the last change in the locations, as "
        "`lmcache-plugins reload` does. The kernel reports changes, so nothing is polled. Network "
        "file systems report no changes of other hosts; the log shows one line then.",
    ),
    flag(
        "allow_insecure_permissions",
        False,
        "`true` runs plugins even if everyone may write to their file or to a directory on the "
        "way to it. Any user who can write there can then run code as the engine's user.",
    ),
    flag(
        "filter_by_role",
        True,
        "`false` runs every plugin in every process and ignores role and worker id in its name.",
    ),
    Setting(
        "plugins",
        "mapping",
        {},
        "a mapping from plugins to their settings",
        "Per-plugin settings. The key is the file name without its extension; if two plugins "
        "share it, use the file name, or the path relative to the location. The most specific "
        "key applies. Settings that are not listed there keep their general value.",
        mapping_only,
    ),
    flag(f"{PLUGIN_KEY}enabled", True, "`false` does not start the plugin."),
    Setting(
        f"{PLUGIN_KEY}args",
        "list",
        (),
        "a list of texts or whole numbers",
        "Arguments that are passed to the plugin.",
        arguments,
        secret=True,
        schema={"type": "array", "items": {"type": ["string", "integer"]}},
    ),
    Setting(
        f"{PLUGIN_KEY}env",
        "mapping",
        {},
        "a mapping from names to texts or whole numbers",
        "Additional environment variables of the plugin. Names that begin with "
        "`LMCACHE_RUNTIME_PLUGIN_` or `LMCACHE_PLUGIN_` are reserved.",
        mapping_only,
        secret=True,
        schema={"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
    ),
    Setting(
        f"{PLUGIN_KEY}settings",
        "mapping",
        {},
        "a mapping",
        "Free-form settings for the plugin's own use. The plugin reads them in LMCache's "
        "configuration and validates them; the supervisor does not.",
        own_settings,
        secret=True,
        schema={"type": "object"},
    ),
)
"""Every setting, in the order of the reference page."""
