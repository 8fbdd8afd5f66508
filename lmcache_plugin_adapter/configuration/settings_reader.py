# SPDX-License-Identifier: Apache-2.0
"""Read the settings along their table, and report what is invalid.

An invalid value never stops anything: a problem names the full key, and the value
in force before it stays in force.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lmcache_plugin_adapter.contract.engine_settings import SETTINGS_KEY
from lmcache_plugin_adapter.messages.describe import describe_type, show
from lmcache_plugin_adapter.messages.near_miss import did_you_mean
from lmcache_plugin_adapter.messages.problem import InvalidValueError, Problem

from .exec_limits import exec_variable
from .setting_combinations import contradictions
from .settings_table import PLUGIN_KEY, PREFIX, SETTINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from .setting_kinds import Setting

    _Values = dict[str, Any]
    _Found = Mapping[Any, object]
    _Rows = Mapping[str, Setting]

_NO_EFFECT = "it has no effect"
_REQUIRED = {
    "log": ("directory", "the log stays on stderr"),
    "metrics": ("textfile", "no metrics are written"),
}
"""Keys that a mapping must contain, and the effect without them."""

_GLOBAL_ROWS = {row.key: row for row in SETTINGS if not row.key.startswith(PLUGIN_KEY)}
_OWN_ROWS = {row.key[len(PLUGIN_KEY) :]: row for row in SETTINGS if row.key.startswith(PLUGIN_KEY)}
_PLUGIN_ROWS = {key: row for key, row in _GLOBAL_ROWS.items() if row.per_plugin} | _OWN_ROWS
_WORD = r"[a-zA-Z0-9_.-]{1,100}"


class SettingsReader:
    """Read settings, and collect the problems.

    Args:
        environ: For ``~`` and ``$VARS`` in directories.

    Attributes:
        problems: The problems of all invalid settings read so far.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._environ = environ

    def read(self, extra_config: object) -> tuple[_Values, _Values, dict[str, _Values]]:
        """Return the values in force: general, default and single plugins' ones.

        Args:
            extra_config: LMCache's value, of any type.
        """
        section = self._section(extra_config)
        values = self._read(section, PREFIX, _defaults(_GLOBAL_ROWS), _GLOBAL_ROWS)
        entries = self._plugins(section.get("plugins"))
        self._correct(section, values, PREFIX, tuple(found for _, _, found in entries))
        defaults = values | _defaults(_OWN_ROWS)  # 'enabled' exists in both
        plugins = {}
        for name, where, found in entries:
            plugins[name] = self._read(found, where, defaults, _PLUGIN_ROWS)
            self._correct(found, plugins[name], where)
        return values, defaults, plugins

    def _correct(
        self, found: _Found, values: _Values, where: str, others: tuple[_Found, ...] = ()
    ) -> None:
        for text in contradictions(found, values, where, others):
            self._report("error", text)

    def _section(self, extra_config: object) -> _Found:
        """Return the section of the settings, possibly empty."""
        if isinstance(extra_config, Mapping):
            for key in extra_config:
                if key != SETTINGS_KEY and did_you_mean(key, [SETTINGS_KEY]):
                    hint = did_you_mean(key, [SETTINGS_KEY])
                    where = f"extra_config.{_key_text(key)}"
                    self._report("warning", f"Unknown setting '{where}' has no effect: {hint}")
            return self._mapping(extra_config.get(SETTINGS_KEY), PREFIX)
        if extra_config is not None:
            what = f"'extra_config' is {describe_type(extra_config)}, not a mapping"
            self._report("error", f"Cannot use settings in '{PREFIX}': {what}; the defaults stand")
        return {}

    def _plugins(self, found: object) -> list[tuple[str, str, _Found]]:
        """Return key, full key and settings of each plugin with settings."""
        entries = []
        for name, value in self._mapping(found, f"{PREFIX}.plugins").items():
            where = f"{PREFIX}.plugins.{_key_text(name)}"
            if isinstance(name, str):
                entries.append((name, where, self._mapping(value, where)))
            else:
                self._refuse(where, describe_type(name), "a plugin's name, in quotes")
        return entries

    def _read(self, found: _Found, where: str, base: _Values, rows: _Rows) -> _Values:
        """Return ``base``, changed by ``found``.

        Args:
            found: The mapping, as its author wrote it.
            where: The mapping's full key.
            base: The values in force without it, by the keys of ``rows``.
            rows: The part of the table that applies.
        """
        values = dict(base)
        for key, value in found.items():
            full_key = f"{where}.{_key_text(key)}"
            if not isinstance(key, str) or "." in key or key not in rows:
                self._unknown(full_key, key, rows)
            elif value is None or key == "plugins":
                continue  # a key without a value counts as absent; plugins are read later
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
        """Read one value into ``values``."""
        try:
            values[key] = row.read(value, self._environ)
        except InvalidValueError as refused:
            found = describe_type(value) if row.secret else show(value)
            simple = isinstance(values[key], (str, int, float)) and not row.secret
            in_force = f"{_plain(values[key])} stays in force" if simple else _NO_EFFECT
            self._refuse(where, found, row.accepted, str(refused), in_force)

    def _short_form(self, row: Setting, where: str, value: object) -> _Values:
        """Return the values of one word, such as ``rate_limit: off``."""
        try:
            return dict(row.read(value, self._environ))
        except InvalidValueError as refused:
            self._refuse(where, show(value), row.accepted, str(refused))
            return {}

    def _group(self, group: str, where: str, found: _Found, values: _Values, rows: _Rows) -> None:
        """Read a mapping such as ``backoff`` into ``values``."""
        names = _below(group, rows)
        base = {name: values[f"{group}.{name}"] for name in names}
        new = self._read(found, where, base, {name: rows[f"{group}.{name}"] for name in names})
        if group == "backoff" and new["initial"] > new["max"]:
            self._report(
                "error",
                f"Cannot use '{where}.initial' and '{where}.max': {new['initial']:g} s is above "
                f"{new['max']:g} s; {base['initial']:g} s and {base['max']:g} s stay in force",
            )
            new |= {"initial": base["initial"], "max": base["max"]}
        if group == "rate_limit":
            values[group] = True
        required, consequence = _REQUIRED.get(group, ("", ""))
        if required and new[required] is None and required not in found:
            text = f"Cannot use '{where}': no '{where}.{required}' is given; {consequence}"
            self._report("error", text)
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
        self._report("error", f"{text}; {in_force}")

    def _unknown(self, where: str, key: object, rows: _Rows) -> None:
        known = [name for name in rows if "." not in name]
        if key in _GLOBAL_ROWS and rows is _PLUGIN_ROWS:
            advice = f"it cannot be set per plugin, only as '{PREFIX}.{key}'"
        else:
            others = f"known are {', '.join(known)}"
            if rows is _PLUGIN_ROWS:
                others = "the plugin's own settings belong below its key 'settings'"
            advice = did_you_mean(key, known) or others
        self._report("warning", f"Unknown setting '{where}' has no effect: {advice}")

    def _report(self, level: Literal["error", "warning"], text: str) -> None:
        self.problems.append(Problem(level, text))


def _below(key: str, rows: _Rows) -> list[str]:
    """Return the keys of the mapping at ``key``."""
    return [name[len(key) + 1 :] for name in rows if name.startswith(f"{key}.")]


def _defaults(rows: _Rows) -> _Values:
    return {key: row.default for key, row in rows.items()}


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else show(value)


def _key_text(key: object) -> str:
    """Return a key for a message, short and on one line."""
    return key if isinstance(key, str) and re.fullmatch(_WORD, key) else show(key)


GROUPS = {key: _below(key, _PLUGIN_ROWS) for key in _PLUGIN_ROWS if _below(key, _PLUGIN_ROWS)}
"""The keys of each setting of a plugin that is a mapping of settings."""
