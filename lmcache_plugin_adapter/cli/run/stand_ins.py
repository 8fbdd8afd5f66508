# SPDX-License-Identifier: Apache-2.0
"""The stand-in engines that a command line selects."""

from __future__ import annotations

from dataclasses import dataclass

from lmcache_plugin_adapter.cli.inputs import UsageError, engine_processes
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role


@dataclass(frozen=True)
class StandIns:
    """The stand-in engines that the command line selects.

    Attributes:
        world_size: Workers of the engine (TP x PP).
        role: Run a stand-in for this process only.
        worker_id: Its rank, if given.
        worker_count: Number of workers that it reports, if given.
        server: Run a stand-in for LMCache's multiprocess server.
    """

    world_size: int
    role: Role | None = None
    worker_id: int | None = None
    worker_count: int | None = None
    server: bool = False

    @property
    def for_server(self) -> bool:
        """Whether the stand-in is a multiprocess server.

        Raises:
            UsageError: The options contradict each other.
        """
        if not self.server and self.role is not Role.SERVER:
            return False
        ids = (self.worker_id, self.worker_count)
        if self.role not in (None, Role.SERVER) or ids != (None, None):
            raise UsageError("a server is one process with the id 0: leave out the other options")
        return True

    def identities(self) -> list[ProcessIdentity]:
        """Return the identities of vLLM's stand-in engines.

        Raises:
            UsageError: The options contradict each other.
        """
        if self.role is None:
            for option, value in (
                ("--worker-id", self.worker_id),
                ("--worker-count", self.worker_count),
            ):
                if value is not None:
                    raise UsageError(f"{option} is for one process: name it with --role")
            return engine_processes(self.world_size)
        count = self.worker_count or self.world_size
        if self.role is not Role.WORKER:
            if self.worker_id is not None:
                raise UsageError(
                    f"--worker-id is for --role worker, found --role {self.role.value}"
                )
            return [ProcessIdentity(self.role, -1, count)]
        rank = self.worker_id or 0
        if rank >= count:
            raise UsageError(
                f"no worker {rank} among {count}: ranks are 0 to {count - 1} "
                "(increase --tp, --pp or --worker-count)"
            )
        return [ProcessIdentity(self.role, rank, count)]
