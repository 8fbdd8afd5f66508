# SPDX-License-Identifier: Apache-2.0
"""Generate the JSON Schema of ``lmcache.yaml``'s settings from their table.

``python -m lmcache_plugin_adapter.configuration.json_schema --write`` writes the file that the
package ships, for editors and for ``lmcache-plugins check --schema``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from lmcache_plugin_adapter.contract.engine_settings import SETTINGS_KEY

from . import locations
from .settings_table import PLUGIN_KEY, SETTINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .setting_kinds import Setting

    _Schema = dict[str, Any]

SCHEMA_FILE = Path(__file__).with_name("settings.schema.json")
"""The shipped file."""

_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_NULL = {"type": "null"}  # a key without a value counts as absent
_LOCATIONS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, _NULL]}


def settings_schema() -> _Schema:
    """Return the schema of ``lmcache.yaml``; it says nothing about LMCache's own keys."""
    general = {row.key: row for row in SETTINGS if not row.key.startswith(PLUGIN_KEY)}
    own = {row.key.removeprefix(PLUGIN_KEY): row for row in SETTINGS if row.key not in general}
    of_plugin = {key: row for key, row in general.items() if row.per_plugin} | own
    settings = _properties(general)
    settings["plugins"] |= {"type": ["object", "null"], "additionalProperties": _closed(of_plugin)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lmcache.yaml with settings of lmcache-plugin-adapter",
        "type": "object",
        "properties": {
            locations.KEY: {
                "description": "Plugin files, directories, or pkg:NAME for installed plugins.",
                **_LOCATIONS,
            },
            locations.OLDER_KEY: {
                "description": f"Older name of {locations.KEY}.",
                "deprecated": True,
                **_LOCATIONS,
            },
            "extra_config": {
                "type": ["object", "null"],
                "properties": {
                    SETTINGS_KEY: {
                        "type": ["object", "null"],
                        "properties": settings,
                        "additionalProperties": False,
                    }
                },
            },
        },
    }


def _closed(rows: Mapping[str, Setting]) -> _Schema:
    """Return the schema of a mapping that has these settings and no others."""
    return {
        "type": ["object", "null"],
        "properties": _properties(rows),
        "additionalProperties": False,
    }


def _properties(rows: Mapping[str, Setting]) -> _Schema:
    return {key: _property(row, rows) for key, row in rows.items() if "." not in key}


def _property(row: Setting, rows: Mapping[str, Setting]) -> _Schema:
    below = {key.partition(".")[2]: r for key, r in rows.items() if key.startswith(f"{row.key}.")}
    schema: _Schema = {"description": _LINK.sub(r"\1", row.meaning).replace("`", "'")}
    if row.default is not None and not below:
        schema["default"] = row.default
    accepted = [dict(row.schema)] if row.schema else []
    if below:
        accepted.append(_closed(below))
    if accepted:
        schema["anyOf"] = [*accepted, _NULL]
    return schema


def schema_text() -> str:
    """Return the schema as the shipped file has it."""
    return json.dumps(settings_schema(), indent=2) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
    else:
        sys.stdout.write(schema_text())
