# SPDX-License-Identifier: Apache-2.0
"""``lmcache-plugins check``: print which plugins would run where, and why others would not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import fail, print_line
from lmcache_plugin_adapter.cli.inputs import UsageError, read_config, read_server
from lmcache_plugin_adapter.cli.lmcache_yaml import StandInConfig
from lmcache_plugin_adapter.cli.run.stand_ins import StandIns
from lmcache_plugin_adapter.cli.run.trial import empty_config, empty_server_config, read_trial

from .report import make_report, merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.hosts.lmcache_server.config import ServerConfig

    from .report import EngineSize


def check(
    config: str | None,
    engine: EngineSize,
    files: Sequence[str] = (),
    lmcache_locations: Sequence[str] = (),
    *,
    strict: bool,
    as_json: bool,
) -> int:
    """Print the report of a check; return the exit status.

    Args:
        config: Path of ``lmcache.yaml``, if given.
        engine: The engine that the plugins are checked for.
        files: Check these plugins in place of those of the configuration.
        lmcache_locations: ``--runtime-plugin-locations`` of LMCache's server.
        strict: Warnings count as errors.
        as_json: Print one JSON document instead of a table.
    """
    try:
        engine, read = _prepare(config, engine, files, lmcache_locations)
        parts = [read] if isinstance(read, StandInConfig) else read.by_rule()
        report = merged([make_report(engine, part) for part in parts])
    except UsageError as error:
        return fail(error)
    if as_json:
        from .json_document import to_json

        print_line(to_json(report, strict))
    else:
        from .table import to_table

        print_line(to_table(report))
    return report.status(strict)


def _prepare(
    path: str | None, engine: EngineSize, files: Sequence[str], lmcache_locations: Sequence[str]
) -> tuple[EngineSize, StandInConfig | ServerConfig]:
    """Return the engine, which is large enough for the files, and the configuration.

    Raises:
        UsageError: The configuration or a file cannot be used.
    """
    if not files:
        if engine.server:
            return engine, read_server(path, lmcache_locations)
        return engine, read_config(path)
    # Roles apply, so that the report has the name that a file without a role needs.
    trial = replace(read_trial(files), without_role=[])
    chosen = trial.stand_ins(StandIns(engine.world_size, server=engine.server))
    config: StandInConfig | ServerConfig
    if chosen.server:
        config = read_server(path) if path else empty_server_config(files)
    else:
        config = read_config(path) if path else empty_config(files)
    engine = replace(engine, world_size=chosen.world_size, server=chosen.server)
    return engine, trial.apply_to(config)
