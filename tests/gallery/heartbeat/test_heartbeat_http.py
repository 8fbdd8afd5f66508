# SPDX-License-Identifier: Apache-2.0
"""The heartbeat's pings at a receiver that checks them."""

from __future__ import annotations

import base64
import http.server
import itertools
import json
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from harness import wait_until
from heartbeats import SECTION, settings_for
from http_stub import HttpStub
from plugins import HEARTBEAT
from vllm_stub import VllmStub

from lmcache_plugin_adapter.kit.testing.trial import Trial

RunPlugin = Callable[..., Trial]


class Request(NamedTuple):
    """One request as it came."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver(HttpStub):
    """Keeps all requests."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.status = 200

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        """Return the class that answers."""
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if receiver.keeps_silent():
                    return
                receiver.requests.append(
                    Request(
                        time.monotonic(), self.command, self.path, dict(self.headers.items()), body
                    )
                )
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 - as the base class asks

            def log_message(self, *args: object) -> None:
                pass

        return Handler

    def paths(self, since: int = 0) -> list[str]:
        """Return what was asked for."""
        return [request.path for request in self.requests[since:]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that does not listen yet."""
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture
def vllm() -> Iterator[VllmStub]:
    """The HTTP server of vLLM."""
    with VllmStub() as vllm:
        yield vllm


@pytest.fixture
def start(run_plugin: RunPlugin, vllm: VllmStub, receiver: Receiver) -> RunPlugin:
    """Start the plugin with pings; arguments are settings of those."""

    def start(more: dict[str, Any] | None = None, **target: Any) -> Trial:
        http = {
            "url": receiver.url + "/ping/uuid",
            "fail_url": receiver.url + "/ping/uuid/fail",
            "stop_url": receiver.url + "/ping/uuid/stop",
            "interval": 0.5,
            **target,
        }
        return run_plugin(HEARTBEAT, settings=settings_for(vllm, http=http, **(more or {})))

    return start


def test_pings_come_in_time_and_the_end_is_told(start: RunPlugin, receiver: Receiver) -> None:
    """GET without a body, at a fixed rate."""
    receiver.start()
    plugin = start()
    wait_until(lambda: len(receiver.requests) >= 7, 20)
    assert plugin.stop() == 0
    *pings, end = receiver.requests
    assert end.path == "/ping/uuid/stop"
    assert {(r.method, r.path, r.body) for r in pings} == {("GET", "/ping/uuid", b"")}
    assert "Content-Type" not in pings[0].headers
    gaps = [late.at - early.at for early, late in itertools.pairwise(pings)]
    # Of all of them: a busy machine may delay some, and what follows those comes sooner.
    assert 0.5 - 0.15 < statistics.median(gaps) < 0.5 + 0.15


def test_it_runs_by_the_name_of_its_entry_point(
    run_plugin: RunPlugin, receiver: Receiver, vllm: VllmStub
) -> None:
    """As in the examples."""
    receiver.start()
    http = {"url": receiver.url + "/ping", "interval": 0.5}
    plugin = run_plugin("pkg:scheduler_heartbeat", settings=settings_for(vllm, http=http))
    wait_until(lambda: receiver.requests, 20)
    assert plugin.stop() == 0


def test_a_body_is_sent_as_json(start: RunPlugin, receiver: Receiver) -> None:
    """What stands in the settings, or what is registered elsewhere with the engine's state."""
    receiver.start()
    own = {"text": "up", "n": [1, 2], "$x": "{{ .Y }}"}
    plugin = start(method="POST", body=own, headers={"X-Own": "1"})
    first = wait_until(lambda: receiver.requests, 20)[0]
    plugin.stop()
    assert json.loads(first.body) == own
    assert first.headers["Content-Type"] == "application/json"
    assert first.headers["X-Own"] == "1"
    since = len(receiver.requests)
    plugin = start(method="PUT")
    found = wait_until(lambda: receiver.requests[since:], 20)[0]
    body = json.loads(found.body)
    assert (found.method, body["instance"], body["state"]) == ("PUT", "one", "ok")
    plugin.engine.signal(signal.SIGSTOP)
    fail = wait_until(lambda: [r for r in receiver.requests if r.path.endswith("/fail")], 20)[0]
    body = json.loads(fail.body)
    assert body["state"] == "stopped"
    assert body["reason"].startswith(f"engine process {plugin.engine.pid} is stopped")


def test_a_stuck_engine_is_not_pinged_for_and_told_once(
    start: RunPlugin, receiver: Receiver
) -> None:
    """Silence is what the other end goes by; pings come again when the engine does."""
    receiver.start()
    plugin = start({"deregister_after": 600})
    wait_until(lambda: receiver.requests, 20)
    plugin.engine.signal(signal.SIGSTOP)
    wait_until(lambda: "/ping/uuid/fail" in receiver.paths(), 20)
    told = len(receiver.requests)
    time.sleep(2)  # four pings' time
    assert receiver.paths(told) == []
    plugin.engine.signal(signal.SIGCONT)
    wait_until(lambda: receiver.paths(told)[:2] == ["/ping/uuid"] * 2, 20)
    assert receiver.paths().count("/ping/uuid/fail") == 1


def test_a_failure_is_told_without_waiting_to_deregister(
    start: RunPlugin, receiver: Receiver
) -> None:
    """There is nothing to take back at a URL."""
    receiver.start()
    plugin = start()
    wait_until(lambda: receiver.requests, 20)
    plugin.engine.signal(signal.SIGSTOP)
    wait_until(lambda: "/ping/uuid/fail" in receiver.paths(), 20)


def test_a_killed_engine_is_told_in_the_grace_period(start: RunPlugin, receiver: Receiver) -> None:
    """SIGTERM comes, and two last requests go out: that it failed, and that pings have ended."""
    receiver.start()
    plugin = start(method="POST")
    wait_until(lambda: receiver.requests, 20)
    plugin.engine.kill()
    assert plugin.wait_exit() == 0
    *_, failed, ended = receiver.requests
    assert (failed.path, ended.path) == ("/ping/uuid/fail", "/ping/uuid/stop")
    for last in (failed, ended):
        body = json.loads(last.body)
        assert body["state"] == "dead"
        assert f"engine process {plugin.engine.pid} " in body["reason"]


def test_the_end_is_told_though_the_failure_is_not_taken(
    start: RunPlugin, receiver: Receiver
) -> None:
    """A wrong ``fail_url`` is the fault of nobody else."""
    receiver.start()
    plugin = start(fail_url="http://127.0.0.1:1/s3cret")
    wait_until(lambda: receiver.requests, 20)
    plugin.engine.kill()
    assert plugin.wait_exit() == 0
    plugin.wait_for("Cannot report that the engine is dead: ConnectError")
    assert receiver.paths()[-1] == "/ping/uuid/stop"
    assert "s3cret" not in plugin.log


def test_an_orderly_end_is_no_failure(start: RunPlugin, receiver: Receiver) -> None:
    """Only that pings have ended is told."""
    receiver.start()
    plugin = start(method="POST")
    wait_until(lambda: receiver.requests, 20)
    assert plugin.stop() == 0
    assert "/ping/uuid/fail" not in receiver.paths()
    assert json.loads(receiver.requests[-1].body)["state"] == "ended"


def test_credentials_are_for_the_server_of_the_url_only(
    start: RunPlugin, receiver: Receiver, tmp_path: Path
) -> None:
    """Another one, at another port, gets neither them nor the headers."""
    receiver.start()
    other = Receiver()
    other.start()
    try:
        file = tmp_path / "token"
        file.write_text("open-sesame\n")
        plugin = start(
            bearer_token_file=str(file), headers={"X-Own": "1"}, fail_url=other.url + "/fail"
        )
        wait_until(lambda: receiver.requests, 20)
        plugin.engine.kill()
        assert plugin.wait_exit() == 0
    finally:
        other.stop()
    assert receiver.paths()[-1] == "/ping/uuid/stop"
    for request in receiver.requests:
        assert request.headers["Authorization"] == "Bearer open-sesame"
        assert request.headers["X-Own"] == "1"
    (failed,) = other.requests
    assert not {"Authorization", "X-Own"} & set(failed.headers)


def test_a_receiver_may_come_later_and_be_away(start: RunPlugin, receiver: Receiver) -> None:
    """Each trouble is said once, and its end."""
    plugin = start()
    plugin.wait_for("Cannot ping: ConnectError")
    receiver.start()
    wait_until(lambda: len(receiver.requests) >= 2, 20)
    plugin.wait_for("http has answered again")
    before = len(plugin.lines)
    receiver.stop()
    # A ping that is on its way at this moment is reset instead.
    plugin.wait_for(re.compile(r"Cannot ping: \w+Error"), since=before)
    came = len(receiver.requests)
    receiver.start()
    wait_until(lambda: len(receiver.requests) > came, 20)
    plugin.wait_for("http has answered again", since=before)
    loud = [r for r in plugin.lines if "Cannot ping" in r.text and r.level != "debug"]
    assert len(loud) == 2


def test_a_slow_receiver_is_waited_for_and_sigterm_ends_in_time(
    start: RunPlugin, receiver: Receiver
) -> None:
    """It accepts connections and does not answer."""
    receiver.start()
    plugin = start()
    wait_until(lambda: receiver.requests, 20)
    receiver.silent.set()
    plugin.wait_for("Cannot ping: no answer in time")
    begun = time.monotonic()
    assert plugin.stop() == 0
    assert time.monotonic() - begun < 7  # 0: it was not killed when its 5 s were over
    plugin.wait_for("Cannot report that pings have ended: no answer in time")


def test_credentials_go_along_and_are_never_shown(
    start: RunPlugin, receiver: Receiver, tmp_path: Path
) -> None:
    """A refusal is an error that says what the receiver said."""
    receiver.start()
    receiver.status = 401
    file = tmp_path / "password"
    file.write_text("open sesame\n")
    plugin = start(username="ali", password_file=str(file))
    line = plugin.wait_for("Cannot ping: HTTP 401 Unauthorized")
    assert line.level == "error"
    receiver.status = 200
    plugin.wait_for("http has answered again")
    sent = receiver.requests[0].headers["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")) == b"ali:open sesame"
    assert "sesame" not in plugin.log
    assert sent not in plugin.log


def test_other_codes_may_mean_success(start: RunPlugin, receiver: Receiver) -> None:
    """And then 200 does not."""
    receiver.start()
    plugin = start(success=[202])
    plugin.wait_for("Cannot ping: HTTP 200 OK")
    receiver.status = 202
    plugin.wait_for("The first ping was accepted")


def test_malformed_settings_are_said_with_their_full_keys(
    start: RunPlugin, receiver: Receiver
) -> None:
    """Others stay in force."""
    receiver.start()
    plugin = start(method="PATCH", success=["all"], timeout=7)
    wait_until(lambda: receiver.requests, 20)
    assert receiver.requests[0].method == "GET"
    plugin.wait_for(f"'{SECTION}.http.method'")
    plugin.wait_for(f"'{SECTION}.http.success")
    plugin.wait_for(f"Cannot use setting '{SECTION}.http.timeout': found 7, accepted is at most")
