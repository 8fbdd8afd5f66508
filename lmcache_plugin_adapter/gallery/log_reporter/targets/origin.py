"""What is said of records: which engine process they come from."""

from __future__ import annotations

import re
from typing import NamedTuple

_ROLES = {"Worker": "worker", "EngineCore": "scheduler", "DPEngineCoreActor": "scheduler"}
"""What LMCache calls the processes that vLLM calls so."""

_REPLICA = re.compile(r"_DP(\d{1,6})(?:_|$)")


class Origin(NamedTuple):
    """The engine process that the log reporter runs beside.

    Attributes:
        host: Name of the host, or pod.
        role: ``scheduler``, ``worker``, ``server``, or nothing.
        worker_id: Rank of the worker; -1 on the scheduler.
        dp_rank: Data-parallel replica.
        plugin: The log reporter's own name.
    """

    host: str
    role: str
    worker_id: int
    dp_rank: int
    plugin: str

    def labels(self, process: str = "") -> dict[str, str]:
        """Return what tells engine processes apart, as short names and texts.

        Args:
            process: vLLM's name of the process that logged the record: ``Worker_DP1_TP0`` is
                a worker of replica 1, whoever reads its lines.
        """
        replica = _REPLICA.search(process)
        labels = {
            "role": _ROLES.get(process.partition("_")[0], self.role),
            "dp_rank": replica[1] if replica is not None else str(self.dp_rank),
        }
        if self.worker_id >= 0:
            labels["worker_id"] = str(self.worker_id)
        return {name: value for name, value in labels.items() if value}
