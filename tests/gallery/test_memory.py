# SPDX-License-Identifier: Apache-2.0
"""A ready plugin loads only what it uses: a node may run twenty of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import importlib
import sys
importlib.import_module(sys.argv[1])
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
UNUSED = {
    "httpx",
    "ssl",
    "rich",
    "pygments",
    "click",
    "anyio",
    "trio",
    "opentelemetry",
    "google",
    "cramjam",
}
"""Libraries of other programs, and of targets that are not configured."""


@pytest.mark.parametrize(
    "module",
    [
        "metric_reporter.reporter",
        "heartbeat.program",
        "log_reporter.reporter",
        "alert_reporter.reporter",
    ],
)
def test_nothing_is_loaded_for_a_target_that_is_not_configured(module: str) -> None:
    """Httpx would take 5 MB, OpenSSL 2 MB: no address has https://."""
    module = f"lmcache_plugin_adapter.gallery.{module}"
    command = [sys.executable, "-c", PROGRAM, module]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    loaded = set(done.stdout.split())
    assert "msgspec" in loaded
    assert not loaded & UNUSED
