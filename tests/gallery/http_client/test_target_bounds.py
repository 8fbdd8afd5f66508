# SPDX-License-Identifier: Apache-2.0
"""What a server over HTTP can do to a plugin: take its time, and have its words in a log."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import msgspec
import pytest
from harness import wait_until
from metric_stubs import Gate

from lmcache_plugin_adapter.gallery.heartbeat.settings import Consul
from lmcache_plugin_adapter.gallery.http_client.answer import Answer, failure
from lmcache_plugin_adapter.gallery.http_client.client import Client
from lmcache_plugin_adapter.gallery.http_client.deadline import Deadline
from lmcache_plugin_adapter.gallery.http_client.errors import (
    ConnectTimedOutError,
    HeaderError,
    TimedOutError,
)
from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget
from lmcache_plugin_adapter.gallery.log_reporter.settings import LokiTarget

SECRET = "s3cret-Value"

pytestmark = pytest.mark.timeout(60)


class Dripping:
    """A server whose answer's header comes byte by byte, after as many that are whole."""

    def __init__(self, whole: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.ending = threading.Event()
        self.connections = 0
        self._whole = whole
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Dripping:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                while connection.recv(65536):
                    if self._whole:
                        self._whole -= 1
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                        continue
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                    while not self.ending.wait(0.05):
                        connection.sendall(b"x")
                    return


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("whole", [0, 1])
def test_a_header_that_drips_is_given_up_in_time(
    whole: int, encrypted: bool, tls: ssl.SSLContext
) -> None:
    """On a new connection, and on one that was kept; each byte comes in time."""
    with Dripping(whole, tls if encrypted else None) as server:
        target = HttpTarget(url=server.url, timeout=1.0, verify=False)
        with target.client() as client:
            for _ in range(whole):
                assert target.ask(client, "GET").accepted
            begun = time.monotonic()
            with pytest.raises(TimedOutError) as error:
                target.ask(client, "GET")
            assert 0.9 < time.monotonic() - begun < 8
            assert failure(error.value) == "no answer in time"
        assert server.connections == 1


def test_a_deadline_may_be_brought_forward_and_harms_no_later_request() -> None:
    """By another thread, as when a plugin is to end."""
    with Gate() as gate:
        target = HttpTarget(url=gate.url)
        gate.delay = 50
        deadline = Deadline(40)
        with target.client() as client:
            threading.Timer(0.3, lambda: deadline.bring_forward(time.monotonic())).start()
            begun = time.monotonic()
            with pytest.raises(TimedOutError):
                target.ask(client, "POST", timeout=40, deadline=deadline)
            assert time.monotonic() - begun < 20
            gate.delay = 0
            assert target.ask(client, "POST").accepted


def test_a_deadline_that_passes_before_there_is_a_connection() -> None:
    """Nothing waits for bytes of a connection that is opened later."""
    deadline = Deadline(0)
    with deadline.enforced(), socket.socket() as connection:
        wait_until(lambda: deadline.passed, 30, "the deadline")
        with pytest.raises(ConnectTimedOutError):
            deadline.watch(connection)


def test_an_answer_without_a_length_that_the_deadline_cuts_is_not_complete() -> None:
    """The deadline's shutdown looks like the server's end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        deadline = Deadline(40)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhalf")
                while connection.recv(65536):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        with (
            Client(timeout=40) as client,
            client.stream("GET", url, deadline=deadline) as response,
        ):
            pieces = response.pieces()
            assert next(pieces) == b"half"
            deadline.bring_forward(time.monotonic())
            with pytest.raises(TimedOutError):
                next(pieces)
        assert not response.complete


@pytest.mark.parametrize("name", ["X-Scope-OrgID:", "", "a b", "é"])
def test_names_that_no_header_may_have_are_refused(name: str) -> None:
    """In the settings, and in a request."""
    with pytest.raises(msgspec.ValidationError, match="no header may have"):
        msgspec.convert({"url": "http://h", "headers": {name: "x"}}, HttpTarget)
    target = HttpTarget(url="http://127.0.0.1:1")
    with target.client() as client, pytest.raises(HeaderError):
        target.ask(client, "GET", headers={name: "x"})


def test_a_host_that_no_address_may_have_is_refused() -> None:
    """Before http.client refuses it in a request."""
    with pytest.raises(msgspec.ValidationError, match="url is no address"):
        msgspec.convert({"url": "http://x\x01y/"}, HttpTarget)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Consul, {"token": f"{SECRET} "}),
        (Consul, {"token": f"{SECRET}€"}),
        (LokiTarget, {"tenant": f" {SECRET}"}),
    ],
)
def test_tokens_and_tenants_that_no_header_may_have_are_refused(
    kind: type[HttpTarget], settings: dict[str, str]
) -> None:
    """Before they are in a request, whose error would show them."""
    with pytest.raises(msgspec.ValidationError, match="no header may have") as error:
        msgspec.convert({"url": "http://h", **settings}, kind)
    assert SECRET not in str(error.value)


def test_a_header_that_cannot_be_sent_is_not_shown() -> None:
    """Neither in the error nor in its text."""
    with Gate() as gate:
        target = HttpTarget(url=gate.url)
        with target.client() as client, pytest.raises(HeaderError) as error:
            target.ask(client, "GET", headers={"X-Key": f"{SECRET} "})
        assert SECRET not in str(error.value)
        assert failure(error.value) == "a header has invalid characters"


def test_what_a_server_says_in_its_own_format_is_cut_cleaned_and_without_secrets() -> None:
    """As the answer's text is."""
    with Gate() as gate:
        target = HttpTarget(url=gate.url, bearer_token=SECRET)
        with target.client() as client:
            answer = target.ask(client, "GET")
        shown = answer.quote(f"token {SECRET}\n\x1b[2J" + "x" * 5000)
        assert shown.startswith("token *** ?[2Jxxx")
        assert len(shown) < 210
        assert SECRET not in repr(answer)
        assert SECRET not in str(answer.__rich_repr__())  # type: ignore[attr-defined]
    assert Answer(200, "OK", "").quote("a\tb") == "a b"
