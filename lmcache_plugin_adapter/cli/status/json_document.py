# SPDX-License-Identifier: Apache-2.0
"""The JSON document of ``status --json``; ``docs/reference/json-documents.md`` describes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.messages.wording import signal_name

if TYPE_CHECKING:
    from typing import Any

    from lmcache_plugin_adapter.cli.supervisors.status_answer import ShownPlugin, SupervisorStatus

    from .report import StatusReport

VERSION = 1
"""Increased when a key is removed or changes its meaning; new keys may be added at any time."""


def to_json(report: StatusReport, before: StatusReport | None, indent: int | None) -> str:
    """Return the report as one JSON document."""
    survey = report.survey
    document = {
        "version": VERSION,
        "supervisors": [_supervisor(one, report, before) for one in survey.supervisors],
        "problems": [
            *survey.problems,
            *survey.failures,
            *([survey.why_empty] if survey.none_selected else survey.unknown(report.names)),
        ],
    }
    return json.dumps(document, indent=indent)


def _supervisor(
    one: SupervisorStatus, report: StatusReport, before: StatusReport | None
) -> dict[str, Any]:
    usage = report.supervisor_usage.get(one.supervisor_pid)
    own = {key: value for key, value in vars(one).items() if key not in ("address", "plugins")}
    return {
        "directory": one.address.path,
        "uid": one.address.uid,
        **own,
        "supervisor_memory_bytes": usage and usage.memory_bytes,
        "engine_command": report.commands.get(one.engine_pid),
        "plugins": [
            _plugin(plugin, report, before) for owner, plugin in report.plugins if owner is one
        ],
    }


def _plugin(
    plugin: ShownPlugin, report: StatusReport, before: StatusReport | None
) -> dict[str, Any]:
    usage = report.usage.get(plugin.pid or 0)
    percent = report.cpu_percent(plugin, before)
    own = plugin.to_json()
    code = own.pop("last_exit")
    return {
        **own,
        "last_exit_code": code if code is not None and code >= 0 else None,
        "last_exit_signal": signal_name(-code) if code is not None and code < 0 else None,
        "processes": usage and usage.processes,
        "cpu_seconds": usage and round(usage.cpu_seconds, 2),
        "cpu_percent": percent if percent is None else round(percent, 1),
        "memory_bytes": usage and usage.memory_bytes,
    }
