# SPDX-License-Identifier: Apache-2.0
"""Read ``lmcache.yaml`` as LMCache does, without LMCache.

LMCache's own code for this: ``LMCacheEngineConfig.from_file`` and
``update_config_from_env`` (in its ``config_base.py`` and ``config.py``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmcache_plugin_adapter.configuration.locations import KEY, OLDER_KEY, VARIABLES, unquoted
from lmcache_plugin_adapter.messages.describe import describe_type
from lmcache_plugin_adapter.messages.near_miss import did_you_mean
from lmcache_plugin_adapter.messages.problem import Problem

from .yaml_reader import ConfigError, read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

EXTRA_CONFIG = "extra_config"
VARIABLE_PREFIX = "LMCACHE_"
EXTRA_CONFIG_VARIABLE = f"{VARIABLE_PREFIX}EXTRA_CONFIG"


@dataclass(frozen=True)
class StandInConfig:
    """The part of LMCache's configuration that the launcher needs.

    Attributes:
        source: The file, as the user named it.
        values: All keys of the file, overridden by the environment, as JSON has them.
        problems: Values that LMCache probably reads differently than their author meant.
    """

    source: str
    values: Mapping[str, Any]
    problems: tuple[Problem, ...]

    @property
    def runtime_plugin_locations(self) -> Any:
        """LMCache's value: a list of anything, or None."""
        return self.values[KEY]

    @property
    def extra_config(self) -> Any:
        """LMCache's value: a mapping (anything that JSON has, from a variable), or None."""
        return self.values[EXTRA_CONFIG]

    def to_json(self) -> str:
        """Return the whole configuration as JSON, formatted as LMCache does."""
        return json.dumps(self.values, indent=2)


def is_yaml(path: str) -> bool:
    """Return whether a file is a configuration rather than a plugin, by its name."""
    return path.lower().endswith((".yaml", ".yml"))


def load_lmcache_yaml(path: str, environ: Mapping[str, str]) -> StandInConfig:
    """Read the file at ``path``; LMCache's environment variables override its values.

    Supports the variables for locations and ``extra_config``, and those for
    plain values that the file has, too.

    Raises:
        ConfigError: LMCache does not start with the file.
    """
    found, problems = read_yaml(path, _key_note)
    values: dict[str, Any] = {KEY: None, EXTRA_CONFIG: None}
    for key, value in found.items():  # of the current and the older key, the last one wins
        values[KEY if key == OLDER_KEY else key] = value
    values[KEY] = _as_locations(values[KEY])
    values[EXTRA_CONFIG] = _as_extra_config(values[EXTRA_CONFIG], path, problems)
    _apply_environment(values, environ, problems)
    return StandInConfig(path, values, tuple(problems))


def _key_note(name: str) -> str | None:
    """Return what is doubtful about a top-level key: it is probably meant for plugins."""
    if name in (KEY, EXTRA_CONFIG):
        return None
    if name == "runtime_plugins":
        return f"key {name!r} has no effect here: it belongs below {EXTRA_CONFIG!r}"
    if name == OLDER_KEY:
        return f"key {name!r} is the older name of {KEY!r}"
    hint = did_you_mean(name, (KEY, OLDER_KEY, EXTRA_CONFIG))
    return f"key {name!r} has no effect: {hint}" if hint else None


def _as_locations(value: Any) -> Any:
    """Convert as LMCache does: a value that is not a list becomes the only item of one."""
    if value is None or isinstance(value, list):
        return value
    return [value] if value else []


def _as_extra_config(value: Any, path: str, problems: list[Problem]) -> Any:
    """Convert as LMCache does: text is parsed as JSON."""
    if isinstance(value, dict):
        return value
    if not value:
        return None
    if not isinstance(value, str):
        what = f"is {describe_type(value)}, accepted is a mapping: LMCache does not start with it"
        raise ConfigError(f"{path}: {EXTRA_CONFIG!r} {what}")
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        text = f"Cannot use {EXTRA_CONFIG!r} of {path!r}: it is text, but not JSON: {error}"
        problems.append(Problem("error", text))
        return None


def _apply_environment(
    values: dict[str, Any], environ: Mapping[str, str], problems: list[Problem]
) -> None:
    for key, value in list(values.items()):
        text = environ.get(VARIABLE_PREFIX + key.upper())
        if text is not None and key not in (KEY, EXTRA_CONFIG):
            values[key] = _like(value, unquoted(text))
    for name in VARIABLES:
        if name in environ:
            values[KEY] = _as_locations(unquoted(environ[name]))
    if EXTRA_CONFIG_VARIABLE in environ:
        text = unquoted(environ[EXTRA_CONFIG_VARIABLE])
        try:
            values[EXTRA_CONFIG] = json.loads(text) if text else None
        except (ValueError, RecursionError) as error:
            what = f"it is not JSON: {error}; the file's {EXTRA_CONFIG!r} stays in force"
            problems.append(Problem("error", f"Cannot use {EXTRA_CONFIG_VARIABLE}: {what}"))


def _like(value: Any, text: str) -> Any:
    """Convert ``text`` to the type of the file's value, which is LMCache's type for the key."""
    if isinstance(value, bool):
        return text.strip().lower() in ("true", "1")
    if isinstance(value, (int, float)):
        try:
            number = float(text)
            return int(text) if isinstance(value, int) and number.is_integer() else number
        except ValueError:
            return value  # LMCache keeps it too
    return value if isinstance(value, (dict, list)) else text
