"""The plugin's own section of the settings: found, read, validated, complained about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from lmcache_plugin_adapter.messages.describe import describe_type

from .errors import SettingsError
from .printing import emit, error

if TYPE_CHECKING:
    from .context import Context

S = TypeVar("S")

_PREFIX = "extra_config.runtime_plugins.plugins"


def own_section(ctx: Context) -> tuple[str, Mapping[str, object]]:
    """Return the full key of the plugin's own section, and what stands there.

    The most specific of its names that has settings is meant, as everywhere.
    """
    found: object = ctx.config
    for key in ("extra_config", "runtime_plugins", "plugins"):
        found = found.get(key) if isinstance(found, Mapping) else None
    plugins = found if isinstance(found, Mapping) else {}
    name = next((name for name in reversed(ctx.names) if name in plugins), ctx.name)
    own = plugins.get(name)
    where = f"{_PREFIX}.{name}.settings"
    section = own.get("settings") if isinstance(own, Mapping) else None
    if section is None:
        return where, {}
    if not isinstance(section, Mapping):
        what = describe_type(section)
        error(
            f"Cannot use setting '{where}': found {what}, accepted is a mapping; it has no effect"
        )
        return where, {}
    return where, section


def read_settings(ctx: Context, kind: type[S]) -> S:
    """Do what :meth:`.context.Context.settings` says."""
    where, section = own_section(ctx)
    try:
        from .typed import Reader
    except ImportError as missing:
        if missing.name != "msgspec":
            raise
        raise SettingsError(
            "cannot read settings: msgspec is not installed where the plugin runs; "
            "pip install 'lmcache-plugin-adapter[gallery]'"
        ) from None
    reader = Reader()
    settings: S | None = reader.section(where, section, kind)  # type: ignore[type-var]
    for level, text in reader.problems:
        emit(level, text)
    if settings is None:
        raise SettingsError(f"cannot work with the settings in '{where}': see above")
    return settings
