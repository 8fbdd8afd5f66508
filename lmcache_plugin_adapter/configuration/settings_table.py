"""The table of settings: key, default, accepted values and meaning.

Each of these is written here only. The reader (:mod:`.configuration.settings_reader`),
its messages and ``docs/configuration.md`` use this table.
"""

from __future__ import annotations

from .setting_kinds import (
    Setting,
    arguments,
    count,
    directory,
    flag,
    mapping_only,
    off,
    own_settings,
    seconds,
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
        "`false` leaves everything to LMCache's own launcher; nothing else here has an effect "
        "then.",
    ),
    Setting(
        "locations",
        "list",
        (),
        "a location or a list of locations",
        "More locations, added to `runtime_plugin_locations`.",
        read=lambda value, _environ: tuple(value) if isinstance(value, list) else value,
    ),
    word(
        "data_parallel",
        "local-rank-0",
        ("local-rank-0", "all"),
        "Which data-parallel replicas run plugins: the first of each node, so that two replicas "
        "do not fight over a port, or all of them. `LMCACHE_RUNTIME_PLUGIN_DP_RANK` tells plugins "
        "which replica they belong to.",
        per_plugin=False,
    ),
    word(
        "restart",
        "on-failure",
        ("never", "on-failure", "always"),
        "When a plugin that ended by itself is started again. A failure is an exit code other "
        "than 0, or a signal other than TERM, INT, HUP and PIPE. Exit code 125 always means "
        '"do not start me again".',
    ),
    Setting(
        "backoff",
        "mapping",
        None,
        "a mapping of `initial`, `max` and `reset_after`",
        "How long a restart waits: twice as long each time.",
        mapping_only,
        per_plugin=True,
    ),
    seconds("backoff.initial", 0.5, 0.01, 86_400, "The first wait."),
    seconds("backoff.max", 30.0, 0.01, 86_400, "The longest wait; not below `initial`."),
    seconds(
        "backoff.reset_after",
        30.0,
        0,
        86_400,
        "A plugin that ran this long counts as well again: the next wait is `initial`.",
    ),
    seconds(
        "stop_grace", 5.0, 0, 3_600, "Time between SIGTERM and SIGKILL when a plugin is stopped."
    ),
    word(
        "leftovers",
        "stop",
        ("stop", "keep"),
        "What happens to the other processes of a plugin whose first process has ended: they are "
        "stopped before any restart, or live until the engine ends.",
    ),
    count(
        "max_line_bytes",
        "bytes",
        3_072,
        128,
        65_536,
        "Longer lines of output are cut, with a mark. Where the engine's log is not a regular "
        "file, they are cut so that a whole record has at most 4,096 bytes: only such a record "
        "stays in one piece on a pipe.",
    ),
    count(
        "ring_bytes",
        "bytes",
        16_384,
        1_024,
        1_048_576,
        "Memory for a plugin's last lines of output, which `logs` and a crash report show. A flood "
        "costs the more CPU, the more of it is remembered.",
    ),
    Setting(
        "rate_limit",
        "mapping",
        True,
        "a mapping of `lines`, `per` and `burst`, or `off`",
        "How much of a plugin's output reaches the engine's log. What is held back is counted and "
        "said. Log files and crash reports are not limited by it; lines marked `<0>` to `<3>` "
        "(errors) have a burst of their own.",
        off,
        per_plugin=True,
    ),
    count("rate_limit.lines", "lines", 1_000, 1, 1_000_000, "Lines that pass in each `per`."),
    seconds("rate_limit.per", 1.0, 0.1, 3_600, "The time that `lines` counts for."),
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
        "engine (see [the log](operations.md#the-log)); or to one rotated file per plugin in a "
        "directory. Starts, exits and restarts are said on stderr; where `logging` is set for all "
        "plugins, through logging.",
        word_or_directory,
        per_plugin=True,
    ),
    Setting(
        "log.directory",
        "text",
        None,
        "a directory (with a `/` in it)",
        "`~` and `$VARS` are expanded; relative to the engine's working directory. `max_bytes` "
        "and `files` need it.",
        directory,
        per_plugin=True,
    ),
    count(
        "log.max_bytes",
        "bytes",
        10_485_760,
        4_096,
        1_099_511_627_776,
        "A file is rotated before it grows beyond this.",
    ),
    count(
        "log.files",
        "files",
        5,
        1,
        1_000,
        "Files kept per plugin, the one being written included.",
    ),
    flag(
        "metrics",
        False,
        "`true`: state, restarts, last exit and lines of plugins appear in vLLM's own `/metrics`, "
        "where vLLM runs with `PROMETHEUS_MULTIPROC_DIR` set (see [metrics]"
        "(operations.md#metrics)). The supervisor wakes up every 5 s then.",
    ),
    flag(
        "allow_insecure_permissions",
        False,
        "`true` runs plugins although everyone may write to their file or to a directory on the "
        "way to it: whoever can write there can run code as the engine's user.",
    ),
    flag(
        "filter_by_role",
        True,
        "`false` runs every plugin in every process, whatever role and worker id its name says.",
    ),
    Setting(
        "plugins",
        "mapping",
        {},
        "a mapping from plugins to their settings",
        "Settings of single plugins, by file name without extension; where two plugins share "
        "that, by file name, or by path relative to the location. The most specific name wins. "
        "What is not said there is as above.",
        mapping_only,
    ),
    flag(f"{PLUGIN_KEY}enabled", True, "`false`: the plugin is not started."),
    Setting(
        f"{PLUGIN_KEY}args",
        "list",
        (),
        "a list of texts or whole numbers",
        "Arguments of the plugin.",
        arguments,
        secret=True,
    ),
    Setting(
        f"{PLUGIN_KEY}env",
        "mapping",
        {},
        "a mapping from names to texts or whole numbers",
        "Variables on top of the plugin's environment. Names that begin with "
        "`LMCACHE_RUNTIME_PLUGIN_` or `LMCACHE_PLUGIN_` are taken.",
        mapping_only,
        secret=True,
    ),
    Setting(
        f"{PLUGIN_KEY}settings",
        "mapping",
        {},
        "a mapping",
        "What the plugin itself is told: it finds it in LMCache's configuration and says what is "
        "wrong with it. The supervisor does not look into it.",
        own_settings,
        secret=True,
    ),
)
"""Every setting, in the order of the reference page."""
