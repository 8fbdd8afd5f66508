"""Write what the ready plugins can be set to from the classes that read it.

``python -m lmcache_plugin_adapter.gallery.reference_page`` prints the tables of all;
with names, of those. ``--write docs/gallery`` puts each into its page, between
the two markers that stand there.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec

from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget
from lmcache_plugin_adapter.kit.settings.accepted import accepted, show_number

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTIONS = {
    "targets": ("README.md", "http_client.target:HttpTarget"),
    "alert_reporter": ("alert-reporter.md", "alert_reporter.settings:AlertSettings"),
    "heartbeat": ("heartbeat.md", "heartbeat.settings:Heartbeat"),
    "log_reporter": ("log-reporter.md", "log_reporter.settings:LogReporterSettings"),
    "metric_reporter": ("metric-reporter.md", "metric_reporter.settings:MetricReporter"),
}
"""The page of each, and where its class is, below this package."""

BEGIN = "<!-- Generated: python -m lmcache_plugin_adapter.gallery.reference_page --write docs/gallery -->"
END = "<!-- End of what is generated -->"

_PATTERN = re.compile(r"matches (\^\S+)")
_HEAD = ("Key", "Accepted", "Default", "Meaning")
_SHARED = tuple(field.name for field in msgspec.structs.fields(HttpTarget) if field.name != "url")


def section(name: str) -> str:
    """Return the tables of one of ``SECTIONS``, as Markdown."""
    module, _, attribute = SECTIONS[name][1].partition(":")
    kind = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
    return "\n\n".join(_tables(kind, ""))


def write(directory: Path) -> list[Path]:
    """Put the tables into the pages that are there; return those that have changed.

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
    """Return a page with what stands between its markers replaced.

    Raises:
        ValueError: It has not one of each.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the page needs one line {BEGIN!r} and one line {END!r}")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def _tables(kind: type[msgspec.Struct], path: str) -> Iterator[str]:
    """Yield the table of a struct, then those of the structs in it."""
    hints = get_type_hints(kind, include_extras=True)
    rows = [_HEAD, ("---",) * len(_HEAD)]
    shared = []
    for field in msgspec.structs.fields(kind):
        if kind is not HttpTarget and _as_in_every_target(kind, field):
            shared.append(f"`{field.encode_name}`")
            continue
        hint = hints[field.name]
        found = _PATTERN.sub(r"matches `\1`", accepted(hint))
        rows.append((f"`{field.encode_name}`", found, _default(field), _meaning(kind, field.name)))
    table = "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)
    if shared:
        table += f"\n\nAlso {', '.join(shared)}: see [targets](README.md#targets)."
    yield table
    for field in msgspec.structs.fields(kind):
        for part, several in _structs(msgspec.inspect.type_info(hints[field.name])):
            below = f"{path}{field.encode_name}{'[]' if several else ''}"
            yield f"### `{below}`"
            yield _intro(part)
            yield from _tables(part, f"{below}.")


def _as_in_every_target(kind: type[msgspec.Struct], field: Any) -> bool:
    if not issubclass(kind, HttpTarget) or field.name not in _SHARED:
        return False
    general = next(f for f in msgspec.structs.fields(HttpTarget) if f.name == field.name)
    return _default(field) == _default(general)


def _structs(info: Any, several: bool = False) -> Iterator[tuple[type[msgspec.Struct], bool]]:
    """Yield the structs in a type, and whether there may be many of each."""
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


def _meaning(kind: type[msgspec.Struct], name: str) -> str:
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        if field.name == name:
            return _description(field.type)
    raise LookupError(name)


def _description(info: Any) -> str:
    while isinstance(info, msgspec.inspect.Metadata):
        text = (info.extra_json_schema or {}).get("description")
        if text:
            return str(text)
        info = info.type
    return ""


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
    """Print or write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SECTIONS))
    parser.add_argument("--write", metavar="DIRECTORY", type=Path, help="of the pages")
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
