"""The settings under ``extra_config.runtime_plugins``, typed, merged and validated.

A wrong value never stops anything: it is reported with its full key, and what
was in force stays in force, as does everything else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.messages.describe import describe_type, show
from lmcache_plugin_adapter.messages.near_miss import near_miss
from lmcache_plugin_adapter.messages.problem import InvalidValueError, Problem

from .exec_limits import exec_variable
from .settings_table import PLUGIN_KEY, SETTINGS, Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    _Values = dict[str, Any]
    _Found = Mapping[Any, object]
    _Rows = Mapping[str, Setting]

PREFIX = "extra_config.runtime_plugins"
"""Where the settings stand in ``lmcache.yaml``; messages give keys in full."""

_NO_EFFECT = "it has no effect"


@frozen
class Backoff:
    """Seconds that a restart waits: ``initial``, doubling up to ``max``.

    A plugin that ran for ``reset_after`` seconds starts again at ``initial``.
    """

    initial: float
    max: float
    reset_after: float


@frozen
class RateLimit:
    """Lines of a plugin that reach the engine's log: ``lines`` in each ``per`` seconds.

    After a quiet time ``burst`` lines pass at once.
    """

    lines: int
    per: float
    burst: int


@frozen
class LogFiles:
    """One file per plugin in ``directory``, rotated before it passes ``max_bytes``.

    ``directory`` is expanded, and relative to the engine's working directory
    where it is relative. ``files`` are kept per plugin, the one being written
    included.
    """

    directory: str
    max_bytes: int
    files: int


@frozen
class PluginSettings:
    """What is in force for one plugin, complete.

    Attributes:
        enabled: False: it is known but not started.
        args: Arguments after the plugin's path.
        env: Variables on top of the plugin's environment.
        restart: When it is started again after it ended.
        backoff: How long that waits.
        stop_grace: Seconds between SIGTERM and SIGKILL.
        max_line_bytes: Longer lines are cut.
        ring_bytes: Memory for its last lines of output.
        rate_limit: None: no limit.
        log: None: the engine's stderr, or its logging.
        relay: Output goes through Python's logging in the engine.
        leftovers: What happens to processes that outlive its first one.
    """

    enabled: bool
    args: tuple[str, ...]
    env: Mapping[str, str]
    restart: Literal["never", "on-failure", "always"]
    backoff: Backoff
    stop_grace: float
    max_line_bytes: int
    ring_bytes: int
    rate_limit: RateLimit | None
    log: LogFiles | None
    relay: bool
    leftovers: Literal["stop", "keep"]


@frozen
class Settings:
    """Everything under ``extra_config.runtime_plugins``.

    Attributes:
        enabled: False: LMCache's own launcher does everything.
        locations: As found; :func:`.configuration.locations.merge_locations` validates them.
        data_parallel: Which data-parallel replicas run plugins.
        metrics: Write metrics of plugins for vLLM to serve.
        allow_insecure_permissions: Run what everyone may write to.
        filter_by_role: False: every plugin runs in every process.
        defaults: For plugins without settings of their own.
        plugins: By key, merged over ``defaults``.
    """

    enabled: bool
    locations: object
    data_parallel: Literal["local-rank-0", "all"]
    metrics: bool
    allow_insecure_permissions: bool
    filter_by_role: bool
    defaults: PluginSettings
    plugins: Mapping[str, PluginSettings]

    def key_for(self, *names: str) -> str | None:
        """Return the key in ``plugins`` that stands for a plugin of these names.

        Args:
            names: From general to specific: stem, file name, path relative to
                the location. The most specific one that is a key wins.
        """
        return next((name for name in reversed(names) if name in self.plugins), None)

    def for_plugin(self, *names: str) -> PluginSettings:
        """Return what is in force for the plugin of these names, as :meth:`key_for` has them."""
        key = self.key_for(*names)
        return self.defaults if key is None else self.plugins[key]


def read_settings(
    extra_config: object, environ: Mapping[str, str] | None = None
) -> tuple[Settings, list[Problem]]:
    """Read the settings out of LMCache's ``extra_config``; never raises.

    Args:
        extra_config: All of it, whatever its type.
        environ: For ``~`` and ``$VARS`` in directories; None: this process's.

    Returns:
        What is in force, and what is wrong with what is not.
    """
    reader = _Reader(os.environ if environ is None else environ)
    section = reader.section(extra_config)
    values = reader.read(section, PREFIX, _defaults(_GLOBAL_ROWS), _GLOBAL_ROWS)
    base = values | _defaults(_OWN_ROWS)
    settings = Settings(
        enabled=values["enabled"],
        locations=values["locations"],
        data_parallel=values["data_parallel"],
        metrics=values["metrics"],
        allow_insecure_permissions=values["allow_insecure_permissions"],
        filter_by_role=values["filter_by_role"],
        defaults=_plugin_settings(base),
        plugins={
            name: _plugin_settings(reader.read(found, where, base, _PLUGIN_ROWS))
            for name, where, found in reader.plugins(section.get("plugins"))
        },
    )
    return settings, reader.problems


_GLOBAL_ROWS = {row.key: row for row in SETTINGS if not row.key.startswith(PLUGIN_KEY)}
_OWN_ROWS = {row.key[len(PLUGIN_KEY) :]: row for row in SETTINGS if row.key.startswith(PLUGIN_KEY)}
_PLUGIN_ROWS = {key: row for key, row in _GLOBAL_ROWS.items() if row.per_plugin} | _OWN_ROWS
_WORD = re.compile(r"[\w.-]{1,100}", re.ASCII)


class _Reader:
    """Takes what was found to values in force, along the table; collects problems."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._environ = environ

    def section(self, extra_config: object) -> _Found:
        """Return what stands under ``runtime_plugins``, or nothing."""
        if isinstance(extra_config, Mapping):
            return self._mapping(extra_config.get("runtime_plugins"), PREFIX)
        if extra_config is not None:
            what = f"'extra_config' is {describe_type(extra_config)}, not a mapping"
            self._say("error", f"Cannot use settings in '{PREFIX}': {what}; the defaults stand")
        return {}

    def plugins(self, found: object) -> list[tuple[str, str, _Found]]:
        """Return key, full key and settings of each plugin that has some."""
        entries = []
        for name, value in self._mapping(found, f"{PREFIX}.plugins").items():
            where = f"{PREFIX}.plugins.{_key_text(name)}"
            if isinstance(name, str):
                entries.append((name, where, self._mapping(value, where)))
            else:
                self._refuse(where, describe_type(name), "a plugin's name, in quotes")
        return entries

    def read(self, found: _Found, where: str, base: _Values, rows: _Rows) -> _Values:
        """Return ``base`` with what ``found`` sets.

        Args:
            found: As written by the user.
            where: Its full key.
            base: What is in force without it, by the keys of ``rows``.
            rows: The part of the table that applies.
        """
        values = dict(base)
        for key, value in found.items():
            full_key = f"{where}.{_key_text(key)}"
            if not isinstance(key, str) or "." in key or key not in rows:
                self._unknown(full_key, key, rows)
            elif value is None or key == "plugins":
                continue  # a key with nothing after it is as if absent; plugins come later
            elif key == "env":
                values[key] = self._env(value, full_key)
            elif not _below(key, rows):
                self._value(rows[key], full_key, key, value, values)
            elif isinstance(value, Mapping):
                self._group(key, full_key, value, values, rows)
            else:
                values.update(self._short_form(rows[key], full_key, value))
        return values

    def _value(self, row: Setting, where: str, key: str, value: object, values: _Values) -> None:
        """Put one value in its place."""
        try:
            values[key] = row.read(value, self._environ)
        except InvalidValueError as refused:
            found = describe_type(value) if row.secret else show(value)
            simple = isinstance(values[key], (str, int, float)) and not row.secret
            in_force = f"{_plain(values[key])} stays in force" if simple else _NO_EFFECT
            self._refuse(where, found, row.accepted, str(refused), in_force)

    def _short_form(self, row: Setting, where: str, value: object) -> _Values:
        """Return the values that one word stands for, such as ``rate_limit: off``."""
        try:
            return dict(row.read(value, self._environ))
        except InvalidValueError as refused:
            self._refuse(where, show(value), row.accepted, str(refused))
            return {}

    def _group(self, group: str, where: str, found: _Found, values: _Values, rows: _Rows) -> None:
        """Put the values of a mapping such as ``backoff`` in their places."""
        names = _below(group, rows)
        base = {name: values[f"{group}.{name}"] for name in names}
        new = self.read(found, where, base, {name: rows[f"{group}.{name}"] for name in names})
        if group == "backoff" and new["initial"] > new["max"]:
            self._say(
                "error",
                f"Cannot use '{where}.initial' and '{where}.max': {new['initial']:g} s is above "
                f"{new['max']:g} s; {base['initial']:g} s and {base['max']:g} s stay in force",
            )
            new |= {"initial": base["initial"], "max": base["max"]}
        if group == "rate_limit":
            values[group] = True
        if group == "log" and new["directory"] is None and "directory" not in found:
            text = f"Cannot use '{where}': no '{where}.directory' is given; the log stays on stderr"
            self._say("error", text)
        values.update({f"{group}.{name}": value for name, value in new.items()})

    def _env(self, value: object, where: str) -> dict[str, str]:
        variables = {}
        for name, found in self._mapping(value, where).items():
            text = self._variable(name, found, f"{where}.{_key_text(name)}")
            if text is not None:
                variables[name] = text
        return variables

    def _variable(self, name: object, found: object, where: str) -> str | None:
        try:
            return exec_variable(name, found)
        except InvalidValueError as refused:
            accepted = "text or a whole number"
            self._refuse(where, describe_type(found), accepted, str(refused))
            return None

    def _mapping(self, value: object, where: str) -> _Found:
        if isinstance(value, Mapping):
            return value
        if value is not None:
            self._refuse(where, describe_type(value), "a mapping")
        return {}

    def _refuse(
        self, where: str, found: str, accepted: str, hint: str = "", in_force: str = _NO_EFFECT
    ) -> None:
        hint = f" ({hint})" if hint else ""
        accepted = accepted.replace("`", "'")
        text = f"Cannot use setting '{where}': found {found}, accepted is {accepted}{hint}"
        self._say("error", f"{text}; {in_force}")

    def _unknown(self, where: str, key: object, rows: _Rows) -> None:
        known = [name for name in rows if "." not in name]
        match = near_miss(key, known) if isinstance(key, str) else None
        if key in _GLOBAL_ROWS and rows is _PLUGIN_ROWS:
            advice = f"it cannot be set per plugin, only as '{PREFIX}.{key}'"
        else:
            advice = f"did you mean '{match}'?" if match else f"known are {', '.join(known)}"
        self._say("warning", f"Unknown setting '{where}' has no effect: {advice}")

    def _say(self, level: Literal["error", "warning"], text: str) -> None:
        self.problems.append(Problem(level, text))


