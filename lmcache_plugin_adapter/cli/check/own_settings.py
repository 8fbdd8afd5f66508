# SPDX-License-Identifier: Apache-2.0
"""Validate what ``plugins.NAME.settings`` holds, for plugins that declare its type.

A module declares it by an assignment at its top level, found without importing the module:
``__plugin_settings__ = Settings``, or ``"package.settings:Settings"``.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import lmcache_plugin_adapter
from lmcache_plugin_adapter.configuration.settings_table import PREFIX
from lmcache_plugin_adapter.messages.describe import describe_type
from lmcache_plugin_adapter.messages.problem import Problem, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lmcache_plugin_adapter.planner.file_report import FileReport

_PROGRAM = os.path.join(
    os.path.dirname(lmcache_plugin_adapter.__file__), "kit", "settings", "validation.py"
)
_DECLARATION = "__plugin_settings__"
_MOST_BYTES = 1 << 20
_SECONDS = 30.0


def own_settings_problems(files: Iterable[FileReport], extra_config: object) -> Iterator[Problem]:
    """Yield what the plugins that run would report of their own settings at their start.

    Args:
        files: The outcome for each entry of the locations.
        extra_config: LMCache's value, of any type.
    """
    for file in files:
        if file.status != "runs":
            continue
        source = file.path if file.installed is None else file.installed.file
        declared = _declaration(source)
        if declared is not None:
            name, section = _section(file, extra_config)
            yield from _validate(file, declared, f"{PREFIX}.plugins.{name}.settings", section)


def _declaration(source: str) -> str | bool | None:
    """Return what a file declares: text, True for a class, or None for nothing."""
    if not source.endswith(".py"):
        return None
    try:
        with open(source, "rb") as file:
            text = file.read(_MOST_BYTES)
        if _DECLARATION.encode() not in text:
            return None
        tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError, RecursionError):
        return None  # another check reports it, or the plugin does at its start
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(each, ast.Name) and each.id == _DECLARATION for each in targets):
            value = node.value if isinstance(node, ast.Assign) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return value.value
            return True
    return None


def _section(file: FileReport, extra_config: object) -> tuple[str, object]:
    """Return the key of the plugin's settings, and what its own section holds."""
    found = extra_config
    for key in ("runtime_plugins", "plugins"):
        found = found.get(key) if isinstance(found, Mapping) else None
    plugins = found if isinstance(found, Mapping) else {}
    if file.installed is not None:
        names = [file.installed.name, file.path]
    else:
        base = os.path.basename(file.path)
        names = [os.path.splitext(base)[0], base, file.relative]
    name = next((one for one in reversed(names) if one in plugins), file.name or names[0])
    own = plugins.get(name)
    return name, own.get("settings") if isinstance(own, Mapping) else None


def _validate(
    file: FileReport, declared: str | bool, key: str, section: object
) -> Iterator[Problem]:
    if section is not None and not isinstance(section, Mapping):
        what = describe_type(section)
        text = f"Cannot use setting '{key}': found {what}, accepted is a mapping"
        yield Problem("error", f"{text}; it has no effect")
        section = None
    installed = file.installed
    request = {
        "file": file.path if installed is None else installed.file,
        "directory": None if installed is None else installed.root,
        "declared": declared if isinstance(declared, str) else None,
        "key": key,
        "section": section,
    }
    try:
        done = subprocess.run(
            [sys.executable, _PROGRAM],
            input=json.dumps(request, default=str),
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=_SECONDS,
            check=False,
        )
        problems = json.loads(done.stdout) if done.returncode == 0 else None
        reason = "" if problems is not None else (done.stderr.strip().splitlines() or ["?"])[-1]
    except subprocess.TimeoutExpired:
        problems, reason = None, f"no answer within {_SECONDS:g} s"
    except ValueError as error:
        problems, reason = None, str(error)
    if problems is None:
        text = f"Cannot check the settings in '{key}' of {quoted(file.path)}: {reason}"
        yield Problem("warning", text)
        return
    for level, text in problems:
        yield Problem("error" if level <= 3 else "warning", text)
