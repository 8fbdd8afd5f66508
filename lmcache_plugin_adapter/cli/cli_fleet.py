"""What the commands that speak to supervisors have in common: what is meant, what went wrong."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .console import USAGE_STATUS, complain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.cli.supervisors.survey import Fleet


def report_problems(fleet: Fleet, unknown: Sequence[str] = ()) -> int:
    """Say what could not be asked and which names mean nothing; return the exit status."""
    for text in fleet.problems:
        complain("warning", text)
    for text in (*fleet.failures, *unknown):
        complain("error", text)
    return USAGE_STATUS if unknown else 1 if fleet.failures else 0


def complete_plugin(incomplete: str) -> list[str]:
    """Return the names of plugins that run here, for the shell to complete."""
    from lmcache_plugin_adapter.cli.supervisors.survey import Selector, survey

    try:
        fleet = survey(Selector(), os.environ)
    except OSError:
        return []
    return sorted({p.title for _, p in fleet.named(()) if p.title.startswith(incomplete)})
