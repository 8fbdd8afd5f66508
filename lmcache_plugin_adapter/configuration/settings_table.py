"""The table of settings: key, default, accepted values, meaning, and how a value is read.

This is the only place where any of these is written. The parser
(:mod:`.configuration.settings`), its messages and ``docs/configuration.md`` come from it.
"""

from __future__ import annotations

from collections.abc import Mapping

from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.messages.near_miss import near_miss
from lmcache_plugin_adapter.messages.problem import InvalidValueError

from .exec_limits import exec_text
from .locations import LocationError, expand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    _Environ = Mapping[str, str]

PLUGIN_KEY = "plugins.NAME."
"""How the table spells the keys that only one plugin's settings have."""


@frozen
class Setting:
    """One row of the table.

    Attributes:
        key: Dotted, below ``extra_config.runtime_plugins``.
        kind: Its type in a word.
        default: What is in force when the key is absent.
        accepted: Which values are taken, in words (Markdown).
        meaning: What it does, in sentences (Markdown).
        per_plugin: It may stand under ``plugins.NAME`` too.
        secret: Its value is never shown.
        read: Turns a found value and the environment into the value in force,
            or raises :class:`InvalidValueError`. Where the key has keys below it,
            ``read`` is for what may stand there instead of a mapping and
            returns values by key.
    """

    key: str
    kind: str
    default: Any
    accepted: str
    meaning: str
    read: Callable[[object, _Environ], Any]
    per_plugin: bool = False
    secret: bool = False


def _flag(key: str, default: bool, meaning: str) -> Setting:
    def read(value: object, _environ: _Environ) -> bool:
        if isinstance(value, bool):
            return value
        raise InvalidValueError

    return Setting(key, "boolean", default, "`true` or `false`", meaning, read)


def _word(
    key: str, default: str, choices: tuple[str, ...], meaning: str, *, per_plugin: bool = True
) -> Setting:
    def read(value: object, _environ: _Environ) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise InvalidValueError(_did_you_mean(value, choices))

    *first, last = (f"`{choice}`" for choice in choices)
    accepted = f"{', '.join(first)} or {last}"
    return Setting(key, "word", default, accepted, meaning, read, per_plugin)


def _seconds(key: str, default: float, low: float, high: float, meaning: str) -> Setting:
    def read(value: object, _environ: _Environ) -> float:
        # True is a number to Python and to nobody else; NaN fails the comparison.
        if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        raise InvalidValueError(_quotes_hint(value))

    accepted = f"a number of seconds from {low:g} to {high:g}"
    return Setting(key, "seconds", default, accepted, meaning, read, per_plugin=True)


def _count(key: str, unit: str, default: int, low: int, high: int, meaning: str) -> Setting:
    def read(value: object, _environ: _Environ) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise InvalidValueError(_quotes_hint(value))

    accepted = f"a whole number of {unit} from {low} to {high}"
    return Setting(key, unit, default, accepted, meaning, read, per_plugin=True)


def _mapping_only(_value: object, _environ: _Environ) -> dict[str, Any]:
    raise InvalidValueError


def _own_settings(value: object, _environ: _Environ) -> object:
    if not isinstance(value, Mapping):
        raise InvalidValueError
    return value


def _off(value: object, _environ: _Environ) -> dict[str, Any]:
    if value is False or value == "off":  # YAML reads a bare off as false
        return {"rate_limit": False}
    raise InvalidValueError(_did_you_mean(value, ("off",)))


_LOG_WORDS = ("stderr", "logging")


def _word_or_directory(value: object, environ: _Environ) -> dict[str, Any]:
    if value in _LOG_WORDS:
        return {"log": value, "log.directory": None}
    return {"log.directory": _directory(value, environ)}


def _directory(value: object, environ: _Environ) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise InvalidValueError
    # A bare word is more likely a keyword that does not exist than a directory.
    if "/" not in value and not value.startswith(("~", "$")):
        raise InvalidValueError(_did_you_mean(value, _LOG_WORDS))
    try:
        return expand(value, environ)
    except LocationError as error:
        raise InvalidValueError(str(error)) from None


def _arguments(value: object, _environ: _Environ) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise InvalidValueError("write ['--verbose'], one item for each argument")
    return tuple(_argument(index, item) for index, item in enumerate(value))


def _argument(index: int, item: object) -> str:
    try:
        return exec_text(item)
    except InvalidValueError as refused:
        reason = str(refused) or "it is neither text nor a whole number"
        raise InvalidValueError(f"item {index}: {reason}") from None