def _below(key: str, rows: _Rows) -> list[str]:
    """Return the keys that a mapping at ``key`` may have."""
    return [name[len(key) + 1 :] for name in rows if name.startswith(f"{key}.")]


def _defaults(rows: _Rows) -> _Values:
    return {key: row.default for key, row in rows.items()}


def _plugin_settings(values: _Values) -> PluginSettings:
    """Make the typed result of values by key."""

    def group(name: str) -> _Values:
        return {key: values[f"{name}.{key}"] for key in _below(name, _PLUGIN_ROWS)}

    return PluginSettings(
        enabled=values["enabled"],
        args=values["args"],
        env=dict(values["env"]),
        restart=values["restart"],
        backoff=Backoff(**group("backoff")),
        stop_grace=values["stop_grace"],
        max_line_bytes=values["max_line_bytes"],
        ring_bytes=values["ring_bytes"],
        rate_limit=RateLimit(**group("rate_limit")) if values["rate_limit"] else None,
        log=LogFiles(**group("log")) if values["log.directory"] is not None else None,
        relay=values["log"] == "logging" and values["log.directory"] is None,
        leftovers=values["leftovers"],
    )


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else show(value)


def _key_text(key: object) -> str:
    """Return a key for a message: short and on one line."""
    return key if isinstance(key, str) and _WORD.fullmatch(key) else show(key)
