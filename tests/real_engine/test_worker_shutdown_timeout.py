# SPDX-License-Identifier: Apache-2.0
"""``VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS`` gives the engine core time to close, from vLLM 0.33."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from site_under_test import Site, wait_for
from vllm_server import serving

from lmcache_plugin_adapter.hosts.upstream_names import installed_version

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)

# Its working directory is the engine's.
WHY = """\
trap 'cat "$LMCACHE_RUNTIME_PLUGIN_ENDING_FILE" > why.new; mv why.new why; exit' TERM
touch up
sleep 86400 & wait
"""


def test_plugins_learn_how_the_engine_ends(tmp_path: Path, model: Path) -> None:
    """On SIGTERM to the server; up to 0.32 the engine core is killed at once."""
    expected = "closing" if installed_version("vllm").split(".")[:2] >= ["0", "33"] else "died"
    site = Site(tmp_path / "site", stop_grace=15)
    (site.plugins / "all_witness.py").unlink()
    site.add("scheduler_why.sh", WHY)
    with serving(site, model, VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS="8") as server:
        wait_for((site.directory / "up").exists, 60, lambda: server.log[-2000:])
        server.process.send_signal(signal.SIGTERM)
        server.wait()
        site.wait_until_nothing_is_left()
        assert (site.directory / "why").read_text().strip() == expected
