# SPDX-License-Identifier: Apache-2.0
"""The origin of records: the engine process that logged them."""

from __future__ import annotations

import re
from typing import NamedTuple

_ROLES = {"Worker": "worker", "EngineCore": "scheduler", "DPEngineCoreActor": "scheduler"}
"""LMCache's roles for vLLM's process names."""

_REPLICA = re.compile(r"_DP(\d{1,6})(?:_|$)")


class Origin(NamedTuple):
    """The engine process of the log reporter."""

    host: str
    """Name of the host, or pod."""
    role: str
    """``scheduler``, ``worker``, ``server``, or empty."""
    worker_id: int
    """Rank of the worker; -1 on the scheduler."""
    dp_rank: int
    """Data-parallel replica."""
    plugin: str
    """The log reporter's own name."""

    def labels(self, process: str = "") -> dict[str, str]:
        """Return the labels that distinguish engine processes.

        Args:
            process: vLLM's name of the process that logged the record: ``Worker_DP1_TP0`` is
                a worker of replica 1, whichever process the log reporter belongs to.
        """
        replica = _REPLICA.search(process)
        labels = {
            "role": _ROLES.get(process.partition("_")[0], self.role),
            "dp_rank": replica[1] if replica is not None else str(self.dp_rank),
        }
        if self.worker_id >= 0:
            labels["worker_id"] = str(self.worker_id)
        return {name: value for name, value in labels.items() if value}
