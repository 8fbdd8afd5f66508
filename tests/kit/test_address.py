# SPDX-License-Identifier: Apache-2.0
"""Where a plugin's own engine answers."""

from __future__ import annotations

import http.server
import json
import os
import socket
import socketserver
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lmcache_plugin_adapter import kit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REAL = Path(__file__).parents[2] / ".venv-real" / "bin" / "python"

ON = {"internal_api_server_enabled": True}


def address(
    config: dict[str, Any], role: str = "WORKER", worker_id: int = 0
) -> kit.ApiAddress | None:
    """Return the address of a process's internal API server."""
    ctx = kit.Context(role=role, worker_id=worker_id, worker_count=8, name="x", config=config)
    return ctx.internal_api


def text(*arguments: Any) -> str | None:
    """Return it as text."""
    found = address(*arguments)
    return None if found is None else str(found)


def test_without_the_server_there_is_none() -> None:
    """It is off if nothing is said."""
    assert text({}) is None
    assert text({"internal_api_server_enabled": False}) is None
    assert text({"internal_api_server_enabled": None}) is None


def test_the_scheduler_is_first_and_the_workers_follow() -> None:
    """From the configured port, or LMCache's default."""
    assert text(ON, "SCHEDULER", -1) == "http://127.0.0.1:6999"
    assert text(ON, "WORKER", 0) == "http://127.0.0.1:7000"
    moved = {**ON, "internal_api_server_port_start": 9000}
    assert text(moved, "SCHEDULER", -1) == "http://127.0.0.1:9000"
    assert text(moved, "WORKER", 3) == "http://127.0.0.1:9004"


def test_a_scheduler_that_looks_up_by_itself_is_as_worker_0() -> None:
    """It has an engine, and LMCache counts by the engine's id."""
    config = {**ON, "enable_scheduler_bypass_lookup": True}
    assert text(config, "SCHEDULER", -1) == "http://127.0.0.1:7000"
    assert text(config, "WORKER", 0) == "http://127.0.0.1:7000"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:7000"),
        ("::", "http://[::1]:7000"),
        ("::1", "http://[::1]:7000"),
        ("10.1.2.3", "http://10.1.2.3:7000"),
        ("pod-0.example", "http://pod-0.example:7000"),
        (None, "http://127.0.0.1:7000"),
    ],
)
def test_a_host_that_means_all_is_reached_on_loopback(host: str | None, url: str) -> None:
    """Any other is taken as it is."""
    found = address({**ON, "internal_api_server_host": host})
    assert found is not None
    assert (found.url, found.socket, found.port) == (url, None, 7000)


def test_a_prefix_makes_it_a_unix_socket() -> None:
    """Its name has the port that it would have."""
    config = {**ON, "internal_api_server_socket_path_prefix": "/run/lm/api"}
    found = address(config, "SCHEDULER", -1)
    assert found is not None
    assert (found.socket, found.url) == ("/run/lm/api_6999", "http://localhost")
    assert str(found) == "unix:/run/lm/api_6999"


def test_a_list_says_who_has_one() -> None:
    """By index; an empty list means all, as in LMCache's server."""
    config = {**ON, "internal_api_server_include_index_list": [1, 3]}
    assert text(config, "SCHEDULER", -1) is None
    assert text(config, "WORKER", 0) == "http://127.0.0.1:7000"
    assert text(config, "WORKER", 1) is None
    assert text(config, "WORKER", 2) == "http://127.0.0.1:7002"
    assert text({**ON, "internal_api_server_include_index_list": []}) is not None


def test_a_multiprocess_server_answers_where_its_http_api_is() -> None:
    """It has no internal API server."""
    config = {"http_config": {"http_host": "0.0.0.0", "http_port": 8081}, **ON}
    assert text(config, "SERVER") == "http://127.0.0.1:8081"
    assert text(config, "") == "http://127.0.0.1:8081"
    assert text({}, "SERVER") is None
    assert text({"http_config": {"http_port": "x"}}, "SERVER") is None


