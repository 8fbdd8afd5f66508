"""``lmcache-plugins check``: print which plugins would run where, and why others would not."""

from __future__ import annotations

from lmcache_plugin_adapter.cli.console import fail, print_line
from lmcache_plugin_adapter.cli.inputs import UsageError, read_config, read_server

from .report import EngineSize, make_report


def check(config: str | None, engine: EngineSize, *, strict: bool, as_json: bool) -> int:
    """Print the report of a check; return the exit status.

    Args:
        config: Path of ``lmcache.yaml``, if given.
        engine: The engine that the plugins are checked for.
        strict: Warnings count as errors.
        as_json: Print one JSON document instead of a table.
    """
    try:
        report = make_report(engine, (read_server if engine.server else read_config)(config))
    except UsageError as error:
        return fail(error)
    if as_json:
        from .json_document import to_json

        print_line(to_json(report, strict))
    else:
        from .table import to_table

        print_line(to_table(report))
    return report.status(strict)
