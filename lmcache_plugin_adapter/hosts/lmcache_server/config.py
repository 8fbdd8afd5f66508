# SPDX-License-Identifier: Apache-2.0
"""The configuration of plugins beside LMCache's multiprocess server.

The server reads no ``lmcache.yaml``. LMCache makes its configuration objects from the command
line, and this package gets one JSON object. Plugins get LMCache's objects as JSON, one key each,
as from LMCache's own launcher.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from lmcache_plugin_adapter.configuration.locations import KEY as LOCATIONS
from lmcache_plugin_adapter.contract.engine_settings import (
    SETTINGS_KEY,
    settings_section,
    why_engine_runs_nothing,
)
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.messages.describe import describe_type
from lmcache_plugin_adapter.messages.near_miss import did_you_mean
from lmcache_plugin_adapter.messages.problem import Problem, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

EXTRA_CONFIG = "extra_config"
OWN_PARAMETERS = "runtime_plugin_extra_config"
"""LMCache's key for the plugins' own parameters."""

_KEYS = (LOCATIONS, SETTINGS_KEY, EXTRA_CONFIG)


@dataclass(frozen=True)
class ServerConfig:
    """The configuration of a server's plugins, in the form that the launcher takes.

    Attributes:
        runtime_plugin_locations: As given, not yet validated.
        extra_config: The plugins' own parameters, and the settings under
            ``runtime_plugins``, as in ``lmcache.yaml``.
        host: LMCache's configuration objects, by the keys that plugins know.
        problems: Invalid values and keys that are probably mistyped.
        source: The name of the configuration's source in messages.
        lmcache_locations: The locations that were given to LMCache.
        own_locations: The locations that were given to this package.
    """

    runtime_plugin_locations: object
    extra_config: Mapping[str, Any]
    host: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()
    source: str = ""
    lmcache_locations: tuple[object, ...] = ()
    own_locations: object = None

    def by_rule(self) -> tuple[ServerConfig, ...]:
        """Return one configuration for each rule of file names that applies, one or two.

        Locations that were given to LMCache's server keep LMCache's rule: every ``.py`` and
        ``.sh`` runs, and no file has a role. Locations that were given to this package keep
        the roles. The setting ``filter_by_role`` decides for all, if it is set.
        """
        settings = dict(settings_section(self.extra_config))
        if not self.lmcache_locations or "filter_by_role" in settings or self.why_nothing:
            return (self,)
        own = _as_list(self.own_locations) + _as_list(settings.pop("locations", None))
        theirs = [os.path.abspath(os.path.expanduser(str(one))) for one in self.lmcache_locations]
        own = [one for one in own if not _is_below(one, theirs)]
        unfiltered = {**settings, "filter_by_role": False}
        first = replace(
            self,
            runtime_plugin_locations=list(self.lmcache_locations),
            extra_config={**self.extra_config, SETTINGS_KEY: unfiltered},
        )
        if not own:
            return (first,)
        filtered = {**self.extra_config, SETTINGS_KEY: settings}
        return first, replace(self, runtime_plugin_locations=own, extra_config=filtered)

    @property
    def identity(self) -> ProcessIdentity:
        """The server's identity; see :func:`server_identity`."""
        return server_identity(self.extra_config)

    @property
    def why_nothing(self) -> str:
        """The reason why this package runs nothing; empty if it runs plugins."""
        why = why_engine_runs_nothing(self.extra_config, self.runtime_plugin_locations)
        if why == "disabled":
            return f"'{SETTINGS_KEY}.enabled' is false, which leaves them to LMCache's launcher"
        return "" if why is None else f"no {LOCATIONS!r} is given"

    def to_json(self) -> str:
        """Return the value of ``LMCACHE_RUNTIME_PLUGIN_CONFIG``.

        It has LMCache's objects and ``runtime_plugin_extra_config`` as from LMCache's launcher,
        and the two keys of the in-process mode, so that one plugin can serve in both.
        """
        config = {name: plain(value) for name, value in self.host.items()}
        own = {key: value for key, value in self.extra_config.items() if key != SETTINGS_KEY}
        if own:
            config[OWN_PARAMETERS] = plain(own)
        config[LOCATIONS] = plain(self.runtime_plugin_locations)
        # A mistyped key of the settings was reported: the supervisor need not repeat it.
        config[EXTRA_CONFIG] = plain(
            {
                key: value
                for key, value in self.extra_config.items()
                if key == SETTINGS_KEY or not did_you_mean(key, [SETTINGS_KEY])
            }
        )
        return json.dumps(config)


