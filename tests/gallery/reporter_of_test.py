# SPDX-License-Identifier: Apache-2.0
"""The metric reporter as a plugin whose engine's internal API is in the process of a test."""

from __future__ import annotations

import os

from lmcache_plugin_adapter.gallery import metric_reporter


def main() -> int:
    """Run it; the stand-in engine that has started it answers nothing itself."""
    os.environ["LMCACHE_RUNTIME_PLUGIN_ENGINE_PID"] = os.environ["REPORTER_OF_TEST"]
    return metric_reporter.main()
