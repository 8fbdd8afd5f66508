# SPDX-License-Identifier: Apache-2.0
"""A service with a TTL check, through the HTTP API of a Consul agent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.heartbeat.registrar import Messages, RegistrationRefusedError
from lmcache_plugin_adapter.gallery.heartbeat.rhythm import rhythm_of
from lmcache_plugin_adapter.gallery.http_client.secrets import read_secret
from lmcache_plugin_adapter.kit.settings.accepted import show_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.gallery.engine_health.verdict import Verdict
    from lmcache_plugin_adapter.gallery.heartbeat.registration import Registration
    from lmcache_plugin_adapter.gallery.heartbeat.settings import Consul
    from lmcache_plugin_adapter.gallery.http_client.answer import Answer
    from lmcache_plugin_adapter.gallery.http_client.client import Client

OUTPUT_CHARACTERS = 1000
"""How much of a reason the check shows; an agent keeps 4 KiB."""

UNKNOWN = ("unknown check", "does not have associated ttl", "unknown service")
"""Texts, in lower case, with which agents refuse an unknown check or service.

Newer agents answer 404, older ones 500.
"""


class ConsulTarget:
    """The service of one engine.

    Args:
        settings: The agent.
        registration: The registration of the engine.
        explicit_address: The address from the settings; None: the agent's own, which Consul's
            catalog fills in.
    """

    def __init__(
        self, settings: Consul, registration: Registration, explicit_address: str | None
    ) -> None:
        self.name = "Consul"
        self.messages = Messages(
            "Registered in Consul",
            "keep the service in Consul",
            "the engine is not registered",
            "Deregistered from Consul",
            "deregister from Consul",
            "its check turns critical",
            "its check is critical by now",
        )
        self.keeps_nothing = False
        self.rhythm = rhythm_of(settings)
        self.id = f"{registration.service}-{registration.instance}"
        self.where = f"{settings.shown}, service '{self.id}'"
        self._check = f"service:{self.id}"
        self._settings = settings
        self._client: Client | None = None
        self._is_registered = False
        self._service = {
            "ID": self.id,
            "Name": registration.service,
            "Tags": registration.tags,
            "Address": explicit_address or "",
            "Port": registration.port,
            "Meta": registration.to_metadata(),
            "Check": {
                "CheckID": self._check,
                "Name": f"{registration.service} engine",
                "Notes": "Refreshed by the engine's plugin, which checks the engine.",
                "TTL": f"{settings.ttl}s",
                "Status": "critical",
                "DeregisterCriticalServiceAfter": f"{show_number(settings.remove_critical_after)}s",
            },
        }

    def refresh(self, verdict: Verdict, wanted: Callable[[], bool]) -> bool:
        """Pass the check; register the service first if the agent does not know it."""
        status, output = "passing", "the engine works"
        if verdict.reason:
            output = f"the engine works, but: {verdict.reason}"
            if self._settings.warnings:
                status = "warning"
        if self._is_registered:
            if self._update(status, output):
                return True
            kit.warning("The Consul agent no longer knows the service: registering it again")
            self._is_registered = False
        if wanted():
            self._register()
            # The service starts critical: it passes only while the verdict is still good.
            if wanted():
                if not self._update(status, output):
                    raise RegistrationRefusedError("update the check: the agent does not know it")
                return True
        return False

    def complain(self, verdict: Verdict, timeout: float) -> bool:
        """Set the check to critical, with the reason."""
        if not self._is_registered:
            return False
        reason = f"the engine is {verdict.state}: {verdict.reason}"
        self._is_registered = self._update("critical", reason, timeout)
        return True

    def leave(self, timeout: float) -> None:
        """Deregister the service."""
        path = f"/v1/agent/service/deregister/{quote(self.id, safe='')}"
        answer = self._ask(path, b"", timeout)
        if not answer.accepted and not _is_unknown(answer):
            raise RegistrationRefusedError(f"deregister the service: {answer}")
        self._is_registered = False

    def _register(self) -> None:
        body = json.dumps(self._service).encode()
        answer = self._ask("/v1/agent/service/register", body, self.rhythm.timeout)
        if not answer.accepted:
            raise RegistrationRefusedError(f"register the service: {answer}")
        self._is_registered = True

    def _update(self, status: str, output: str, timeout: float | None = None) -> bool:
        """Set the check; tell whether the agent knows it."""
        body = json.dumps({"Status": status, "Output": output[:OUTPUT_CHARACTERS]}).encode()
        path = f"/v1/agent/check/update/{quote(self._check, safe='')}"
        answer = self._ask(path, body, timeout or self.rhythm.timeout)
        if not answer.accepted and not _is_unknown(answer):
            raise RegistrationRefusedError(f"update the check: {answer}")
        return answer.accepted

    def _ask(self, path: str, body: bytes, timeout: float) -> Answer:
        headers = {"Content-Type": "application/json"} if body else {}
        token = self._settings.token
        if self._settings.token_file is not None:
            token = read_secret("token_file", self._settings.token_file)
        if token is not None:
            headers["X-Consul-Token"] = token
        if self._client is None:
            self._client = self._settings.client()
        return self._settings.ask(
            self._client, "PUT", path, content=body, headers=headers, timeout=timeout
        )


def _is_unknown(answer: Answer) -> bool:
    body = answer.body.lower()
    return answer.status == 404 or (answer.status == 500 and any(mark in body for mark in UNKNOWN))