def server_identity(extra_config: object) -> ProcessIdentity:
    """Return the identity of a multiprocess server: role ``server``, id 0 of 1.

    With ``filter_by_role: false`` it has no role, as with LMCache's launcher:
    every file runs and gets an empty role.
    """
    role = None if settings_section(extra_config).get("filter_by_role") is False else Role.SERVER
    return ProcessIdentity(role=role, worker_id=0, worker_count=1)


def read_server_config(
    given: object,
    host: Mapping[str, Any],
    *,
    source: str,
    lmcache_locations: Iterable[object] = (),
    lmcache_parameters: object = None,
) -> ServerConfig:
    """Read the JSON object that configures a server's plugins; never raises.

    Its keys are ``runtime_plugin_locations`` and ``runtime_plugins`` (the settings). All other
    keys are the plugins' own parameters. The keys of ``extra_config`` count as if they stood
    beside it.

    Args:
        given: The object; any type is accepted, and another one reported.
        host: LMCache's configuration objects, by the keys that plugins know.
        source: The name of the object in messages.
        lmcache_locations: ``--runtime-plugin-locations`` of the server.
        lmcache_parameters: ``--runtime-plugin-config`` of the server;
            ``given`` overrides it key by key.
    """
    problems: list[Problem] = []
    below = _flat(lmcache_parameters, "--runtime-plugin-config", problems)
    values = {**below, **_flat(given, source, problems)}
    locations = own_locations = values.pop(LOCATIONS, None)
    first = list(lmcache_locations)
    if first:
        more = locations if isinstance(locations, (list, tuple)) else [locations]
        locations = first if locations is None else [*first, *more]
    return ServerConfig(
        locations, values, dict(host), tuple(problems), source, tuple(first), own_locations
    )


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []


def _is_below(location: object, others: list[str]) -> bool:
    """Return whether a location is one of the others, or lies in one; links are not followed."""
    path = os.path.abspath(os.path.expanduser(str(location)))
    return any(path == one or path.startswith(one.rstrip("/") + "/") for one in others)


def plain(value: Any) -> Any:
    """Convert a value to JSON types, as LMCache's launcher does.

    Dataclasses become objects, tuples become lists, and all that JSON lacks becomes text
    (LMCache's ``json_utils.py``). Unlike LMCache, copy nothing first: a copy may fail.
    """
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)


def _flat(given: object, source: str, problems: list[Problem]) -> dict[str, Any]:
    """Return ``given`` with the content of its ``extra_config`` beside the other keys."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        text = f"Cannot use {source}: found {describe_type(given)}, accepted is an object"
        problems.append(Problem("error", f"{text}; it has no effect"))
        return {}
    values = {str(key): value for key, value in given.items()}
    extra = values.pop(EXTRA_CONFIG, None)
    if isinstance(extra, Mapping):
        if SETTINGS_KEY in extra and SETTINGS_KEY in values:
            text = f"{source} has settings twice: {SETTINGS_KEY!r} counts"
            text += f", not '{EXTRA_CONFIG}.{SETTINGS_KEY}'"
            problems.append(Problem("warning", text))
        values = {**{str(key): value for key, value in extra.items()}, **values}
    elif extra is not None:
        what = f"found {describe_type(extra)}, accepted is an object"
        text = f"Cannot use {EXTRA_CONFIG!r} of {source}: {what}; it has no effect"
        problems.append(Problem("error", text))
    for key in values:
        hint = did_you_mean(key, _KEYS) if key not in _KEYS else ""
        if hint:
            text = f"Key {quoted(key[:60])} of {source} has no effect: {hint}"
            problems.append(Problem("warning", text))
    return values


def _key(key: object) -> object:
    return key if key is None or isinstance(key, (str, int, float, bool)) else str(key)
