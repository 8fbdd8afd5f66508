# SPDX-License-Identifier: Apache-2.0
"""A server over HTTP: addresses, credentials, certificates, answers; secrets stay secret."""

from __future__ import annotations

import datetime as dt
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from metric_stubs import Gate, basic
from servers import Server

from lmcache_plugin_adapter.gallery.http_client.answer import (
    Answer,
    TargetError,
    failure,
    read_retry_after,
)
from lmcache_plugin_adapter.gallery.http_client.errors import ConnectError, HttpError, TimedOutError
from lmcache_plugin_adapter.gallery.http_client.target import ANSWER_BYTES, HttpTarget

SECRET = "s3cret-Value"


def target(**settings: Any) -> HttpTarget:
    """Return a target as the settings make it."""
    return msgspec.convert(settings, HttpTarget)


def ask(one: HttpTarget, path: str = "", **options: Any) -> Answer:
    """Send one request."""
    with one.client() as client:
        return one.ask(client, "POST", path, **options)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A server."""
    with Gate() as gate:
        yield gate


@pytest.mark.parametrize(
    ("url", "path", "expected"),
    [
        ("http://h", "", "http://h"),
        ("http://h/a/b?x=1", "", "http://h/a/b?x=1"),
        ("http://h/a/", "/b%2Fc", "http://h/a/b%2Fc"),
        ("http://h/a?x=1", "/b", "http://h/a/b?x=1"),
        ("http://me:pw@h:1/", "/b", "http://h:1/b"),
    ],
)
def test_paths_are_below_the_url(url: str, path: str, expected: str) -> None:
    """The query stays, credentials do not."""
    assert target(url=url).at(path) == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"url": f"http://me:{SECRET}@127.0.0.1:1/?token={SECRET}"},
        {"url": "http://127.0.0.1:1", "username": "me", "password": SECRET},
        {"url": "http://127.0.0.1:1", "bearer_token": SECRET},
        {"url": "http://127.0.0.1:1", "headers": {"X-Api-Key": SECRET}},
    ],
)
def test_secrets_are_in_no_text(settings: dict[str, Any]) -> None:
    """Neither what it is shown as, nor an error."""
    one = target(**settings)
    with pytest.raises(HttpError) as error:
        ask(one)
    for text in (repr(one), str(one), one.shown, failure(error.value), f"{one.__rich_repr__()}"):
        assert SECRET not in text


def test_a_secret_that_the_server_says_back_is_hidden(gate: Gate) -> None:
    """In whatever form it was sent."""
    gate.status = 403
    token = basic("me", SECRET).split()[1]
    gate.answer_body = f"you sent {token}, that is {SECRET}, key {SECRET}-too".encode()
    answer = ask(target(url=gate.url, username="me", password=SECRET))
    assert SECRET not in repr(answer)
    assert token not in repr(answer)
    assert SECRET not in answer.body
    assert "you sent ***" in answer.body


def test_a_key_in_query_path_or_header_that_the_server_says_back_is_hidden(gate: Gate) -> None:
    """As debugging pages do, which show the whole request."""

    class Hook(HttpTarget):
        path_is_secret = True

    gate.status = 500
    gate.answer_body = f"/hook/{SECRET}-path?key={SECRET} with X-Token: {SECRET}2".encode()
    hook = Hook(url=f"{gate.url}/hook/{SECRET}-path?key={SECRET}")
    answer = ask(hook, headers={"X-Token": f"{SECRET}2", "Content-Type": "text/plain"})
    assert answer.body == "***?key=*** with X-Token: ***"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "ftp://h"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://h:99999999"}, "has an invalid port"),
        ({"url": f"http://me:{SECRET}@h:x"}, "url is no address"),
        ({"url": "http://h", "password": SECRET}, "password needs username"),
        (
            {"url": "http://h", "username": "a", "password": SECRET, "password_file": "/x"},
            "not both",
        ),
        ({"url": "http://h", "username": "a", "bearer_token": SECRET}, "not both"),
        ({"url": "http://h", "bearer_token": f"{SECRET}\nX: y"}, "no header may have"),
        ({"url": "http://h", "headers": {"A": f"{SECRET}\r\n"}}, "no header may have"),
        ({"url": "http://h", "bearer_token": f"{SECRET} "}, "no header may have"),
        ({"url": "http://h", "headers": {"X-Api-Key": f" {SECRET}"}}, "no header may have"),
        ({"url": "http://h", "key_file": "/x"}, "key_file needs cert_file"),
        ({"url": "http://h", "timeout": 0}, "timeout"),
    ],
)
def test_what_cannot_be_is_refused_without_showing_it(settings: dict[str, Any], said: str) -> None:
    """By key."""
    with pytest.raises(msgspec.ValidationError, match=said) as error:
        target(**settings)
    assert SECRET not in str(error.value)


def test_credentials_are_read_from_their_files_for_each_request(gate: Gate, tmp_path: Path) -> None:
    """So that they may be rotated."""
    path = tmp_path / "token"
    path.write_text("one\n")
    one = target(url=gate.url, bearer_token_file=str(path))
    with one.client() as client:
        one.ask(client, "GET")
        path.write_text("two")
        one.ask(client, "GET")
        path.write_text("")
        with pytest.raises(TargetError, match="it is empty"):
            one.ask(client, "GET")
        path.write_text(f"{SECRET}\n{SECRET}")
        with pytest.raises(TargetError, match="more than one line") as error:
            one.ask(client, "GET")
        path.unlink()
        with pytest.raises(TargetError, match="cannot read bearer_token_file") as gone:
            one.ask(client, "GET")
    assert SECRET not in failure(error.value)
    assert str(path) in failure(gone.value)
    sent = [request.headers["authorization"] for request in gate.requests]
    assert sent == ["Bearer one", "Bearer two"]


def test_credentials_in_the_url_and_headers_are_sent(gate: Gate) -> None:
    """The URL that is asked for has none."""
    url = gate.url.replace("http://", "http://me:p%40ss@")
    assert ask(target(url=url, headers={"X-Scope-OrgID": "t"}), "/x").accepted
    (request,) = gate.requests
    assert request.headers["authorization"] == basic("me", "p@ss")
    assert request.headers["x-scope-orgid"] == "t"
    assert request.path == "/x"


@pytest.mark.parametrize(
    ("status", "accepted", "final"),
    [(204, True, False), (400, False, True), (413, False, True), (422, False, True)]
    + [(n, False, False) for n in (301, 401, 403, 404, 405, 408, 425, 429, 500, 503)],
)
def test_answers_are_told_apart(gate: Gate, status: int, accepted: bool, final: bool) -> None:
    """What is there, what may be tried again, and what may not."""
    gate.status = status
    answer = ask(target(url=gate.url))
    assert (answer.accepted, answer.refuses_content) == (accepted, final)


@pytest.mark.parametrize("status", [404, 405])
def test_an_unknown_address_is_explained(gate: Gate, status: int) -> None:
    """With the requested address and a right one, without credentials and query."""
    gate.status = status

    class Known(HttpTarget, kw_only=True):
        example: ClassVar[str] = "http://known:1"

    url = gate.url.replace("//", "//me:hidden@") + "/base?key=hidden-too"
    text = str(ask(msgspec.convert({"url": url}, Known), path="/v1/x"))
    assert f"requested was {gate.url}/base/v1/x; url should look like 'http://known:1'" in text
    assert "hidden" not in text


def test_a_redirect_shows_the_new_address(gate: Gate) -> None:
    """A redirected request is not followed: it may lose its body."""
    gate.status = 301
    gate.headers = {"Location": "https://other.example/x?key=hidden"}
    text = str(ask(target(url=gate.url)))
    assert "redirects to https://other.example/x: set url accordingly" in text


@pytest.mark.parametrize(
    ("url", "path", "asked"),
    [
        ("", "/v1/logs", "/v1/logs"),
        ("/", "/v1/logs", "/v1/logs"),
        ("/v1", "/v1/logs", "/v1/logs"),
        ("/v1/logs", "/v1/logs", "/v1/logs"),
        ("/v1/logs/", "/v1/logs", "/v1/logs"),
        ("/otlp", "/v1/logs", "/otlp/v1/logs"),
        ("/otlp/v1/logs?x=1", "/v1/logs", "/otlp/v1/logs?x=1"),
        ("/loki", "/loki/api/v1/push", "/loki/api/v1/push"),
        ("/metrics", "/metrics/job/a%2Fb", "/metrics/job/a%2Fb"),
        ("/am", "/api/v2/alerts", "/am/api/v2/alerts"),
        ("/api/v1/alerts", "/api/v2/alerts", "/api/v1/alerts/api/v2/alerts"),
        ("/hook?x=1", "", "/hook?x=1"),
    ],
)
def test_an_address_is_completed_and_never_doubled(
    gate: Gate, url: str, path: str, asked: str
) -> None:
    """A base address, one with a prefix, and a whole one."""
    ask(target(url=gate.url + url), path=path)
    assert gate.requests[-1].path == asked


def test_an_answer_without_end_is_cut(gate: Gate) -> None:
    """Only its beginning is of use."""
    gate.answer_body = b"x" * (4 * ANSWER_BYTES)
    answer = ask(target(url=gate.url))
    assert len(answer.raw) == ANSWER_BYTES
    assert len(str(answer)) < 300
    gate.answer_body = b"two\nlines\x07"
    assert str(ask(target(url=gate.url))) == "HTTP 200 OK: two lines?"


def test_a_server_that_hangs_is_given_up_in_time(gate: Gate) -> None:
    """After ``timeout``."""
    gate.delay = 30
    begun = time.monotonic()
    with pytest.raises(TimedOutError) as error:
        ask(target(url=gate.url, timeout=0.3))
    assert time.monotonic() - begun < 5
    assert failure(error.value) == "no answer in time"


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    """Nonsense is none."""
    assert read_retry_after("17") == 17.0
    assert read_retry_after(None) is None
    assert read_retry_after("soon") is None
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
    now = moment.timestamp()
    assert read_retry_after("Thu, 01 Jan 2026 00:00:30 GMT", now) == 30.0
    assert read_retry_after("Thu, 01 Jan 2026 00:00:00 GMT", now + 9) == 0.0


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for loopback that signed itself, and its key."""
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", str(paths[0]), "-keyout", str(paths[1])),
        ],
        check=True,
        capture_output=True,
    )
    return paths


def test_certificates_are_checked_and_shown(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    """Against a real TLS server that wants to see the client's."""
    cert, key = certificate
    server = Server(
        [
            *("openssl", "s_server", "-accept", "127.0.0.1:{port}", "-www", "-naccept", "99"),
            *("-cert", cert, "-key", key, "-CAfile", cert, "-Verify", "1"),
            "-verify_return_error",
        ],
        tmp_path / "server",
    )
    with server:
        url = server.url.replace("http:", "https:")
        own = {"cert_file": str(cert), "key_file": str(key)}
        for settings in ({"ca_file": str(cert), **own}, {"verify": False, **own}):
            with target(url=url, **settings).client() as client:
                assert target(url=url).ask(client, "GET").accepted
        with pytest.raises(ConnectError) as error:
            ask(target(url=url, **own))
        assert "certificate" in failure(error.value)
        with pytest.raises(HttpError):
            ask(target(url=url, ca_file=str(cert)))
    with pytest.raises(TargetError, match="cannot use ca_file"):
        ask(target(url=url, ca_file="/no/such/file"))
    with pytest.raises(TargetError, match="cannot use cert_file"):
        ask(target(url=url, cert_file=str(key)))
