"""What is said of all records: which engine process they come from."""

from __future__ import annotations

from typing import NamedTuple


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

    def labels(self) -> dict[str, str]:
        """Return what tells engine processes apart, as short names and texts."""
        labels = {"role": self.role, "dp_rank": str(self.dp_rank)}
        if self.worker_id >= 0:
            labels["worker_id"] = str(self.worker_id)
        return {name: value for name, value in labels.items() if value}
