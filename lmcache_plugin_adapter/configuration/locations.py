# SPDX-License-Identifier: Apache-2.0
"""Merge the locations of LMCache's configuration and of the settings into one list."""

from __future__ import annotations

import json
import os
import re

from lmcache_plugin_adapter.messages.describe import describe_type, show
from lmcache_plugin_adapter.messages.problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KEY = "runtime_plugin_locations"
OLDER_KEY = "plugin_locations"
SETTINGS_KEY = "extra_config.runtime_plugins.locations"
VARIABLES = ("LMCACHE_RUNTIME_PLUGIN_LOCATIONS", "LMCACHE_PLUGIN_LOCATIONS")
"""The environment forms of the key; LMCache takes the last one that is set."""

INSTALLED_PREFIX = "pkg:"
"""The prefix of a location that is an installed plugin's name, not a path."""

_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^{}]*)\})", re.ASCII)


def is_installed(location: str) -> bool:
    """Return whether a location is ``pkg:NAME`` and not a path."""
    return location.startswith(INSTALLED_PREFIX)


class LocationError(ValueError):
    """A location cannot be used; the text gives the reason."""


def merge_locations(
    raw: object, settings_locations: object, environ: Mapping[str, str]
) -> tuple[list[str], list[Problem]]:
    """Merge the locations of LMCache's configuration and of the settings; never raises.

    LMCache turns a string into a list of one string, so the environment form
    ``/a,/b`` arrives as ``["/a,/b"]``. A single value that equals the raw
    variable is therefore split: as a JSON or YAML list, else at commas. A value
    that exists as a path never is.

    Args:
        raw: LMCache's ``runtime_plugin_locations``.
        settings_locations: ``extra_config.runtime_plugins.locations``.
        environ: The engine's environment.

    Returns:
        The locations in order, without duplicates, with ``~`` and ``$VARS``
        expanded. Relative ones stay relative to the working directory, and
        ``pkg:NAME`` stays unchanged. Then the problems of locations left out.
    """
    problems: list[Problem] = []
    merged: dict[str, str] = {}
    for key, value in _entries(raw, settings_locations, environ, problems):
        try:
            location = _location(value, environ)
        except LocationError as error:
            problems.append(_left_out(key, value, str(error)))
            continue
        merged.setdefault(_identity(location), location)
    return list(merged.values()), problems


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Expand ``~``, ``~USER``, ``$NAME`` and ``${NAME}`` as a shell would.

    Raises:
        LocationError: A variable is not set, or a user does not exist.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2] or ""
        if name not in environ:
            raise LocationError(f"variable {name!r} is not set")
        return environ[name]

    if text.startswith("~"):
        user, slash, rest = text[1:].partition("/")
        text = _home(user, environ) + slash + rest
    return _VARIABLE.sub(value, text)


def _entries(
    raw: object,
    settings_locations: object,
    environ: Mapping[str, str],
    problems: list[Problem],
) -> Iterator[tuple[str, object]]:
    """Yield each entry with its full key."""
    items = [raw] if isinstance(raw, str) and raw else raw
    variable = _variable_of(items, environ)
    if variable is not None:
        text = unquoted(environ[variable])
        try:
            parts = [text] if _exists(text, environ) else split_variable(text)
        except LocationError as error:
            problems.append(_left_out(variable, text, str(error)))
        else:
            yield from _numbered(variable, parts, problems)
    else:
        yield from _numbered(KEY, items, problems)
    own = settings_locations
    yield from _numbered(SETTINGS_KEY, [own] if isinstance(own, str) and own else own, problems)


def _numbered(key: str, items: object, problems: list[Problem]) -> Iterator[tuple[str, object]]:
    if items is None or items == "":
        return
    if not isinstance(items, (list, tuple)):
        reason = f"it is {describe_type(items)}, accepted is a location or a list of locations"
        problems.append(_left_out(key, items, reason))
        return
    for index, item in enumerate(items):
        yield (key if len(items) == 1 else f"{key}[{index}]"), item


