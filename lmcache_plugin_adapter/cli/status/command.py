# SPDX-License-Identifier: Apache-2.0
"""``lmcache-plugins status``: show the plugins of all engines, or check them for a probe."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import (
    ExitStatus,
    discard_stdout,
    print_line,
    print_problem,
)
from lmcache_plugin_adapter.cli.supervisors.survey import survey

from .report import make_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.cli.supervisors.survey import Selector

    from .report import StatusReport

WATCH_SECONDS = 2.0
"""Interval of ``--watch``."""


def status(
    names: tuple[str, ...],
    selector: Selector,
    *,
    watch: bool = False,
    as_json: bool = False,
    wide: bool = False,
) -> int:
    """Show plugins; return the exit status.

    Args:
        names: Plugins to show; empty: all.
        selector: Engine processes to show.
        watch: Repeat every 2 s.
        as_json: Print a JSON document instead of tables.
        wide: Show every column and row of the table, and the engine processes.
    """
    show: Callable[[StatusReport, StatusReport | None], str]
    if as_json:
        from .json_document import to_json

        def show(report: StatusReport, before: StatusReport | None) -> str:
            return to_json(report, before, indent=None if watch else 2)
    else:
        from .table import show_live, to_table

        def show(report: StatusReport, before: StatusReport | None) -> str:
            return to_table(report, before, wide=wide)

    if watch:

        def look() -> StatusReport:
            return make_report(names, selector)

        if as_json or not sys.stdout.isatty():
            return _watch(look, show)
        try:
            show_live(look, WATCH_SECONDS, wide=wide)
        except KeyboardInterrupt:
            return ExitStatus.INTERRUPTED
    report = make_report(names, selector)
    text = show(report, None)
    if text:
        print_line(text)
    found = report.survey
    if found.none_selected:
        print_problem("error", found.why_empty)
        return max(found.print_problems(), ExitStatus.FAILED)
    return found.print_problems(found.unknown(names))


def probe(names: tuple[str, ...], selector: Selector) -> int:
    """Print which plugins are not healthy; return the exit status."""
    from .table import describe_state

    found = survey(selector)
    plugins = found.plugins(names)
    bad = [
        f"{plugin.title} on {supervisor.label}: {describe_state(plugin)}"
        for supervisor, plugin in plugins
        if not plugin.healthy
    ]
    bad += found.unknown(names) if found.supervisors else [found.why_empty]
    bad += found.failures
    for text in bad:
        print_line(text)
    if not bad:
        print_line(f"{len(plugins)} {'plugin is' if len(plugins) == 1 else 'plugins are'} healthy")
    return ExitStatus.FAILED if bad else ExitStatus.OK


def _watch(
    look: Callable[[], StatusReport], show: Callable[[StatusReport, StatusReport | None], str]
) -> int:
    before: StatusReport | None = None
    try:
        while True:
            report = look()
            print(show(report, before), flush=True)
            before = report
            time.sleep(WATCH_SECONDS)
    except BrokenPipeError:
        discard_stdout()
        return ExitStatus.OK
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
