# SPDX-License-Identifier: Apache-2.0
"""Write the reference page of the commands from their help texts.

``python docs/reference/write_commands.py`` writes docs/reference/commands.md.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections import Counter
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from lmcache_plugin_adapter.cli.main import app

_MANY = 3
"""Options that so many commands have are listed once."""

PAGE = Path(__file__).with_name("commands.md")

_HEAD = """\
<!-- Generated: python docs/reference/write_commands.py -->

# Commands

`lmcache-plugins COMMAND --help` prints the same, with each command's shared options.
[Exit codes](exit-codes.md) has all exit statuses.
"""


def commands_page() -> str:
    """Return the page."""
    commands = {}
    for command in app.registered_commands:
        function: Any = command.callback
        text = command.help or inspect.getdoc(function) or ""
        commands[command.name or function.__name__] = (_paragraphs(text), _rows(function))
    uses = Counter(row for _, rows in commands.values() for row in rows)
    shared = [row for row, count in uses.items() if count >= _MANY]
    parts = [_HEAD]
    for name, (text, rows) in commands.items():
        parts += [f"## `{name}`", text]
        if own := [row for row in rows if row not in shared]:
            parts.append(_table(own))
        if others := [_name(row[0]) for row in rows if row in shared]:
            parts.append(f"Also {', '.join(others)}: see [shared options](#shared-options).")
    parts += ["## Shared options", _table(shared)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _name(option: str) -> str:
    """Return the last form of an option without its value."""
    return f"`{option.rpartition(', ')[2].strip('`').partition(' ')[0]}`"


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(
        f"| {option} | {meaning} |"
        for option, meaning in [("option", "meaning"), ("---",) * 2, *rows]
    )


def _rows(function: Any) -> list[tuple[str, str]]:
    """Return each argument and option of a command, with its meaning."""
    rows = []
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        info = hint.__metadata__[0]
        if info.hidden:
            continue
        kinds = {hint.__origin__, *get_args(hint.__origin__)}
        meaning = " ".join((info.help or "").split())
        default = getattr(parameter.default, "value", parameter.default)
        if isinstance(info, typer.models.ArgumentInfo):
            shown = f"`{info.metavar or name.upper()}{'…' if list[str] in kinds else ''}`"
        else:
            value = _value(kinds, info)
            # The first name stands where the default would be, outside of Annotated.
            names = [str(n) for n in (info.default, *(info.param_decls or ())) if n and n != ...]
            names = [n for n in names if n.startswith("-")] or [f"--{name.replace('_', '-')}"]
            shown = ", ".join(f"`{option}{value}`" for option in sorted(names, key=len))
            if default not in (None, False, inspect.Parameter.empty):
                meaning += f" Default: `{default}`."
        rows.append((shown, meaning))
    return rows


def _value(kinds: set[Any], info: Any) -> str:
    if bool in kinds:
        return ""
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return " " + "\\|".join(choice.value for choice in kind)
    return f" {info.metavar or ('N' if kinds & {int, float} else 'TEXT')}"


if __name__ == "__main__":
    PAGE.write_text(commands_page(), encoding="utf-8")