class Answer(http.server.BaseHTTPRequestHandler):
    """Says which path was asked for."""

    def do_GET(self) -> None:
        """Answer with the path."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.path)))
        self.end_headers()
        self.wfile.write(self.path.encode())

    def address_string(self) -> str:
        """Return nothing: on a unix socket nobody has an address."""
        return ""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class UnixServer(socketserver.ThreadingUnixStreamServer):
    """On a unix socket."""

    daemon_threads = True


@pytest.fixture
def serve() -> Iterator[Callable[[socketserver.BaseServer], None]]:
    """Serve in a thread until the test ends."""
    servers: list[socketserver.BaseServer] = []

    def start(server: socketserver.BaseServer) -> None:
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_its_client_asks_there_whatever_the_proxy(
    serve: Callable[[socketserver.BaseServer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TCP; a proxy of the environment is for what is outside."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    serve(server)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    found = address({**ON, "internal_api_server_port_start": server.server_port - 1})
    assert found is not None
    with found.client(timeout=5) as client:
        assert client.get("/metrics").text == "/metrics"


def test_its_client_asks_on_a_unix_socket(
    serve: Callable[[socketserver.BaseServer], None], tmp_path: Path
) -> None:
    """As LMCache's server listens there."""
    config = {**ON, "internal_api_server_socket_path_prefix": str(tmp_path / "api")}
    serve(UnixServer(str(tmp_path / "api_7000"), Answer))
    found = address(config)
    assert found is not None
    with found.client() as client:
        assert client.get("/conf").text == "/conf"


def test_it_tells_whose_port_it_is(tmp_path: Path) -> None:
    """Of two processes, only one listens."""
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            with socket.create_server(("127.0.0.1", 0)) as server:
                port = server.getsockname()[1]
                found = kit.ApiAddress("127.0.0.1", port)
                assert found.listens_in(os.getpid()) is True
                assert found.listens_in(other.pid) is False
                assert not found.is_taken_from(os.getpid())
                assert found.is_taken_from(other.pid)
            assert not found.is_taken_from(other.pid)  # nobody listens
            assert found.listens_in(os.getpid()) is False
            with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
                found = kit.ApiAddress("::1", server.getsockname()[1])
                assert found.listens_in(os.getpid()) is True
            path = str(tmp_path / "a socket")
            found = kit.ApiAddress("127.0.0.1", 1, path)
            with socket.socket(socket.AF_UNIX) as unix:
                unix.bind(path)
                assert found.listens_in(os.getpid()) is False  # bound, not listening
                assert not found.is_taken_from(other.pid)
                unix.listen()
                assert found.listens_in(os.getpid()) is True
                assert found.listens_in(other.pid) is False
                assert found.is_taken_from(other.pid)
        finally:
            other.kill()
    assert found.listens_in(other.pid) is False  # it is gone


CASES = [
    {},
    ON,
    {**ON, "internal_api_server_port_start": 8000, "internal_api_server_host": "0.0.0.0"},
    {**ON, "internal_api_server_include_index_list": [0, 2]},
    {**ON, "internal_api_server_include_index_list": []},
    {**ON, "internal_api_server_include_index_list": [1]},
    {**ON, "internal_api_server_socket_path_prefix": "SOCKETS/api"},
]
"""Configurations on which LMCache's own server and the kit must agree."""

ASK_LMCACHE = """
import json, sys, types
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.internal_api_server.api_server import InternalAPIServer

answers = []
for values in json.loads(sys.argv[1]):
    config = LMCacheEngineConfig.from_defaults(**values)
    row = [json.loads(config.to_json())]
    for worker_id in (None, 0, 1, 2):  # None: a scheduler without an engine
        metadata = types.SimpleNamespace(worker_id=worker_id)
        engine = types.SimpleNamespace(config=config, metadata=metadata)
        engine = None if worker_id is None else engine
        server = InternalAPIServer(types.SimpleNamespace(lmcache_engine=engine, config=config))
        row.append([server.enable, server.port, server.socket_path])
    answers.append(row)
print("ANSWERS " + json.dumps(answers))
"""


