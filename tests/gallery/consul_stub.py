# SPDX-License-Identifier: Apache-2.0
"""A Consul agent for the gallery's tests: three documented endpoints, each field checked.

``PUT /v1/agent/service/register``, ``PUT /v1/agent/check/update/ID`` and
``PUT /v1/agent/service/deregister/ID``, TTL checks that turn critical, services that are removed
when they stay so. What an agent would not understand is kept as a violation, and a test fails.
"""

from __future__ import annotations

import http.server
import json
import re
import threading
import time
from typing import Any
from urllib.parse import unquote, urlsplit

from http_stub import HttpStub

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
SERVICE = {"ID": str, "Name": str, "Tags": list, "Address": str, "Port": int, "Meta": dict}
CHECK = {"CheckID": str, "Name": str, "Notes": str, "TTL": str, "Status": str}
CHECK["DeregisterCriticalServiceAfter"] = str
STATES = ("passing", "warning", "critical")


class ConsulStub(HttpStub):
    """One agent.

    Args:
        token: The ACL token that may write; None: everybody may.
        older: Whether to answer as agents before 1.9 do of what they do not know.
        haste: How many times faster than in truth critical services are removed.
    """

    def __init__(self, token: str | None = None, *, older: bool = False, haste: float = 1) -> None:
        super().__init__()
        self.token = token
        self.older = older
        self.haste = haste
        self.services: dict[str, dict[str, Any]] = {}
        self.violations: list[str] = []
        self.requests: list[tuple[float, str, str]] = []
        self._lock = threading.Lock()

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        """Return the class that answers."""
        agent = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if agent.keeps_silent():
                    return
                status, text = agent.answer(self.path, dict(self.headers.items()), body)
                answer = text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_POST(self) -> None:
                agent.violations.append(f"{self.command} {self.path}")
                self.send_error(405)

            do_GET = do_POST  # noqa: N815 - the name that the base class asks for

            def log_message(self, *args: object) -> None:
                pass

        return Handler

    def __enter__(self) -> ConsulStub:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        assert self.violations == []

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        """Do what a request asks for; return status and text."""
        with self._lock:
            path = urlsplit(path).path
            if self.token is not None and headers.get("X-Consul-Token") != self.token:
                return 403, "Permission denied: anonymous token lacks permission 'service:write'"
            self._expire()
            if path == "/v1/agent/service/register":
                return self._register(body)
            verb, _, name = path.removeprefix("/v1/agent/").rpartition("/")
            if verb == "check/update":
                return self._update(unquote(name), body)
            if verb == "service/deregister":
                return self._deregister(unquote(name))
            return self._violation(f"no such path: {path}")

    def state(self, name: str) -> tuple[str, str] | None:
        """Return state and output of a service's check; None if there is no such service."""
        with self._lock:
            self._expire()
            service = self.services.get(name)
            return None if service is None else (service["Status"], service["Output"])

    def forget(self) -> None:
        """Lose all data."""
        with self._lock:
            self.services.clear()

    def _expire(self) -> None:
        now = time.monotonic()
        for name, service in list(self.services.items()):
            if service["Status"] != "critical" and now > service["updated"] + service["ttl"]:
                service["Status"], service["Output"] = "critical", "TTL expired"
                service["critical since"] = service["updated"] + service["ttl"]
            since = service["critical since"]
            if since is not None and now > since + service["remove after"] / self.haste:
                del self.services[name]

    def _register(self, body: bytes) -> tuple[int, str]:
        try:
            service = json.loads(body)
            check = service.pop("Check")
        except (ValueError, KeyError, AttributeError) as error:
            return self._violation(f"no service: {error!r}: {body!r}")
        for what, fields in ((service, SERVICE), (check, CHECK)):
            found = {name: type(value) for name, value in what.items()}
            if found != fields:
                return self._violation(f"fields: {found}")
        texts = [*service["Tags"], *service["Meta"], *service["Meta"].values()]
        if not all(isinstance(text, str) for text in texts):
            return self._violation(f"not text: {texts}")
        if not service["ID"] or not service["Name"] or not 0 < service["Port"] < 65536:
            return self._violation(f"empty: {service}")
        if len(service["Meta"]) > 64 or not all(
            re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", key) and len(value) <= 512
            for key, value in service["Meta"].items()
        ):
            return self._violation(f"meta: {service['Meta']}")
        ttl, remove = seconds(check["TTL"]), seconds(check["DeregisterCriticalServiceAfter"])
        if ttl is None or remove is None or remove < 60 or check["Status"] not in STATES:
            return self._violation(f"check: {check}")
        now = time.monotonic()
        self.services[service["ID"]] = {
            **service,
            **{name: value for name, value in check.items() if name != "Name"},
            "Output": "",
            "ttl": ttl,
            "remove after": remove,
            "updated": now,
            "critical since": now if check["Status"] == "critical" else None,
        }
        self.requests.append((now, "register", check["Status"]))
        return 200, ""

    def _update(self, check: str, body: bytes) -> tuple[int, str]:
        try:
            update = json.loads(body)
        except ValueError:
            return self._violation(f"no update: {body!r}")
        if set(update) != {"Status", "Output"} or update["Status"] not in STATES:
            return self._violation(f"update: {update}")
        if not isinstance(update["Output"], str) or len(update["Output"]) > 4096:
            return self._violation(f"output: {update}")
        service = next((s for s in self.services.values() if s["CheckID"] == check), None)
        if service is None:
            if self.older:
                return 500, f'CheckID "{check}" does not have associated TTL'
            return 404, f'Unknown check ID "{check}". Ensure that the check ID is passed'
        now = time.monotonic()
        if update["Status"] != "critical":
            service["critical since"] = None
        elif service["critical since"] is None:
            service["critical since"] = now
        service.update(update, updated=now)
        self.requests.append((now, "update", update["Status"]))
        return 200, ""

    def _deregister(self, name: str) -> tuple[int, str]:
        self.requests.append((time.monotonic(), "deregister", name))
        if self.services.pop(name, None) is None and not self.older:
            return 404, f'Unknown service ID "{name}". Ensure that the service ID is passed'
        return 200, ""

    def _violation(self, text: str) -> tuple[int, str]:
        self.violations.append(text)
        return 400, text


def seconds(duration: str) -> float | None:
    """Read a duration as Go writes it."""
    match = DURATION.fullmatch(duration)
    return None if match is None else float(match[1]) * UNITS[match[2]]
