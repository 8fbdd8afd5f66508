# SPDX-License-Identifier: Apache-2.0
"""The entry points of the gallery's plugins and usual settings, for ``run_plugin``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HEARTBEAT = "lmcache_plugin_adapter.gallery.heartbeat:main"
LOG_REPORTER = "lmcache_plugin_adapter.gallery.log_reporter:main"
METRIC_REPORTER = "lmcache_plugin_adapter.gallery.metric_reporter:main"


def log_settings(directory: Path, **more: Any) -> dict[str, Any]:
    """Return settings of a log reporter that waits for nothing; its state is in ``directory``."""
    fast = {"poll": 0.05, "flush_interval": 0.1, "multiline_timeout": 0.1}
    return {**fast, "state_directory": str(directory / "state"), **more}
