"""The JSON document of ``status --json``; ``docs/operations.md`` describes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.messages.wording import signal_name

if TYPE_CHECKING:
    from typing import Any

    from lmcache_plugin_adapter.cli.supervisors.status_answer import PluginStatus, SupervisorStatus

    from .report import Report

VERSION = 1
"""Increased when a key is removed or changes its meaning; new keys may be added at any time."""


def to_json(report: Report, before: Report | None, indent: int | None) -> str:
    """Return the report as one JSON document."""
    survey = report.survey
    document = {
        "version": VERSION,
        "supervisors": [_supervisor(one, report, before) for one in survey.supervisors],
        "problems": [*survey.problems, *survey.failures, *survey.unknown(report.names)],
    }
    return json.dumps(document, indent=indent)


def _supervisor(one: SupervisorStatus, report: Report, before: Report | None) -> dict[str, Any]:
    own = report.supervisor_usage.get(one.supervisor_pid)
    return {
        "directory": one.address.path,
        "uid": one.address.uid,
        "version": one.version,
        "supervisor_pid": one.supervisor_pid,
        "supervisor_memory_bytes": None if own is None else own.memory_bytes,
        "engine_pid": one.engine_pid,
        "engine_command": report.commands.get(one.engine_pid),
        "identity": one.identity,
        "role": one.role,
        "worker_id": one.worker_id,
        "worker_count": one.worker_count,
        "dp_rank": one.dp_rank,
        "dp_size": one.dp_size,
        "uptime": one.uptime,
        "stopping": one.stopping,
        "plugins": [
            _plugin(plugin, report, before) for owner, plugin in report.plugins if owner is one
        ],
    }


def _plugin(plugin: PluginStatus, report: Report, before: Report | None) -> dict[str, Any]:
    usage = report.usage.get(plugin.pid or 0)
    percent = report.cpu_percent(plugin, before)
    code = plugin.last_exit
    return {
        "name": plugin.name,
        "path": plugin.path,
        "package": plugin.package and dict(zip(("name", "version"), plugin.package, strict=True)),
        "command": plugin.command,
        "state": plugin.state.value,
        "reason": plugin.reason,
        "pid": plugin.pid,
        "uptime": plugin.uptime,
        "restarts": plugin.restarts,
        "last_exit_code": code if code is not None and code >= 0 else None,
        "last_exit_signal": signal_name(-code) if code is not None and code < 0 else None,
        "next_start_in": plugin.next_start_in,
        "lines": plugin.lines,
        "lines_dropped": plugin.lines_dropped,
        "bytes": plugin.bytes,
        "processes": None if usage is None else usage.processes,
        "cpu_seconds": None if usage is None else round(usage.cpu_seconds, 2),
        "cpu_percent": None if percent is None else round(percent, 1),
        "memory_bytes": None if usage is None else usage.memory_bytes,
    }
