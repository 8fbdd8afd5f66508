# SPDX-License-Identifier: Apache-2.0
"""Find the plugin's own section in the configuration and read it into a ``msgspec.Struct``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from lmcache_plugin_adapter.kit.errors import SettingsError
from lmcache_plugin_adapter.kit.printing import emit, error
from lmcache_plugin_adapter.messages.describe import describe_type

if TYPE_CHECKING:
    from collections.abc import Sequence

S = TypeVar("S")

_PARENTS = ("extra_config", "runtime_plugins", "plugins")


def find_section(
    config: Mapping[str, object], name: str, names: Sequence[str]
) -> tuple[str, object]:
    """Return the full key of a plugin's own section, and its content or None.

    Args:
        config: LMCache's configuration.
        name: The plugin's name, for a plugin without settings.
        names: Every name that the settings may use, from general to specific. The most specific
            one with settings counts.
    """
    found: object = config
    for key in _PARENTS:
        found = found.get(key) if isinstance(found, Mapping) else None
    plugins = found if isinstance(found, Mapping) else {}
    name = next((one for one in reversed(names) if one in plugins), name)
    own = plugins.get(name)
    section = own.get("settings") if isinstance(own, Mapping) else None
    return f"{'.'.join(_PARENTS)}.{name}.settings", section


def as_mapping(key: str, section: object) -> Mapping[str, object]:
    """Return a section as a mapping; print an error and return an empty one if it is none."""
    if isinstance(section, Mapping):
        return section
    if section is not None:
        what = describe_type(section)
        error(f"Cannot use setting '{key}': found {what}, accepted is a mapping; it has no effect")
    return {}


def read_settings(key: str, section: object, kind: type[S]) -> S:
    """Return a section, validated; print each problem in one line.

    Args:
        key: The section's full key.
        section: Its content.
        kind: The ``msgspec.Struct`` class to read it into.

    Raises:
        SettingsError: As from :meth:`..context.Context.settings`.
    """
    mapping = as_mapping(key, section)
    try:
        from .reader import Reader
    except ImportError as missing:
        if missing.name != "msgspec":
            raise
        raise SettingsError(
            "cannot read settings: msgspec is not installed where the plugin runs; "
            "pip install 'lmcache-plugin-adapter[kit]'"
        ) from None
    reader = Reader()
    settings: S | None = reader.section(key, mapping, kind)  # type: ignore[type-var]
    for level, text in reader.problems:
        emit(level, text)
    if settings is None:
        raise SettingsError(f"cannot work with the settings in '{key}': see above")
    return settings
