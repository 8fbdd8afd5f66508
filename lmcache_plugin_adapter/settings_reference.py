"""Write the reference page of the settings from the tables that the code itself uses.

``python -m lmcache_plugin_adapter.settings_reference > docs/configuration.md``
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from . import environment, locations
from .settings import PREFIX
from .settings_table import PLUGIN_KEY, SETTINGS, Setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ONE_PLUGIN_EXAMPLE = """\
runtime_plugin_locations: ["/etc/lmcache/plugins"]
extra_config:
  runtime_plugins:
    stop_grace: 10
    plugins:
      worker_0_test:
        args: ["--verbose", "--port", "9100"]
        env: {TARGET: "http://collector:4317"}
        restart: always
        backoff: {max: 300}
      scheduler_report.py:
        enabled: false
"""
"""An ``lmcache.yaml`` with settings of single plugins."""

VARIABLES_READ: tuple[tuple[str, str], ...] = (
    ("LMCACHE_CONFIG_FILE", "The `lmcache.yaml`, for LMCache and for commands without `-c`."),
    (
        locations.VARIABLES[0],
        f"Replaces `{locations.KEY}` of the file (older name: `{locations.VARIABLES[1]}`).",
    ),
    ("LMCACHE_EXTRA_CONFIG", "Replaces the whole `extra_config` of the file; JSON."),
    (
        "LMCACHE_PLUGINS_RUNTIME_DIR",
        (
            "Directory for control sockets and configuration files, instead of the first usable "
            "of `/run/lmcache-plugins-UID`, `/dev/shm/lmcache-plugins-UID` and "
            "`/tmp/lmcache-plugins-UID`."
        ),
    ),
    (
        "LMCACHE_LOG_LEVEL",
        (
            "LMCache's own log level: records below it, plugins' lines included, do not reach "
            "the engine's log. Where it is not set, all do, debug lines too."
        ),
    ),
    ("NO_COLOR", "Set to anything: no colours, on a terminal either."),
    ("TERM", "`dumb`: no colours."),
)
"""What the adapter itself looks at in the engine's environment, or in that of a command."""

_COMMENT = """\
<!-- Generated: python -m lmcache_plugin_adapter.settings_reference > docs/configuration.md -->
"""

_INTRO = f"""\
Settings stand in `lmcache.yaml` under `{PREFIX}`, since LMCache drops
top-level keys that it does not know. Every key is optional; a key with nothing after it is as if
absent.

A mistake never stops anything. A wrong value is said in one line, with its full key, what was
found and what is accepted; what was in force before stays in force, and so do all other settings.
An unknown key has no effect and is said too. `lmcache-plugins check -c lmcache.yaml` shows the
same without an engine.
"""

_ONE_PLUGIN = f"""\
Under `{PREFIX}.plugins`, by the plugin's name. Every setting above that says
so may stand there too, and goes over the general one key by key: with `backoff: {{max: 300}}` the
other keys of `backoff` stay as they are. An example:
"""

_LOCATIONS = f"""\
A location is a file, a directory that is searched with everything below it, or `pkg:NAME`: an
[installed plugin](contract.md#installed-plugins), of a package that the engine's Python can import.
Locations are merged in this order, each one once:

1. `{locations.KEY}` of `lmcache.yaml` (older name: `{locations.OLDER_KEY}`), a list or a single
   location. The variable `{locations.VARIABLES[0]}` (older name: `{locations.VARIABLES[1]}`)
   replaces it, as in LMCache.
2. `{locations.SETTINGS_KEY}`, which adds to either.

The variable holds a list as in JSON or YAML (`["/a", "/b"]`, `[/a, /b]`) or locations with commas
between them (`/a,/b`). A value that exists as a path is taken as that path, commas or not. Values
in `lmcache.yaml` are never split.

`~`, `~USER`, `$NAME` and `${{NAME}}` are expanded; a location whose variable is not set is left out
with a warning that names the variable. Relative locations are relative to the engine's working
directory. Nothing of `pkg:NAME` is expanded; a path that begins so is written `./pkg:…`.
"""


def reference_page() -> str:
    """Return ``docs/configuration.md``."""
    general = [row for row in SETTINGS if not row.key.startswith(PLUGIN_KEY)]
    own = [row for row in SETTINGS if row.key.startswith(PLUGIN_KEY)]
    parts = [
        _COMMENT,
        "# Configuration",
        _INTRO,
        "Everything with its default:",
        f"```yaml\n{defaults_example()}```",
        "## Settings",
        *_sections(general),
        "## Settings of one plugin",
        _ONE_PLUGIN,
        f"```yaml\n{ONE_PLUGIN_EXAMPLE}```",
        *_sections(own),
        "## Locations",
        _LOCATIONS,
        "## What a plugin finds in its environment",
        "The engine's environment, with these differences:",
        _table(
            ("Variable", "Value"),
            (
                (
                    f"`{row.name}`",
                    row.value + (f" Older name, same value: `{row.older}`." if row.older else ""),
                )
                for row in environment.VARIABLES
            ),
        ),
        f"Then come the variables of `{PREFIX}.plugins.NAME.env`.",
        "## Variables that are read",
        _table(
            ("Variable", "Meaning"), ((f"`{name}`", meaning) for name, meaning in VARIABLES_READ)
        ),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def defaults_example() -> str:
    """Return an ``lmcache.yaml`` in which every general setting has its default."""
    lines = ["runtime_plugin_locations: []", "extra_config:", "  runtime_plugins:"]
    for row in SETTINGS:
        if "." in row.key:
            continue
        below = [child for child in _children(row) if child.default is not None]
        if row.key == "log" or not below:
            text = "{}" if row.default is None else _yaml(row.default)
        else:
            text = "{" + ", ".join(f"{_last(c)}: {_yaml(c.default)}" for c in below) + "}"
        lines.append(f"    {row.key}: {text}")
    return "\n".join(lines) + "\n"


def _sections(rows: Iterable[Setting]) -> Iterator[str]:
    for row in rows:
        if "." in row.key.removeprefix(PLUGIN_KEY):
            continue  # told with the key above it
        children = _children(row)
        yield f"### `{row.key}`"
        yield row.meaning
        facts = [f"Type: {row.kind}.", f"Accepted: {row.accepted}."]
        if not children or row.key == "log":
            facts.append(f"Default: {_default(row)}.")
        if not row.key.startswith(PLUGIN_KEY):
            facts.append(f"Per plugin: {'yes' if row.per_plugin else 'no'}.")
        yield "\n".join(f"- {fact}" for fact in facts)
        if children:
            yield _table(
                ("Key", "Type", "Default", "Accepted", "Meaning"),
                ((f"`{_last(c)}`", c.kind, _default(c), c.accepted, c.meaning) for c in children),
            )


def _children(row: Setting) -> list[Setting]:
    below = f"{row.key}."
    return [c for c in SETTINGS if c.key.startswith(below) and not c.key.startswith(PLUGIN_KEY)]


def _last(row: Setting) -> str:
    return row.key.rpartition(".")[2]


def _default(row: Setting) -> str:
    return "none" if row.default is None else f"`{_yaml(row.default)}`"


def _yaml(value: object) -> str:
    """Return a default as YAML; there are no others than these kinds."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (tuple, dict)) and not value:
        return "[]" if isinstance(value, tuple) else "{}"
    return str(value)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.stdout.write(reference_page())
