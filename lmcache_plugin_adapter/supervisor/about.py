"""What a supervisor says of itself that never changes."""

from __future__ import annotations

import os

from lmcache_plugin_adapter.contract.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .handover import Launch


def about(launch: Launch) -> dict[str, Any]:
    """Return who the engine process is, as the header of its launch spec has it, and who we are."""
    import json  # only who is asked pays for it

    header = os.pread(launch.spec, os.fstat(launch.spec).st_size, 0).partition(b"\n")[0]
    identity = json.loads(header)["identity"]
    return {
        "version": __version__,
        "supervisor_pid": os.getpid(),
        "engine_pid": launch.engine,
        "identity": launch.label,
        "role": identity["role"],
        "worker_id": identity["worker_id"],
        "worker_count": identity["worker_count"],
        "dp_rank": identity["dp_rank"],
        "dp_size": identity["dp_size"],
        "run_id": launch.run_id,
    }
