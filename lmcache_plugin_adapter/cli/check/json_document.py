# SPDX-License-Identifier: Apache-2.0
"""The JSON document of ``check --json``; ``docs/reference/json-documents.md`` describes it."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

from lmcache_plugin_adapter.messages.wording import decodable

from .report import LEVELS

if TYPE_CHECKING:
    from lmcache_plugin_adapter.contract.identity import ProcessIdentity
    from lmcache_plugin_adapter.messages.problem import Problem
    from lmcache_plugin_adapter.planner.file_report import FileReport
    from lmcache_plugin_adapter.planner.installed_plugin import InstalledPlugin

    from .report import CheckReport

VERSION = 1
"""Increased when a key is removed or changes its meaning; new keys may be added at any time."""


def to_json(report: CheckReport, strict: bool) -> str:
    """Return the report as one JSON document."""
    document = {
        "version": VERSION,
        "config": decodable(report.config),
        "python": decodable(report.python),
        "host": "lmcache-server" if report.engine.server else "vllm",
        "engine": {"workers": report.engine.world_size, "dp_size": report.engine.dp_size},
        "locations": [decodable(location) for location in report.locations],
        "files": [_file(file) for file in report.files],
        "problems": [_problem(problem) for problem in report.problems],
        "summary": {
            "plugins": len(report.running),
            **{f"{level}s": report.count(level) for level in LEVELS},
        },
        "exit_status": report.status(strict),
    }
    return json.dumps(document, indent=2)


def _file(file: FileReport) -> dict[str, Any]:
    exact = {}
    if decodable(file.path) != file.path:
        exact["path_base64"] = base64.b64encode(os.fsencode(file.path)).decode()
    return {
        "path": decodable(file.path),
        **exact,
        "location": decodable(file.location),
        "name": None if file.name is None else decodable(file.name),
        "status": file.status,
        "runs_on": [_process(identity) for identity in file.runs_on],
        "command": [decodable(os.fsdecode(word)) for word in file.command] or None,
        "package": _package(file.installed),
        "problems": [_problem(problem) for problem in file.problems],
    }


def _package(installed: InstalledPlugin | None) -> dict[str, str | None] | None:
    """Return which package an installed plugin comes from."""
    if installed is None:
        return None
    return {
        "name": decodable(installed.project),
        "version": decodable(installed.version),
        "entry_point": decodable(installed.value),
        "file": decodable(installed.file) or None,
    }


def _process(identity: ProcessIdentity) -> dict[str, Any]:
    return {
        "role": None if identity.role is None else identity.role.value,
        "worker_id": identity.worker_id,
        "dp_rank": identity.dp_rank,
    }


def _problem(problem: Problem) -> dict[str, str]:
    return {"level": problem.level, "text": decodable(problem.text)}
