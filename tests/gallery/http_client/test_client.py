# SPDX-License-Identifier: Apache-2.0
"""The HTTP client: broken answers, kept connections, unix sockets, tunnels through proxies."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmcache_plugin_adapter.gallery.http_client.client import Client
from lmcache_plugin_adapter.gallery.http_client.errors import (
    ConnectError,
    ProxyError,
    RemoteProtocolError,
)
from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

pytestmark = pytest.mark.timeout(60)


class Scripted:
    """A server whose connections each answer their requests with the given bytes, then end.

    Args:
        answers: For each connection, the answers to its requests.
        tls: Encrypts a connection after its first answer, as behind a tunnel.
        path: A unix socket to listen at, instead of a port.
    """

    def __init__(
        self,
        answers: list[list[bytes]],
        tls: ssl.SSLContext | None = None,
        path: Path | None = None,
    ) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = threading.Semaphore(0)
        """Released when a connection has ended."""
        self._answers = answers
        self._tls = tls
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen()
            self.url = "http://localhost"

    def __enter__(self) -> Scripted:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        for answers in self._answers:
            connection, _ = self._listener.accept()
            self.connections += 1
            with contextlib.suppress(OSError):
                for number, answer in enumerate(answers):
                    if number == 1 and self._tls is not None:
                        connection = self._tls.wrap_socket(connection, server_side=True)
                    self._answer(connection, answer)
            connection.close()
            self.ended.release()

    def _answer(self, connection: socket.socket, answer: bytes) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            piece = connection.recv(65536)
            if not piece:
                return
            request += piece
        self.requests.append(request)
        connection.sendall(answer)


@pytest.fixture
def client() -> Iterator[Client]:
    """A client without proxies."""
    with Client(timeout=20) as client:
        yield client


def get(client: Client, url: str) -> bytes:
    """Return the body of an answer."""
    with client.stream("GET", url) as response:
        return b"".join(response.pieces())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    ],
)
def test_a_broken_answer_is_an_error(client: Client, answer: bytes) -> None:
    """Wherever it ends: half of the metrics are none."""
    with Scripted([[answer]]) as server, pytest.raises(RemoteProtocolError):
        get(client, server.url)


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
    ],
)
def test_the_body_of_an_answer_is_read(client: Client, answer: bytes) -> None:
    """By its length, by its chunks, or until the connection ends."""
    with Scripted([[answer]]) as server:
        assert get(client, server.url) == b"ok"


def test_a_connection_is_kept_until_the_server_closes_it(client: Client) -> None:
    """A closed one is replaced without an error."""
    with Scripted([[OK, OK], [OK]]) as server:
        assert [get(client, server.url) for _ in range(2)] == [b"ok", b"ok"]
        assert server.connections == 1
        assert server.ended.acquire(timeout=30)
        assert get(client, server.url) == b"ok"
        assert server.connections == 2


def test_a_connection_that_is_to_end_is_not_kept(client: Client) -> None:
    """Although the answer does not say that the server closes it."""
    with Scripted([[OK, OK], [OK]]) as server:
        for _ in range(2):
            with client.stream("GET", server.url, headers={"Connection": "close"}) as response:
                assert b"".join(response.pieces()) == b"ok"
        assert server.connections == 2


def test_a_connection_with_an_unread_answer_is_not_used_again(client: Client) -> None:
    """Its rest would be taken for the next answer."""
    with Scripted([[OK], [OK]]) as server:
        with client.stream("GET", server.url) as response:
            assert response.status == 200
        assert get(client, server.url) == b"ok"
        assert server.connections == 2


def test_headers_replace_those_of_the_same_name_in_any_case() -> None:
    """A header is sent once; credentials of the settings come before a header with others."""
    headers = {"user-agent": "me", "authorization": "none"}
    with Scripted([[OK]]) as server:
        target = HttpTarget(url=server.url, headers=headers, bearer_token="token")
        with target.client(proxies=False) as client:
            assert target.ask(client, "GET").accepted
    lines = server.requests[0].lower().split(b"\r\n")
    assert [line for line in lines if line.startswith(b"user-agent:")] == [b"user-agent: me"]
    named = [line for line in lines if line.startswith(b"authorization:")]
    assert named == [b"authorization: bearer token"]


def test_a_unix_socket_is_used(tmp_path: Path) -> None:
    """And an absent one cannot be connected to."""
    path = tmp_path / "s"
    with Client(timeout=20, unix_socket=str(path)) as client:
        with pytest.raises(ConnectError, match="No such file"):
            get(client, "http://localhost/x")
        with Scripted([[OK]], path=path) as server:
            assert get(client, f"{server.url}/x?y=1") == b"ok"
    assert server.requests[0].startswith(b"GET /x?y=1 HTTP/1.1\r\n")
    assert b"Host: localhost\r\n" in server.requests[0]


@pytest.mark.parametrize("host", ["192.0.2.70:8443", "[2001:db8::1]"])
def test_https_goes_through_a_tunnel(
    monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, host: str
) -> None:
    """Only the proxy sees its credentials; only the server sees the request."""
    with Scripted([[b"HTTP/1.1 200 Connection established\r\n\r\n", OK]], tls) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//me:p%40ss@"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        target = HttpTarget(url=f"https://{host}/x", verify=False, timeout=20)
        with target.client() as client:
            assert target.ask(client, "GET").accepted
    to = host if host.endswith("8443") else f"{host}:443"
    secret = base64.b64encode(b"me:p@ss")
    assert proxy.requests[0].startswith(f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n".encode())
    assert b"Proxy-Authorization: Basic " + secret in proxy.requests[0]
    assert proxy.requests[1].startswith(b"GET /x HTTP/1.1\r\n")
    assert f"Host: {host}\r\n".encode() in proxy.requests[1]
    assert secret not in proxy.requests[1]


def test_a_refused_tunnel_is_the_proxys_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the server."""
    with Scripted([[b"HTTP/1.1 407 Authenticate\r\nContent-Length: 0\r\n\r\n"]]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        target = HttpTarget(url="https://192.0.2.70", timeout=20)
        with target.client() as client, pytest.raises(ProxyError, match="407 Authenticate"):
            target.ask(client, "GET")
