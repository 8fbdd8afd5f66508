# SPDX-License-Identifier: Apache-2.0
"""Plan the metrics of plugins, and remove the files that dead engines left."""

from __future__ import annotations

import contextlib
import os
import re
import time

from lmcache_plugin_adapter.contract.planned_plugin import PlannedMetrics
from lmcache_plugin_adapter.contract.run_token import engine_is_gone, pid_namespace
from lmcache_plugin_adapter.contract.variables import METRICS_DIRECTORY
from lmcache_plugin_adapter.messages.problem import Problem, quoted

from .series import MARK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcache_plugin_adapter.contract.launch_spec import LaunchSpec

_FILE = re.compile(
    rf"(?:[a-z]+_(?:[a-z]+_)?)?{MARK}\.(\d+\.\d+\.\d+\.[0-9a-f]+)\.[\w-]+\.(db|prom)(?:\.new)?"
)
_STALE_SECONDS = 600.0
"""A text file is written every 15 s. One of this age was left by a container that was killed."""


def plan_metrics(
    spec: LaunchSpec, textfile: str | None, environ: Mapping[str, str]
) -> tuple[PlannedMetrics | None, list[Problem]]:
    """Return how the supervisor writes metrics; or None and the reason.

    Args:
        spec: The identity of the engine, and its prometheus_client.
        textfile: The setting ``metrics.textfile``; None for files that vLLM serves.
        environ: The engine's environment.
    """
    identity = spec.identity
    labels = {
        "role": identity.role.value if identity.role is not None else "",
        "worker_id": str(identity.worker_id),
        "dp_rank": str(identity.dp_rank),
    }
    if textfile is not None:
        # All engines of a node share the directory, also those of other containers.
        labels |= {"engine_pid": str(spec.engine_pid), "pid_namespace": pid_namespace()}
        return PlannedMetrics(os.path.abspath(textfile), None, labels), []
    directory = environ.get(METRICS_DIRECTORY)
    if not directory:
        why = (
            f"{METRICS_DIRECTORY} is not set: set it to an empty directory for the whole of "
            "vLLM, before it starts; or set 'metrics.textfile'"
        )
    elif not os.path.isdir(directory):
        why = f"{METRICS_DIRECTORY} is no directory: {quoted(directory)}"
    elif not spec.metrics_module:
        why = "the engine's Python has no prometheus_client"
    else:
        return PlannedMetrics(directory, spec.metrics_module, labels), []
    return None, [Problem("warning", f"No metrics of plugins: {why}")]


def clear_dead(directory: str) -> None:
    """Remove the files of supervisors that were killed together with their engines."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            match = _FILE.fullmatch(name)
            path = os.path.join(directory, name)
            if match is not None and (engine_is_gone(match[1]) or _is_stale(path, match[2])):
                with contextlib.suppress(OSError):
                    os.unlink(path)


def _is_stale(path: str, kind: str) -> bool:
    with contextlib.suppress(OSError):
        return kind == "prom" and time.time() - os.stat(path).st_mtime > _STALE_SECONDS
    return False
