# SPDX-License-Identifier: Apache-2.0
"""Plan the metrics of plugins, and remove the files that dead engines left."""

from __future__ import annotations

import contextlib
import os
import re

from lmcache_plugin_adapter.contract.planned_plugin import PlannedMetrics
from lmcache_plugin_adapter.contract.run_token import engine_is_gone
from lmcache_plugin_adapter.contract.variables import METRICS_DIRECTORY
from lmcache_plugin_adapter.messages.problem import Problem, quoted

from .series import MARK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcache_plugin_adapter.contract.launch_spec import LaunchSpec

_FILE = re.compile(rf"[a-z]+_(?:[a-z]+_)?{MARK}\.(\d+\.\d+\.\d+\.[0-9a-f]+)\.[\w-]+\.db(?:\.new)?")


def plan_metrics(
    spec: LaunchSpec, environ: Mapping[str, str]
) -> tuple[PlannedMetrics | None, list[Problem]]:
    """Return how the supervisor writes metrics; or None and the reason."""
    directory = environ.get(METRICS_DIRECTORY)
    if not directory:
        why = (
            f"{METRICS_DIRECTORY} is not set: set it to an empty directory for the whole of "
            "vLLM, before it starts"
        )
    elif not os.path.isdir(directory):
        why = f"{METRICS_DIRECTORY} is no directory: {quoted(directory)}"
    elif not spec.metrics_module:
        why = "the engine's Python has no prometheus_client"
    else:
        identity = spec.identity
        labels = {
            "role": identity.role.value if identity.role is not None else "",
            "worker_id": str(identity.worker_id),
            "dp_rank": str(identity.dp_rank),
        }
        return PlannedMetrics(directory, spec.metrics_module, labels), []
    return None, [Problem("warning", f"No metrics of plugins: {why}")]


def clear_dead(directory: str) -> None:
    """Remove the files of supervisors that were killed together with their engines."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            match = _FILE.fullmatch(name)
            if match is not None and engine_is_gone(match[1]):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(directory, name))
