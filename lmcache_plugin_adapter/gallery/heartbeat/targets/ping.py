# SPDX-License-Identifier: Apache-2.0
"""A URL that receives requests while the engine works: their absence reveals a fault."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from lmcache_plugin_adapter.gallery.heartbeat.registrar import Messages, RegistrationRefusedError
from lmcache_plugin_adapter.gallery.heartbeat.rhythm import rhythm_of
from lmcache_plugin_adapter.gallery.http_client.address import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.gallery.engine_health.verdict import Verdict
    from lmcache_plugin_adapter.gallery.heartbeat.registration import Registration
    from lmcache_plugin_adapter.gallery.heartbeat.settings import Ping
    from lmcache_plugin_adapter.gallery.http_client.client import Client

_IN_ORDER = "ended", ""

_NO_CREDENTIALS: dict[str, Any] = {
    "headers": {},
    "username": None,
    "password": None,
    "password_file": None,
    "bearer_token": None,
    "bearer_token_file": None,
    "cert_file": None,
    "key_file": None,
}


class PingTarget:
    """The pings of one engine.

    Args:
        settings: The URLs.
        registration: The body, unless the settings give one.
    """

    def __init__(self, settings: Ping, registration: Registration) -> None:
        self.name = "http"
        self.messages = Messages(
            "The first ping was accepted",
            "ping",
            "none was accepted so far",
            "Pings have ended",
            "report that pings have ended",
        )
        self.keeps_nothing = True
        self.where = settings.shown
        self.rhythm = rhythm_of(settings)
        self._settings = settings
        self._facts = msgspec.to_builtins(registration)
        self._clients: dict[str, Client] = {}
        self._failed = False
        self._end = _IN_ORDER
        """State and reason for the last request."""

    def refresh(self, verdict: Verdict, wanted: Callable[[], bool]) -> bool:
        """Request the URL."""
        del wanted  # there is only one request
        self._ask(self._settings, "ok", verdict.reason, self.rhythm.timeout)
        self._failed = False
        self._end = _IN_ORDER
        return True

    def complain(self, verdict: Verdict, timeout: float) -> bool:
        """Request the URL for failures, once."""
        self._end = verdict.state, verdict.reason
        url = self._settings.fail_url
        if url is None or self._failed:
            return False
        self._ask(self._at(url), verdict.state, verdict.reason, timeout)
        self._failed = True
        return True

    def leave(self, timeout: float) -> None:
        """Request the URL for the end."""
        url = self._settings.stop_url
        if url is not None:
            self._ask(self._at(url), *self._end, timeout)

    def _at(self, url: str) -> Ping:
        """Return the settings for another URL; only the server of ``url`` gets the credentials."""
        if _server(url) == _server(self._settings.url):
            return msgspec.structs.replace(self._settings, url=url)
        return msgspec.structs.replace(self._settings, url=url, **_NO_CREDENTIALS)

    def _ask(self, target: Ping, state: str, reason: str, timeout: float) -> None:
        content, headers = b"", {}
        if target.method in ("POST", "PUT"):
            body = target.body
            if body is None:
                body = {**self._facts, "state": state, "reason": reason}
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        server = _server(target.url)
        if server not in self._clients:
            own = server == _server(self._settings.url)
            self._clients[server] = (self._settings if own else target).client()
        answer = target.ask(
            self._clients[server], target.method, content=content, headers=headers, timeout=timeout
        )
        if not (answer.status in target.success if target.success else answer.accepted):
            raise RegistrationRefusedError(str(answer))


def _server(url: str) -> str:
    """Return what is equal for all addresses of one server."""
    return parse(url).origin