def _variable_of(items: object, environ: Mapping[str, str]) -> str | None:
    """Return the variable whose value LMCache wrapped in a list, or None."""
    if not isinstance(items, (list, tuple)) or len(items) != 1:
        return None
    for name in VARIABLES:
        text = environ.get(name)
        if text and items[0] in (text, text.strip(), unquoted(text)):
            return name
    return None


def unquoted(text: str) -> str:
    """Remove quotes as LMCache does (``_parse_quoted_string`` in its ``config_base.py``)."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        import ast

        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text[1:-1]
        if isinstance(value, str):
            return value
    return text


def _exists(text: str, environ: Mapping[str, str]) -> bool:
    """Return whether a value that could be split exists as a path; others are not checked."""
    if "," not in text and not text.startswith("["):
        return False
    try:
        return os.path.lexists(text) or os.path.lexists(expand(text, environ))
    except ValueError:  # a NUL, text that cannot be encoded, or LocationError
        return False


def split_variable(text: str) -> list[object]:
    """Split the environment form: a JSON list, a YAML list in brackets, else commas.

    Raises:
        LocationError: The text begins like a list but is not one.
    """
    text = text.strip()
    if not text.startswith("["):
        return [part for part in map(str.strip, text.split(",")) if part]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _split_flow_list(text)
    return value if isinstance(value, list) else [value]


_FLOW_ITEM = r"""(?xs)\s*(?: "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>(?:[^']|'')*)'
    | (?P<plain>[^\s,\[\]{}"'][^,\[\]{}]*?) )\s*(?P<end>[,\]])"""


def _split_flow_list(text: str) -> list[object]:
    """Read a YAML list such as ``[/a, '/b']``: plain and quoted texts, no nesting."""
    items: list[object] = []
    item = re.compile(_FLOW_ITEM)
    at = 1
    while text[at:].strip() != "]":
        match = item.match(text, at)
        if match is None:
            raise LocationError("it begins with '[' and cannot be read as a list of locations")
        if match["double"] is not None:
            items.append(_double_quoted(match["double"]))
        elif match["single"] is not None:
            items.append(match["single"].replace("''", "'"))
        else:
            items.append(match["plain"])
        at = match.end()
        if match["end"] == "]":
            if text[at:].strip():
                raise LocationError("it has text after the list's ']'")
            break
    return items


def _double_quoted(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text


def _location(value: object, environ: Mapping[str, str]) -> str:
    """Return one location, ready for use.

    Raises:
        LocationError: The value is not a location.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise LocationError(f"it is {describe_type(value)}, accepted is text")
    if not value.strip():
        raise LocationError("it is empty")
    if value.startswith(INSTALLED_PREFIX):
        return value
    text = expand(value, environ)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise LocationError("it cannot be encoded as a path") from None
    if "\0" in text:
        raise LocationError("it contains a NUL character")
    if not text:
        raise LocationError("it is empty once its variables are expanded")
    tidy = _tidy(text)
    # "./" tells a path that begins like an installed plugin from one.
    return f"./{tidy}" if is_installed(tidy) and not is_installed(text) else tidy


def _tidy(path: str) -> str:
    """Remove repeated and trailing slashes and ``.``; keep ``..``, which links may redirect."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(parts) or "."


def absolute(path: str) -> str:
    """Return the absolute path; ``..`` stays, which links may redirect."""
    if path.startswith("/"):
        return _tidy(path)
    try:
        return _tidy(os.path.join(os.getcwd(), path))
    except OSError:  # the working directory is gone
        return path


def _identity(location: str) -> str:
    return location if is_installed(location) else absolute(location)


def _home(user: str, environ: Mapping[str, str]) -> str:
    if not user and environ.get("HOME"):
        return environ["HOME"].rstrip("/")
    import pwd

    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())
    except (KeyError, ValueError):
        raise LocationError(f"there is no user {user!r}" if user else "HOME is not set") from None
    return entry.pw_dir.rstrip("/")


def _left_out(key: str, value: object, reason: str) -> Problem:
    if isinstance(value, str):
        text = f"Cannot use location {show(value)} of {key!r}: {reason}; it is left out"
        return Problem("warning", text)
    return Problem("error", f"Cannot use {key!r}: {reason}; it is left out")
