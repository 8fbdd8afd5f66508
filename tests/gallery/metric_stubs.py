# SPDX-License-Identifier: Apache-2.0
"""An engine's metrics endpoint, and what stands between the metric reporter and its targets."""

from __future__ import annotations

import base64
import http.server
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import cramjam
import httpx
from metric_servers import LOOKS
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from servers import free_port

from lmcache_plugin_adapter.gallery.metric_reporter.targets.remote_write_schema import WriteRequest

PLUGIN = "reporter_of_test:main"
"""The reporter of an engine that answers in this process: it reads no other's."""

ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(
        filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
    ),
    "REPORTER_OF_TEST": str(os.getpid()),
}
"""What it needs."""


def report_worker(
    run_plugin: Callable[..., Any], engine: EngineMetrics, grace: float, **settings: Any
) -> Any:
    """Run the reporter on worker 0 of ``engine``, with an impatient test's interval."""
    return run_plugin(
        PLUGIN,
        role="worker",
        name="worker_metric_reporter",
        config=engine.config,
        settings={"interval": 0.25, **settings},
        env=ENVIRONMENT,
        stop_grace=grace,
    )


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Service:
    """A server in a thread of the test."""

    def __init__(self) -> None:
        self.ending = threading.Event()
        self._server: _Quiet | None = None
        self.port = free_port()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        raise NotImplementedError

    def start(self) -> None:
        """Listen; again on the same port after ``stop``."""
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                service.answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815 - http.server's names

            def log_message(self, *args: object) -> None:
                pass

        self._server = _Quiet(("127.0.0.1", self.port), Handler)
        self.ending.clear()
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        self.ending.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def reply(
    handler: http.server.BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> None:
    """Send an answer."""
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


class EngineMetrics(_Service):
    """LMCache's ``/metrics``: each reading gets the next number, and is remembered.

    ``looks_total`` counts the readings, so a target must have 1, 2, 3, …
    """

    def __init__(self) -> None:
        super().__init__()
        self.served = 0
        self.silent = threading.Event()
        self.status = 200
        self.padding = b""
        registry = CollectorRegistry()
        labels = {"model_name": "m", "worker_id": "0", "role": "scheduler"}
        self._looks = Counter("lmcache:looks", "Readings.", list(labels), registry=registry)
        self._usage = Gauge("lmcache:usage", "Changes.", list(labels), registry=registry)
        self._seconds = Histogram(
            "lmcache:seconds", "Time.", list(labels), buckets=(0.1, 1.0), registry=registry
        )
        self._labels = labels
        self._registry = registry
        self._lock = threading.Lock()

    @property
    def config(self) -> dict[str, Any]:
        """LMCache's configuration of an engine whose worker 0 answers here."""
        return {
            "internal_api_server_enabled": True,
            "internal_api_server_host": "127.0.0.1",
            "internal_api_server_port_start": self.port - 1,
        }

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answer a reading, or not."""
        if self.silent.is_set():
            self.ending.wait(60)
            return
        if handler.path != "/metrics" or self.status != 200:
            reply(handler, 404 if self.status == 200 else self.status)
            return
        with self._lock:
            self.served += 1
            self._looks.labels(**self._labels).inc()
            self._usage.labels(**self._labels).set(self.served / 4)
            self._seconds.labels(**self._labels).observe(self.served % 3)
            body = generate_latest(self._registry) + self.padding
        reply(handler, 200, body, {"Content-Type": "text/plain"})


class Request(NamedTuple):
    """What came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    moment: float


class Gate(_Service):
    """A target of its own, or a proxy before a real one, that can misbehave in every way.

    Args:
        upstream: Where requests go on to; None: it answers itself.
        authorization: The header without which it answers 401.
    """

    def __init__(self, upstream: str | None = None, authorization: str | None = None) -> None:
        super().__init__()
        self.upstream = upstream
        self.authorization = authorization
        self.requests: list[Request] = []
        """All that came."""
        self.accepted: list[Request] = []
        """Those that were answered with 2xx, or would have been."""
        self.status: int | None = None
        """Answer this instead."""
        self.headers: dict[str, str] = {}
        self.answer_body = b""
        self.delay = 0.0
        self.lose_answers = 0
        """As many requests are taken, and hung up on without an answer."""

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answer as told to."""
        length = int(handler.headers.get("Content-Length") or 0)
        request = Request(
            handler.command,
            handler.path,
            {name.lower(): value for name, value in handler.headers.items()},
            handler.rfile.read(length),
            time.monotonic(),
        )
        # As set when the request came: who sees it in the list may set something else at once.
        delay, status, headers = self.delay, self.status, self.headers
        self.requests.append(request)
        if delay and self.ending.wait(delay):
            return
        if self.authorization and request.headers.get("authorization") != self.authorization:
            reply(handler, 401, f"no: {request.headers.get('authorization')}".encode())
            return
        if status is not None:
            reply(handler, status, self.answer_body, headers)
            return
        status, body = 200, self.answer_body
        if self.upstream is not None:
            kept = ("content-type", "content-encoding", "x-prometheus-remote-write-version")
            found = httpx.request(
                request.method,
                self.upstream + request.path,
                content=request.body,
                headers={n: v for n, v in request.headers.items() if n in kept},
                timeout=10,
                trust_env=False,
            )
            status, body = found.status_code, found.content
        if 200 <= status < 300:
            self.accepted.append(request)
        if self.lose_answers > 0:
            self.lose_answers -= 1
            handler.close_connection = True
            handler.connection.shutdown(2)
            return
        reply(handler, status, body)


def basic(name: str, password: str) -> str:
    """Return the header of basic authentication."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def looks(gate: Gate) -> list[float]:
    """Return the readings that a gate let through, in the order of their arrival."""
    found = []
    for request in list(gate.accepted):
        message = WriteRequest.FromString(bytes(cramjam.snappy.decompress_raw(request.body)))
        for series in message.timeseries:
            if any(one.name == "__name__" and one.value == LOOKS for one in series.labels):
                found += [sample.value for sample in series.samples if sample.value == sample.value]
    return found
