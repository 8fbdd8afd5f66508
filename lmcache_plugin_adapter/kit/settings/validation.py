# SPDX-License-Identifier: Apache-2.0
"""Validate plugins' own settings for ``lmcache-plugins check``, in a process of its own.

``check`` starts this file by its path, with a request as JSON on stdin. A plugin's module is
imported, and nothing of it is called but the checks of its settings type.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

DECLARATION = "__plugin_settings__"
"""The name by which a module declares its settings type."""


def settings_type(declared: object) -> Any:
    """Return the settings type that a module declares: a class, or ``MODULE:CLASS``.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(declared, str):
        module, _, name = declared.partition(":")
        declared = getattr(importlib.import_module(module), name)
    if not hasattr(declared, "__struct_fields__"):
        raise TypeError(f"'{DECLARATION}' is no class derived from msgspec.Struct")
    return declared


def _load(file: str) -> ModuleType:
    """Import a program under a name, by which msgspec finds what its annotations use."""
    sys.dont_write_bytecode = True
    loader = SourceFileLoader("lmcache_plugin", file)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    if spec is None:
        raise ImportError(f"cannot import {file!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def main() -> None:
    """Read a request from stdin, and print the problems as JSON: levels and lines."""
    request = json.load(sys.stdin)
    output, sys.stdout = sys.stdout, sys.stderr  # what a module prints must not get in between
    declared, file = request["declared"], request["file"]
    if request["directory"] is not None:
        sys.path.append(request["directory"])
    if declared is None:
        sys.path.insert(0, os.path.dirname(file))
        declared = getattr(_load(file), DECLARATION)
    from lmcache_plugin_adapter.kit.printing import ERROR
    from lmcache_plugin_adapter.kit.settings.reader import Reader

    reader = Reader()
    section = request["section"]
    found = section if section is not None else {}
    settings = reader.section(request["key"], found, settings_type(declared))
    judge = getattr(settings, "why_unusable", None)  # a method of the ready plugins' settings
    if callable(judge) and (why := judge(request["key"])):
        reader.problems.append((ERROR, f"{why[:1].upper()}{why[1:]}"))
    json.dump(reader.problems, output)


if __name__ == "__main__":
    # Python puts this file's directory first: its modules must not shadow others.
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    main()
