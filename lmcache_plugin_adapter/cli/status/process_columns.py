# SPDX-License-Identifier: Apache-2.0
"""The columns of the engine processes and their supervisors, which ``status --wide`` adds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import printable
from lmcache_plugin_adapter.messages.wording import size

from .columns import Column, duration

if TYPE_CHECKING:
    from lmcache_plugin_adapter.cli.supervisors.status_answer import SupervisorStatus

    from .columns import Cell
    from .report import StatusReport


@dataclass(frozen=True)
class ProcessRow:
    """An engine process, as its supervisor reports it."""

    supervisor: SupervisorStatus
    report: StatusReport


def _memory(process: ProcessRow) -> Cell:
    usage = process.report.supervisor_usage.get(process.supervisor.supervisor_pid)
    return size(usage.memory_bytes) if usage else "", ""


def _command(process: ProcessRow) -> Cell:
    words = process.report.commands.get(process.supervisor.engine_pid, "").split(" ")
    return printable(" ".join(os.path.basename(word) or word for word in words)), "dim"


PROCESS_COLUMNS: tuple[Column[ProcessRow], ...] = (
    Column("process", 0, lambda one: (one.supervisor.identity, "")),
    Column("engine", 0, lambda one: (str(one.supervisor.engine_pid), ""), is_right=True),
    Column("supervisor", 0, lambda one: (str(one.supervisor.supervisor_pid), ""), is_right=True),
    Column("up", 0, lambda one: (duration(one.supervisor.uptime), ""), is_right=True),
    Column("memory", 0, _memory, is_right=True),
    Column("", 0, lambda one: ("stopping" if one.supervisor.stopping else "", "yellow")),
    Column("command of the engine", 0, _command),
)
