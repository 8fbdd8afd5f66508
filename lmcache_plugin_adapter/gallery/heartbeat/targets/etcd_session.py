# SPDX-License-Identifier: Apache-2.0
"""Requests to an etcd cluster through its JSON gateway: login, and other members if one is away."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.heartbeat.registrar import RegistrationRefusedError
from lmcache_plugin_adapter.gallery.heartbeat.rhythm import rhythm_of
from lmcache_plugin_adapter.gallery.http_client.address import parse
from lmcache_plugin_adapter.gallery.http_client.errors import ConnectError, HttpError, TimedOutError
from lmcache_plugin_adapter.gallery.http_client.secrets import read_secret

if TYPE_CHECKING:
    from lmcache_plugin_adapter.gallery.heartbeat.settings import Etcd
    from lmcache_plugin_adapter.gallery.http_client.client import Client

NOT_FOUND = 5
UNAUTHENTICATED = 16
"""gRPC codes, which the gateway includes in its answers."""

AUTH_IS_OFF = "authentication is not enabled"
STALE = ("invalid auth token", "revision of auth store is old", "user name is empty")
"""Error texts of etcd, whose codes do not distinguish these from other errors."""

UNAVAILABLE = frozenset({502, 503, 504})
"""Statuses after which another member may succeed."""


class EtcdError(RegistrationRefusedError):
    """etcd refused a request.

    Args:
        doing: The request.
        text: etcd's reason.
        code: The gRPC code.
    """

    def __init__(self, doing: str, text: str, code: int) -> None:
        super().__init__(f"{doing}: {text}")
        self.text = text
        self.code = code


class _UnavailableError(EtcdError):
    """No member served the request: a proxy answered in its place."""


class EtcdSession:
    """The session of one engine.

    Args:
        settings: The cluster.
    """

    def __init__(self, settings: Etcd) -> None:
        self._settings = settings
        self._timeout = rhythm_of(settings).timeout
        self._members = [
            msgspec.structs.replace(settings, url=url)
            for url in (settings.url, *settings.other_urls)
        ]
        url = parse(settings.url)
        self._username = settings.username or url.username or None
        self._password = settings.password or url.password
        self._client: Client | None = None
        self._token: str | None = None
        self._auth_is_off = False

    def ask(
        self, doing: str, path: str, request: dict[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Send a request, logged in if a user name is set; log in again if the token is stale.

        Some gateways close the connection on a stale token, and proxies turn that into HTTP 502.
        So a request without an answer drops the token, too.
        """
        if self._username is None or self._auth_is_off:
            return self._send(doing, path, request, timeout)
        if self._token is not None:
            try:
                return self._send(doing, path, request, timeout)
            except EtcdError as error:
                stale = any(mark in error.text for mark in STALE)
                gone = isinstance(error, _UnavailableError)
                if not stale and not gone and error.code != UNAUTHENTICATED:
                    raise
                self._token = None
            except HttpError as error:
                self._token = None
                if isinstance(error, (ConnectError, TimedOutError)):
                    raise  # a login now would fail or wait as long; the next attempt starts with it
        self._log_in(timeout)
        return self._send(doing, path, request, timeout)

    def _log_in(self, timeout: float | None) -> None:
        password = self._password
        if self._settings.password_file is not None:
            password = read_secret("password_file", self._settings.password_file)
        request = {"name": self._username, "password": password}
        try:
            answer = self._send("log in", "/v3/auth/authenticate", request, timeout)
        except EtcdError as error:
            if AUTH_IS_OFF not in error.text:
                raise
            kit.warning("etcd has no authentication: 'etcd.username' is not used")
            self._auth_is_off = True
            return
        self._token = str(answer["token"])

    def _send(
        self, doing: str, path: str, request: dict[str, Any], timeout: float | None
    ) -> dict[str, Any]:
        """Send a request to the member that answered last, then to the others."""
        limit = self._timeout if timeout is None else timeout
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = self._token
        last: Exception = EtcdError(doing, "no member", 0)
        for _ in range(len(self._members)):
            member = self._members[0]
            try:
                answer = member.ask(
                    self._connect(),
                    "POST",
                    path,
                    content=json.dumps(request).encode(),
                    headers=headers,
                    timeout=limit / len(self._members),
                )
            except HttpError as error:
                last = error
            else:
                if answer.status not in UNAVAILABLE:
                    return _read(doing, answer.status, answer.body, str(answer))
                last = _UnavailableError(doing, str(answer), 0)
            self._members.append(self._members.pop(0))
        raise last

    def _connect(self) -> Client:
        if self._client is None:
            own = self._settings
            # etcd's own login uses name and password.
            has_token = own.bearer_token is not None or own.bearer_token_file is not None
            self._client = own.client(credentials=has_token)
        return self._client


def _read(doing: str, status: int, body: str, shown: str) -> dict[str, Any]:
    """Return etcd's answer.

    Raises:
        EtcdError: The answer is a refusal, or not from etcd.
    """
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise EtcdError(doing, shown, 0)
    error = answer.get("error")
    if isinstance(error, dict):  # in a stream, such as the answers of keepalive
        raise EtcdError(doing, str(error.get("message", shown)), int(error.get("grpc_code", 0)))
    if error is not None or status != 200:
        code = answer.get("code", 0)
        text = error or answer.get("message") or shown
        raise EtcdError(doing, str(text), code if isinstance(code, int) else 0)
    return answer