def _did_you_mean(value: object, choices: tuple[str, ...]) -> str:
    match = near_miss(value, choices) if isinstance(value, str) else None
    return f"did you mean '{match}'?" if match else ""


def _quotes_hint(value: object) -> str:
    return "write it without quotes" if isinstance(value, str) and value.isdigit() else ""


SETTINGS: tuple[Setting, ...] = (
    _flag(
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
    _word(
        "data_parallel",
        "local-rank-0",
        ("local-rank-0", "all"),
        "Which data-parallel replicas run plugins: the first of each node, so that two replicas "
        "do not fight over a port, or all of them. `LMCACHE_RUNTIME_PLUGIN_DP_RANK` tells plugins "
        "which replica they belong to.",
        per_plugin=False,
    ),
    _word(
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
        _mapping_only,
        per_plugin=True,
    ),
    _seconds("backoff.initial", 0.5, 0.01, 86_400, "The first wait."),
    _seconds("backoff.max", 30.0, 0.01, 86_400, "The longest wait; not below `initial`."),
    _seconds(
        "backoff.reset_after",
        30.0,
        0,
        86_400,
        "A plugin that ran this long counts as well again: the next wait is `initial`.",
    ),
    _seconds(
        "stop_grace", 5.0, 0, 3_600, "Time between SIGTERM and SIGKILL when a plugin is stopped."
    ),
    _word(
        "leftovers",
        "stop",
        ("stop", "keep"),
        "What happens to the other processes of a plugin whose first process has ended: they are "
        "stopped before any restart, or live until the engine ends.",
    ),
    _count(
        "max_line_bytes",
        "bytes",
        3_072,
        128,
        65_536,
        "Longer lines of output are cut, with a mark. Where the engine's log is not a regular "
        "file, they are cut so that a whole record has at most 4,096 bytes: only such a record "
        "stays in one piece on a pipe.",
    ),
    _count(
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
        _off,
        per_plugin=True,
    ),
    _count("rate_limit.lines", "lines", 1_000, 1, 1_000_000, "Lines that pass in each `per`."),
    _seconds("rate_limit.per", 1.0, 0.1, 3_600, "The time that `lines` counts for."),
    _count(
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
        _word_or_directory,
        per_plugin=True,
    ),
    Setting(
        "log.directory",
        "text",
        None,
        "a directory (with a `/` in it)",
        "`~` and `$VARS` are expanded; relative to the engine's working directory. `max_bytes` "
        "and `files` need it.",
        _directory,
        per_plugin=True,
    ),
    _count(
        "log.max_bytes",
        "bytes",
        10_485_760,
        4_096,
        1_099_511_627_776,
        "A file is rotated before it grows beyond this.",
    ),
    _count(
        "log.files",
        "files",
        5,
        1,
        1_000,
        "Files kept per plugin, the one being written included.",
    ),
    _flag(
        "metrics",
        False,
        "`true`: state, restarts, last exit and lines of plugins appear in vLLM's own `/metrics`, "
        "where vLLM runs with `PROMETHEUS_MULTIPROC_DIR` set (see [metrics]"
        "(operations.md#metrics)). The supervisor wakes up every 5 s then.",
    ),
    _flag(
        "allow_insecure_permissions",
        False,
        "`true` runs plugins although everyone may write to their file or to a directory on the "
        "way to it: whoever can write there can run code as the engine's user.",
    ),
    _flag(
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
        _mapping_only,
    ),
    _flag(f"{PLUGIN_KEY}enabled", True, "`false`: the plugin is not started."),
    Setting(
        f"{PLUGIN_KEY}args",
        "list",
        (),
        "a list of texts or whole numbers",
        "Arguments of the plugin.",
        _arguments,
        secret=True,
    ),
    Setting(
        f"{PLUGIN_KEY}env",
        "mapping",
        {},
        "a mapping from names to texts or whole numbers",
        "Variables on top of the plugin's environment. Names that begin with "
        "`LMCACHE_RUNTIME_PLUGIN_` or `LMCACHE_PLUGIN_` are taken.",
        _mapping_only,
        secret=True,
    ),
    Setting(
        f"{PLUGIN_KEY}settings",
        "mapping",
        {},
        "a mapping",
        "What the plugin itself is told: it finds it in LMCache's configuration and says what is "
        "wrong with it. The supervisor does not look into it.",
        _own_settings,
        secret=True,
    ),
)
"""Every setting, in the order of the reference page."""
