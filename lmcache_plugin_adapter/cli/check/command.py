# SPDX-License-Identifier: Apache-2.0
"""``lmcache-plugins check``: print which plugins would run where, and why others would not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import fail, print_line
from lmcache_plugin_adapter.cli.inputs import UsageError, read_config, read_server

from .report import EngineSize, make_report, merged

if TYPE_CHECKING:
    from collections.abc import Sequence


def check(
    config: str | None,
    engine: EngineSize,
    lmcache_locations: Sequence[str] = (),
    *,
    strict: bool,
    as_json: bool,
) -> int:
    """Print the report of a check; return the exit status.

    Args:
        config: Path of ``lmcache.yaml``, if given.
        engine: The engine that the plugins are checked for.
        lmcache_locations: ``--runtime-plugin-locations`` of LMCache's server.
        strict: Warnings count as errors.
        as_json: Print one JSON document instead of a table.
    """
    try:
        if engine.server:
            parts = read_server(config, lmcache_locations).by_rule()
            report = merged([make_report(engine, part) for part in parts])
        else:
            report = make_report(engine, read_config(config))
    except UsageError as error:
        return fail(error)
    if as_json:
        from .json_document import to_json

        print_line(to_json(report, strict))
    else:
        from .table import to_table

        print_line(to_table(report))
    return report.status(strict)
