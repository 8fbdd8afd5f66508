# SPDX-License-Identifier: Apache-2.0
"""What an idle ready plugin costs in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.figures import Sample, Samples, key
from benchmarks.processes import memory_kb
from benchmarks.row import Row
from benchmarks.table import Line, Target, number

LIMIT = 15.0
SETTLE_SECONDS = 8.0
BARE = "import time; time.sleep(3600)"
FLOOR = "bare"
METRICS = (
    b"# TYPE vllm:num_requests_running gauge\n"
    b'vllm:num_requests_running{engine="0",model_name="m"} 0.0\n'
)

HOW = (
    f"PSS of the four ready plugins after {SETTLE_SECONDS:g} s, one process of each at the same "
    "time, as on a node that runs them all, with targets that accept everything and an idle "
    f"engine; bare: a Python that only sleeps (`python3 -c '{BARE}'`). No address has https://."
)


class _Everything(BaseHTTPRequestHandler):
    """A server that serves metrics and accepts what it gets."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(METRICS)))
        self.end_headers()
        self.wfile.write(METRICS)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - as http.server calls them

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def _server() -> Iterator[str]:
    """Serve; yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Everything)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def settings(url: str, log: Path) -> dict[str, dict[str, Any]]:
    """Return the settings of each ready plugin.

    Args:
        url: The address of the server.
        log: The engine's log.
    """
    engine = {"health_url": f"{url}/health", "metrics_url": f"{url}/metrics"}
    return {
        "alert_reporter": {"alertmanagers": [{"url": url}], "health": engine},
        "heartbeat": {"address": "192.0.2.1", "consul": {"url": url}, "engine": engine},
        "log_reporter": {"files": [str(log)], "loki": {"url": url}},
        "metric_reporter": {"vllm_metrics_url": f"{url}/metrics", "pushgateway": {"url": url}},
    }


def measure(bench: Bench) -> Sample:
    """Weigh them all at once."""
    log = bench.directory() / "engine.log"
    log.write_text("INFO 11-27 07:06:56 [core.py:123] a line\n")
    with ExitStack() as running:
        url = running.enter_context(_server())
        processes = {FLOOR: running.enter_context(_running(BARE, {}))}
        for name, own in settings(url, log).items():
            code = f"from lmcache_plugin_adapter.gallery.{name} import main; main()"
            processes[name] = running.enter_context(_running(code, _environment(name, own)))
        time.sleep(SETTLE_SECONDS)
        found = {}
        for name, process in processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} exited with code {process.returncode}")
            found[key(name)] = memory_kb(process.pid) / 1000
        return found


def _environment(name: str, own: Mapping[str, Any]) -> dict[str, str]:
    """Return what an engine's plugin finds in its environment."""
    section = {"runtime_plugins": {"plugins": {f"scheduler_{name}": {"settings": own}}}}
    return {
        "LMCACHE_RUNTIME_PLUGIN_ROLE": "SCHEDULER",
        "LMCACHE_RUNTIME_PLUGIN_WORKER_ID": "-1",
        "LMCACHE_RUNTIME_PLUGIN_WORKER_COUNT": "1",
        "LMCACHE_RUNTIME_PLUGIN_NAME": f"scheduler_{name}",
        "LMCACHE_RUNTIME_PLUGIN_ENGINE_PID": str(os.getpid()),
        "LMCACHE_RUNTIME_PLUGIN_CONFIG": json.dumps({"extra_config": section}),
    }


@contextmanager
def _running(code: str, more: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python code as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **more}, stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def lines(samples: Samples) -> Sequence[Line]:
    """Return megabytes."""
    found = []
    floor = samples.median(FLOOR)
    for name in sorted({name for one in samples.repeats for name in one} - {FLOOR}):
        reached = samples.median(name)
        found.append(
            Line(
                f"idle {name.replace('_', ' ')}, MB",
                {"ours": number(reached), "bare": number(floor)},
                Target(
                    f"memory of the idle {name.replace('_', ' ')}, MB", "≤ 15 MB", reached, LIMIT
                ),
            )
        )
    return found


ROW = Row("gallery", "Memory of the ready plugins", HOW, 2, measure, lines)
