# SPDX-License-Identifier: Apache-2.0
"""The data that the engine hands to its supervisor on the bootstrap's command line."""

from __future__ import annotations

import os

from lmcache_plugin_adapter.contract.frozen import frozen
from lmcache_plugin_adapter.contract.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@frozen
class Handover:
    """The arguments of a supervisor, in the order of its command line.

    Attributes:
        connection: One end of a socket pair; the engine holds the other.
        pidfd: The engine's pidfd, or -1.
        spec: A descriptor with the launch spec.
        engine: The engine's pid.
        engine_start: Its start time, in clock ticks since boot.
        previous: The pid of the supervisor that this one replaces, or 0; 1 if
            that died before it could report its pid.
        again: Whether earlier supervisors of this process may still be
            stopping: their plugins must be gone before new ones start.
        image: The engine's memory image (:func:`.procfs.memory_image`).
        run_id: The run token.
        label: The identity for people, such as ``worker 0``. Commands and other supervisors
            read the run token and this, the last two arguments, in ``/proc``.
    """

    connection: int
    pidfd: int
    spec: int
    engine: int
    engine_start: int
    previous: int
    again: bool
    image: str
    run_id: str
    label: str

    def read_spec(self) -> bytes:
        """Return the launch spec."""
        return os.pread(self.spec, os.fstat(self.spec).st_size, 0)

    def describe(self) -> dict[str, Any]:
        """Return what a supervisor reports of itself and its engine; it never changes."""
        import json  # only a request for the status pays for it

        identity = json.loads(self.read_spec().partition(b"\n")[0])["identity"]
        ranks = ("role", "worker_id", "worker_count", "dp_rank", "dp_size")
        return {
            "version": __version__,
            "supervisor_pid": os.getpid(),
            "engine_pid": self.engine,
            "identity": self.label,
            **{key: identity[key] for key in ranks},
            "run_id": self.run_id,
        }
