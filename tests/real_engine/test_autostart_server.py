# SPDX-License-Identifier: Apache-2.0
"""LMCache's server that vLLM starts itself, with our module: whoever ends, the plugins end."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from site_under_test import WITNESS, Seen, Site, free_port, wait_for
from vllm_server import Server, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        importlib.util.find_spec("lmcache.integration.vllm.mp_server_launcher") is None,
        reason="this LMCache's server is not started by vLLM",
    ),
]
STOP_GRACE = 15


def connector(site: Site) -> dict[str, Any]:
    """Return what docs/operators/lmcache-server.md shows, with ports and plugins of the test."""
    given = {
        "runtime_plugin_locations": [str(site.plugins)],
        "runtime_plugins": {"stop_grace": STOP_GRACE},
    }
    module = {"module_path": "lmcache_plugin_adapter.server_module", "config": given}
    return {
        "kv_connector": "LMCacheMPConnector",
        "kv_connector_extra_config": {
            "lmcache.mp.port": free_port(),
            "lmcache.mp.autostart": True,
            "lmcache.mp.autostart.server_args": (
                "--l1-size-gb 0.1 --eviction-policy LRU --supported-transfer-mode auto "
                f"--http-port {free_port()} "
                f"--server-module '{json.dumps(module)}'"
            ),
        },
    }


def plugin_of_the_server(site: Site, server: Server) -> Seen:
    """Return the one plugin that runs, once it does: on the server, not in vLLM's processes."""
    wait_for(site.seen, 60, lambda: server.log[-3000:])
    (seen,) = site.seen()
    assert (seen.role, seen.worker_id) == ("SERVER", 0)
    assert "multiprocess" in site.processes()[seen.start["engine"]]
    return seen


def assert_goodbye(site: Site) -> None:
    """The plugin had its SIGTERM and the time for a goodbye."""
    site.wait_until_nothing_is_left()
    (seen,) = site.seen()
    assert [event["event"] for event in seen.events] == ["start", "sigterm", "goodbye"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Plugins of every role."""
    site = Site(tmp_path / "site")
    for role in ("server", "worker", "scheduler"):
        site.add(f"{role}_witness.py", WITNESS)
    (site.plugins / "all_witness.py").unlink()
    return site


def test_the_end_of_the_server_then_of_the_engine(site: Site, model: Path) -> None:
    """The server alone is killed, and its plugin ends; vLLM ends on its own."""
    with serving(site, model, connector=connector(site)) as server:
        seen = plugin_of_the_server(site, server)
        os.kill(seen.start["engine"], signal.SIGKILL)
        wait_for(lambda: site.seen()[0].goodbye, 60, site.seen)
        server.process.send_signal(signal.SIGTERM)
        server.wait()
        assert_goodbye(site)


@pytest.mark.parametrize("ends", ["Ctrl-C", "killed engine core"])
def test_the_end_of_the_engine(site: Site, model: Path, ends: str) -> None:
    """Of all at once as on a terminal, or of the engine core alone."""
    with serving(site, model, connector=connector(site)) as server:
        seen = plugin_of_the_server(site, server)
        if ends == "Ctrl-C":
            server.signal_group(signal.SIGINT)
        else:
            os.kill(server.engine_core, signal.SIGKILL)
        server.wait()
        if ends != "Ctrl-C" and seen.start["engine"] in site.processes():
            assert site.seen()[0].goodbye is None  # the server lives on, and so does its plugin
            os.kill(seen.start["engine"], signal.SIGTERM)
        assert_goodbye(site)
