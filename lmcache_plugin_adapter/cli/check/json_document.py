"""The report of ``check`` for machines; ``docs/operations.md`` describes it."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

from lmcache_plugin_adapter.messages.wording import decodable

from .command import LEVELS

if TYPE_CHECKING:
    from lmcache_plugin_adapter.contract.identity import ProcessIdentity
    from lmcache_plugin_adapter.messages.problem import Problem
    from lmcache_plugin_adapter.planner.file_report import FileReport
    from lmcache_plugin_adapter.planner.installed_plugin import InstalledPlugin

    from .command import Report

VERSION = 1
"""Raised when a key changes its meaning or goes; new keys may come at any time."""


def to_json(report: Report, strict: bool) -> str:
    """Return the report as one JSON document."""
    document = {
        "version": VERSION,
        "config": _text(report.config),
        "python": _text(report.python),
        "host": "lmcache-server" if report.server else "vllm",
        "engine": {"workers": report.world_size, "dp_size": report.dp_size},
        "locations": [_text(location) for location in report.locations],
        "files": [_file(file) for file in report.files],
        "problems": [_problem(problem) for problem in report.problems],
        "summary": {
            "plugins": sum(file.status == "runs" for file in report.files),
            **{f"{level}s": report.count(level) for level in LEVELS},
        },
        "exit_status": report.status(strict),
    }
    return json.dumps(document, indent=2)


def _file(file: FileReport) -> dict[str, Any]:
    exact = {}
    if _text(file.path) != file.path:
        exact["path_base64"] = base64.b64encode(os.fsencode(file.path)).decode()
    return {
        "path": _text(file.path),
        **exact,
        "location": _text(file.location),
        "name": None if file.name is None else _text(file.name),
        "status": file.status,
        "runs_on": [_process(identity) for identity in file.runs_on],
        "command": [_text(os.fsdecode(word)) for word in file.command] or None,
        "package": _package(file.installed),
        "problems": [_problem(problem) for problem in file.problems],
    }


def _package(installed: InstalledPlugin | None) -> dict[str, str | None] | None:
    """Say where an installed plugin comes from."""
    if installed is None:
        return None
    return {
        "name": _text(installed.project),
        "version": _text(installed.version),
        "entry_point": _text(installed.value),
        "file": _text(installed.file) or None,
    }


def _process(identity: ProcessIdentity) -> dict[str, Any]:
    return {
        "role": None if identity.role is None else identity.role.value,
        "worker_id": identity.worker_id,
        "dp_rank": identity.dp_rank,
    }


def _problem(problem: Problem) -> dict[str, str]:
    return {"level": problem.level, "text": _text(problem.text)}


def _text(text: str) -> str:
    r"""Return text that every reader of JSON accepts: undecodable bytes become ``\xNN``."""
    return decodable(text)
