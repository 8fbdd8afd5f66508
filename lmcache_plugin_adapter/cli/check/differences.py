# SPDX-License-Identifier: Apache-2.0
"""Note for ``check`` where this package runs a file elsewhere than LMCache's own launcher does."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.contract.frozen import replaced
from lmcache_plugin_adapter.contract.identity import ROLE_WORDS, Role
from lmcache_plugin_adapter.messages.problem import Problem

from .lmcache_rule import lmcache_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.contract.identity import ProcessIdentity
    from lmcache_plugin_adapter.planner.file_report import FileReport

BYPASS = "enable_scheduler_bypass_lookup"
BYPASS_NOTE = (
    f"'{BYPASS}' is set: LMCache's own launcher gives the scheduler's plugins the id 0, "
    "this package -1"
)

_READ_BYTES = 65536
_COMPARES_ROLE = re.compile(
    rb"LMCACHE_(?:RUNTIME_)?PLUGIN_ROLE[\"'\])}\s]{0,8}(?:, *[\"'][\"']\))? *"
    rb"(?:==?|!=|in\b|-eq) *[(\[{]* *[\"']?(" + "|".join(ROLE_WORDS).encode() + rb")\b"
)


def bypasses_lookup(config_json: str) -> bool:
    """Return whether LMCache's configuration gives the scheduler an engine, and the id 0."""
    found = json.loads(config_json)
    return isinstance(found, dict) and found.get(BYPASS) is True


def with_differences(
    files: Sequence[FileReport],
    processes: Sequence[ProcessIdentity],
    has_engine: bool,
) -> tuple[FileReport, ...]:
    """Return the reports with a note for each difference.

    Args:
        files: The reports of all entries.
        processes: The engine's processes.
        has_engine: As for :func:`.lmcache_runs`.
    """
    # LMCache counts no replicas.
    processes = [one for one in processes if one.dp_rank == processes[0].dp_rank]
    found = []
    for file in files:
        notes = []
        if file.installed is None and file.name is not None and file.status in _PLUGINS:
            theirs = [
                one
                for one in processes
                if lmcache_runs(os.path.basename(file.path), one, has_engine=has_engine)
            ]
            ours = [one for one in processes if one in file.runs_on]
            if theirs and theirs != ours:
                text = f"LMCache's own launcher runs it on {_in_words(theirs, processes)}"
                text += f"; this package runs it on {_in_words(ours, processes)}"
                notes.append(Problem("note", text))
            if (role := _role_in_lower_case(file.path)) is not None:
                text = f"it compares the role with '{role}': here its variable is in upper case"
                notes.append(Problem("note", f"{text}, in LMCache in lower case"))
        found.append(_with_notes(file, notes) if notes else file)
    return tuple(found)


def _in_words(some: list[ProcessIdentity], processes: Sequence[ProcessIdentity]) -> str:
    if not some:
        return "no process"
    if len(some) == len(processes):
        return "every process"
    workers = [one for one in processes if one.role is Role.WORKER]
    if some == workers and len(workers) > 1:
        return "every worker"
    return ", ".join(replaced(one, dp_size=1).label for one in some)


def _with_notes(file: FileReport, notes: list[Problem]) -> FileReport:
    """Add notes; a file that never runs has a warning already, which then has the rest."""
    first, *others = (*file.problems, *notes)
    if first.level == "warning" and file.status == "elsewhere":
        more = "; ".join(note.text.partition(";")[0] for note in notes)
        first, others = Problem("warning", f"{first.text} ({more})"), list(file.problems[1:])
    return replaced(file, problems=(first, *others))


_PLUGINS = ("runs", "elsewhere")


def _role_in_lower_case(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            match = _COMPARES_ROLE.search(file.read(_READ_BYTES))
    except OSError:
        return None
    return match[1].decode() if match is not None else None