@pytest.mark.timeout(400)  # importing LMCache on a busy machine
@pytest.mark.skipif(not REAL.exists(), reason="no environment with LMCache")
def test_lmcache_itself_listens_there(tmp_path: Path) -> None:
    """Its server is made for the scheduler and three workers, and says where it would listen."""
    cases = json.loads(json.dumps(CASES).replace("SOCKETS", str(tmp_path)))
    environ = {k: v for k, v in os.environ.items() if not k.startswith("LMCACHE_")}
    result = subprocess.run(
        [REAL, "-c", ASK_LMCACHE, json.dumps(cases)],
        capture_output=True,
        text=True,
        env=environ,
        cwd=tmp_path,
        timeout=180,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    (line,) = [x for x in result.stdout.splitlines() if x.startswith("ANSWERS ")]
    answers = json.loads(line.removeprefix("ANSWERS "))
    assert len(answers) == len(cases)
    for given, (config, *servers) in zip(cases, answers, strict=True):
        for worker_id, (enabled, port, path) in zip((-1, 0, 1, 2), servers, strict=True):
            role = "SCHEDULER" if worker_id < 0 else "WORKER"
            for source in (config, given):  # all of LMCache's keys; only what differs
                found = address(source, role, worker_id)
                assert (found is not None) == enabled, (given, worker_id)
                if found is not None:
                    assert (found.port, found.socket) == (port, path)
                    assert found.url.startswith(("http://127.0.0.1:", "http://localhost"))


SERVE_LMCACHE = """
import json, sys, types
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.internal_api_server.api_server import InternalAPIServer

config = LMCacheEngineConfig.from_defaults(**json.loads(sys.argv[1]))
for worker_id in (None, 0):
    metadata = types.SimpleNamespace(worker_id=worker_id)
    engine = types.SimpleNamespace(config=config, metadata=metadata)
    engine = None if worker_id is None else engine
    InternalAPIServer(types.SimpleNamespace(lmcache_engine=engine, config=config)).start()
sys.stdin.read()
"""


@pytest.mark.timeout(400)  # importing LMCache on a busy machine
@pytest.mark.skipif(not REAL.exists(), reason="no environment with LMCache")
@pytest.mark.parametrize("prefix", [None, "api"])
def test_lmcache_itself_answers_there(prefix: str | None, tmp_path: Path) -> None:
    """Its servers of a scheduler and of a worker, over TCP and on unix sockets."""
    config: dict[str, Any] = {**ON, "internal_api_server_port_start": two_free_ports()}
    if prefix:
        config["internal_api_server_socket_path_prefix"] = str(tmp_path / prefix)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("LMCACHE_")}
    log = tmp_path / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [REAL, "-c", SERVE_LMCACHE, json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            env=environ,
            cwd=tmp_path,
        ) as server,
    ):
        try:
            for role in ("SCHEDULER", "WORKER"):
                found = address(config, role)
                assert found is not None
                assert (found.socket is not None) == (prefix is not None)
                assert answer_of(found, server, log)
                assert found.listens_in(os.getpid()) is False
        finally:
            server.kill()


def two_free_ports() -> int:
    """Return a port that is free, as is the next one."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except OSError:
                continue
            return port


def answer_of(found: kit.ApiAddress, server: subprocess.Popen[bytes], log: Path) -> str:
    """Return LMCache's version as the server says it, once it listens."""
    deadline = time.monotonic() + 180
    while not found.listens_in(server.pid):
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    with found.client() as client:
        return client.get("/lmc_version").raise_for_status().text
