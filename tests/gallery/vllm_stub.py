# SPDX-License-Identifier: Apache-2.0
"""What stands in for vLLM's HTTP server, and for LMCache's internal API, in the gallery's tests."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from types import TracebackType

from harness import wait_until
from servers import free_port, listens

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="m"}} {running}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{{engine="0",model_name="m",reason="capacity"}} 7.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} {usage}
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{{engine="0",model_name="m"}} {prompt}
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{{engine="0",model_name="m"}} 1.7637372e+09
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{engine="0",model_name="m"}} {generation}
"""


OTHERS = b"# TYPE python_gc_objects_collected counter\npython_gc_objects_collected 5.0\n"


class VllmStub:
    """vLLM's ``/health`` and ``/metrics`` in a thread of the test, to be set as a test likes."""

    def __init__(self) -> None:
        self.status = 200
        self.metrics_status: int | None = None
        """Status of ``/metrics``; None: as that of the other paths."""
        self.statistics = True
        """Whether there are metrics of vLLM: not with ``--disable-log-stats``."""
        self.silent = threading.Event()
        self.values = {"running": 0.0, "waiting": 0.0, "usage": 0.0, "prompt": 0.0}
        self.values["generation"] = 0.0
        self.asked = 0
        self.hanging = threading.Event()
        self.posted: list[bytes] = []
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.asked += 1
                if stub.silent.is_set():
                    stub.ending.wait(60)
                    return
                body, status = b"", stub.status
                if self.path == "/metrics":
                    status = stub.metrics_status or status
                    body = METRICS.format(**stub.values).encode() if stub.statistics else OTHERS
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                stub.posted.append(self.rfile.read(int(self.headers["Content-Length"])))
                while stub.hanging.is_set() and not stub.ending.wait(0.02):
                    pass
                self.send_response(stub.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.ending = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> VllmStub:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ending.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


_ENGINE = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/version" else 404)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class EngineStub:
    """A process with an internal API, as an engine process is one."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process = subprocess.Popen([sys.executable, "-c", _ENGINE, str(self.port)])
        self.pid = self.process.pid

    def config(self) -> dict[str, object]:
        """LMCache's configuration, for a plugin of the scheduler."""
        return {
            "internal_api_server_enabled": True,
            "internal_api_server_host": "127.0.0.1",
            "internal_api_server_port_start": self.port,
        }

    def __enter__(self) -> EngineStub:
        wait_until(lambda: listens(self.port), 30)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
