# SPDX-License-Identifier: Apache-2.0
"""LMCache's own frontend, the package lmcache-frontend from PyPI, runs unchanged."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Engine, marked, wait_until

from lmcache_plugin_adapter.hosts import upstream_names

HOME = Path(os.environ.get("RING_HOME", "/nowhere"))
PACKAGE = next(HOME.glob("lmcache-frontend-*"), Path("/nowhere"))
PLUGIN = "scheduler_lmc_frontend_plugin.py"

pytestmark = [
    pytest.mark.skipif(not PACKAGE.is_dir(), reason="lmcache-frontend is not unpacked"),
    pytest.mark.skipif(
        upstream_names.installed_version("lmcache") != "0.5.6", reason="tried with LMCache 0.5.6"
    ),
    pytest.mark.timeout(300),
]
CONFIGURE = """
from lmcache.v1.config import LMCacheEngineConfig
config = LMCacheEngineConfig.from_dict({{
    "runtime_plugin_locations": [{location!r}],
    "extra_config": {{"plugin.frontend.port": {port}, "plugin.frontend.host": "127.0.0.1"}},
    "lmcache_instance_id": "me",
    "internal_api_server_host": "127.0.0.1",
    "internal_api_server_port_start": {api},
}})
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class InternalApi(http.server.BaseHTTPRequestHandler):
    """The internal API of the scheduler."""

    def do_GET(self) -> None:
        """Answer with the path that was requested."""
        body = f"scheduler's {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def internal_api() -> Iterator[int]:
    """The port of a stand-in for the scheduler's internal API."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), InternalApi) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def frontend(tmp_path: Path, internal_api: int) -> Iterator[tuple[Engine, int]]:
    """An engine whose scheduler runs the package's plugin, to the letter, and its port."""
    (tmp_path / "plugins").mkdir()
    source = PACKAGE / "lmcache_frontend" / "lmcache_plugin" / PLUGIN
    shutil.copy(source, tmp_path / "plugins" / PLUGIN)
    (tmp_path / "plugins" / PLUGIN).chmod(0o644)
    port = free_port()
    path = os.pathsep.join([str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])])
    engine = Engine(
        tmp_path,
        {},
        role="scheduler",
        prelude=CONFIGURE.format(location=str(tmp_path / "plugins"), port=port, api=internal_api),
        env={"PYTHONPATH": path},
    )
    yield engine, port
    if engine.process.poll() is None:
        engine.kill()
    wait_until(lambda: not marked(str(tmp_path)), 60, "no process left")


def page(port: int, path: str = "/") -> str:
    """Return a page of the frontend, or nothing as long as it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return str(reply.read().decode())
    except OSError:
        return ""


def test_it_serves_and_ends_with_the_engine(frontend: tuple[Engine, int], tmp_path: Path) -> None:
    """Its page answers, and requests to the scheduler pass through it; its output is in the log
    without colours; it stops in order.
    """  # noqa: D205
    engine, port = frontend
    text = engine.wait_for(lambda: page(port), 120, "the frontend's page")
    assert "<html" in text.lower()
    assert page(port, "/proxy2/me_scheduler/version") == "scheduler's /version"
    assert engine.status("scheduler_lmc_frontend_plugin")["restarts"] == 0
    engine.wait_log(r"\] Python plugin running with role: SCHEDULER ", 30)
    engine.close()
    wait_until(lambda: not marked(str(tmp_path)), 60, "no process left")
    engine.wait_log(r"\[scheduler_lmc_frontend_plugin\] Stopped: exited with code 0 ", 30)
    assert "Traceback" not in engine.log()
    lines = [
        line for line in engine.log().splitlines() if "[scheduler_lmc_frontend_plugin]" in line
    ]
    assert not [line for line in lines if "\x1b" in line or r"\x1b" in line]
    assert "torch_dev=" in "".join(lines), "LMCache no longer logs in colour there"
