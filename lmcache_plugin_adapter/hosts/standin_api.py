# SPDX-License-Identifier: Apache-2.0
"""The HTTP servers of a stand-in: LMCache's internal API and vLLM's, or that of LMCache's server.

Runs in the stand-in of ``lmcache-plugins run``, for plugins that check or read their engine. The
values are those of an engine without requests.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lmcache_plugin_adapter.contract.identity import ProcessIdentity

HOST = "127.0.0.1"
VLLM_PORT = 8000
"""The default port of vLLM's HTTP server."""

_INTERNAL_API = "internal_api_server_"
_FIRST_PORT = 6999
_PATHS = ("/health", "/healthcheck", "/version", "/lmc_version", "/status")
_TEXTS = dict.fromkeys(_PATHS, '"stand-in"')
_SERVER_TEXTS = {
    **_TEXTS,
    "/healthcheck": '{"status": "healthy"}',
    "/status": '{"is_healthy": true, "storage_manager": {"is_healthy": true}}',
}
_BEGUN = time.time()
_VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="stand-in"} 0.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="stand-in"} 0.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="stand-in"} 0.0
# HELP vllm:generation_tokens Number of generation tokens processed.
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{engine="0",model_name="stand-in"} 0.0
"""
_PROCESS = """\
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds {begun}
"""


def serve(identity: ProcessIdentity, config_json: str) -> None:
    """Serve the HTTP APIs that the host of this configuration has.

    LMCache's server has one. An engine has the internal API if the configuration enables it; the
    scheduler then serves vLLM's, too. Skip a port that another process uses.
    """
    config = json.loads(config_json)
    if not isinstance(config, dict):
        return
    http = config.get("http_config")
    if isinstance(http, dict) and "mp_config" in config:
        port = http.get("http_port")
        if not isinstance(port, int) or not _listen(port, _ServerHandler):
            text = f"the stand-in serves no HTTP API: cannot listen on port {port} of {HOST}"
            print(f"note: {text}", file=sys.stderr, flush=True)
        return
    if config.get(f"{_INTERNAL_API}enabled") is not True:
        return
    first = config.get(f"{_INTERNAL_API}port_start")
    port = (first if isinstance(first, int) else _FIRST_PORT) + identity.worker_id + 1
    for number in [port, VLLM_PORT] if identity.worker_id < 0 else [port]:
        _listen(number, _Handler)


def _listen(port: int, handler: type[_Handler]) -> bool:
    try:
        server = http.server.ThreadingHTTPServer((HOST, port), handler)
    except (OSError, OverflowError):
        return False
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return True


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answer the paths that plugins read."""

    metrics, texts = _VLLM, _TEXTS

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, self.metrics + _PROCESS.format(begun=_BEGUN))
        elif path in self.texts:
            self._answer(200, self.texts[path] + "\n")
        else:
            self._answer(404, "not found\n")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class _ServerHandler(_Handler):
    """Answer for LMCache's server, whose status is JSON, and which has no metrics of vLLM."""

    metrics, texts = "", _SERVER_TEXTS
