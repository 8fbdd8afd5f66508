# SPDX-License-Identifier: Apache-2.0
"""Generate the tables of settings in the gallery's pages from the classes that read the settings.

``python -m lmcache_plugin_adapter.gallery.reference_page`` prints all tables, or those that are
named. ``--write docs/plugin-authors/gallery`` puts each between the two markers of its page.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import itertools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec

from lmcache_plugin_adapter.gallery.engine_health.settings import HealthSettings
from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget
from lmcache_plugin_adapter.kit.settings.accepted import accepted, show_number
from lmcache_plugin_adapter.kit.settings.quantities import SUCH_AS

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTIONS = {
    "targets": ("README.md", "http_client.target:HttpTarget"),
    "alert_reporter": ("alert-reporter.md", "alert_reporter.settings:AlertSettings"),
    "heartbeat": ("heartbeat.md", "heartbeat.settings:Heartbeat"),
    "log_reporter": ("log-reporter.md", "log_reporter.settings:LogReporterSettings"),
    "metric_reporter": ("metric-reporter.md", "metric_reporter.settings:MetricReporter"),
}
"""The page and the class of each section; the class is relative to this package."""

_COMMAND = (
    "python -m lmcache_plugin_adapter.gallery.reference_page --write docs/plugin-authors/gallery"
)
BEGIN = f"<!-- Generated: {_COMMAND} -->"
END = "<!-- End of what is generated -->"

_PATTERN = re.compile(r"matches (\^\S+)")
_UNITS = re.compile(rf"{SUCH_AS}'[^']+', '[^']+'")
"""The page says once that durations and sizes may have units."""
_SHORTER = {
    "text that is not empty": "text",
    "an address with http:// or https://": "a URL",
    "'true' or 'false'": "boolean",
    " above 0 and at most ": " up to ",
}
"""Words of messages, and shorter ones for tables."""
_HEAD = ("Key", "Accepted", "Default", "Meaning")
_SHARED = tuple(field.name for field in msgspec.structs.fields(HttpTarget))
_MOST_WORDS = 10
"""The most accepted words that a table lists."""
_ELSEWHERE: dict[tuple[str, type[msgspec.Struct]], str] = {
    ("alert_reporter", HealthSettings): "the heartbeat's [`engine`](heartbeat.md#engine)"
}
"""Structs whose tables stand on another page, by section."""


def section(name: str) -> str:
    """Return the tables of one section as Markdown."""
    module, _, attribute = SECTIONS[name][1].partition(":")
    kind = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
    return "\n\n".join(_tables(kind, "", name, {}))


def write(directory: Path) -> list[Path]:
    """Write the tables into the existing pages; return the changed pages.

    Raises:
        ValueError: A page has no markers.
    """
    changed = []
    for name, (page, _) in SECTIONS.items():
        path = directory / page
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        new = with_section(text, section(name))
        if new != text:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


def with_section(page: str, tables: str) -> str:
    """Return a page with the tables between its markers.

    Raises:
        ValueError: The page does not have exactly one of each marker.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the page needs one line {BEGIN!r} and one line {END!r}")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def _tables(
    kind: type[msgspec.Struct], path: str, section_name: str, shown: dict[str, str]
) -> Iterator[str]:
    """Yield the table of a struct, then the tables of the structs in its fields.

    Args:
        kind: The struct.
        path: Its key with a dot, or nothing.
        section_name: The section that the tables are for.
        shown: The keys of the tables so far, by table.
    """
    hints = get_type_hints(kind, include_extras=True)
    meanings = _meanings(kind)
    head = [_HEAD, ("---",) * len(_HEAD)]
    rows = list(head)
    shared = False
    for field in msgspec.structs.fields(kind):
        if kind is not HttpTarget and _as_in_every_target(kind, field):
            shared = True
            continue
        hint = hints[field.name]
        found = _UNITS.sub("", _PATTERN.sub(r"matches `\1`", accepted(hint)))
        for long, short in _SHORTER.items():
            found = found.replace(long, short)
        if found.count("', '") + 2 > _MOST_WORDS:
            found = "a name"
        rows.append((f"`{field.encode_name}`", found, _default(field), meanings[field.name]))
    table = "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)
    if shared:
        table += "\n\nAlso the keys of every [target](README.md#targets)."
    same = shown.setdefault(table, path.rstrip("."))
    if rows == head:
        yield "The keys are those of every [target](README.md#targets)."
    else:
        yield table if same == path.rstrip(".") else f"The keys of `{same}`."
    for field in msgspec.structs.fields(kind):
        for part, several in _structs(msgspec.inspect.type_info(hints[field.name])):
            below = f"{path}{field.encode_name}{'[]' if several else ''}"
            yield f"### `{below}`"
            elsewhere = _ELSEWHERE.get((section_name, part))
            if elsewhere is not None:
                yield f"{_intro(part)} The keys are those of {elsewhere}."
                continue
            yield _intro(part)
            yield from _tables(part, f"{below}.", section_name, shown)


def _as_in_every_target(kind: type[msgspec.Struct], field: Any) -> bool:
    if not issubclass(kind, HttpTarget) or field.name not in _SHARED:
        return False
    general = next(f for f in msgspec.structs.fields(HttpTarget) if f.name == field.name)
    return _default(field) == _default(general)


def _structs(info: Any, several: bool = False) -> Iterator[tuple[type[msgspec.Struct], bool]]:
    """Yield the structs in a type, each with whether it stands for several values."""
    found = msgspec.inspect
    if isinstance(info, found.Metadata):
        yield from _structs(info.type, several)
    elif isinstance(info, found.UnionType):
        for one in info.types:
            yield from _structs(one, several)
    elif isinstance(info, found.CollectionType):
        yield from _structs(info.item_type, True)
    elif isinstance(info, found.StructType):
        yield info.cls, several


def _intro(kind: type[msgspec.Struct]) -> str:
    """Return the first paragraph of a class's docstring."""
    text = " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())
    return text.replace("``", "`")


def _meanings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return the docstrings below the fields of a class and of its base classes."""
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__[: kind.__mro__.index(msgspec.Struct)]):
        (definition,) = ast.parse(inspect.getsource(cls)).body
        body = definition.body  # type: ignore[attr-defined]
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                words = " ".join(ast.literal_eval(text.value).split())
                found[field.target.id] = words  # type: ignore[union-attr]
    return found


def _default(field: Any) -> str:
    if field.required:
        return "required"
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if value is None:
        return "none"
    if isinstance(value, msgspec.Struct):
        return "see below"
    if isinstance(value, float):
        return f"`{show_number(value)}`"
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    return f"`{msgspec.json.encode(value).decode()}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Print the tables, or write them into the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SECTIONS))
    parser.add_argument("--write", metavar="DIRECTORY", type=Path, help="directory of the pages")
    options = parser.parse_args()
    if options.write is not None:
        for path in write(options.write):
            print(f"Wrote {path}")
        return 0
    for name in options.names or SECTIONS:
        print(f"## {name}\n\n{section(name)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
