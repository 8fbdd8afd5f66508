"""An entry in etcd v3, through the JSON gateway: a key that expires with its lease."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.heartbeat.registrar import Messages, RefusedError
from lmcache_plugin_adapter.gallery.heartbeat.rhythm import rhythm_of
from lmcache_plugin_adapter.gallery.http_client.secrets import read_secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.gallery.engine_health.verdict import Verdict
    from lmcache_plugin_adapter.gallery.heartbeat.registration import Registration
    from lmcache_plugin_adapter.gallery.heartbeat.settings import Etcd

NOT_FOUND = 5
UNAUTHENTICATED = 16
"""gRPC codes, which the gateway includes in its answers."""

AUTH_IS_OFF = "authentication is not enabled"
STALE = ("invalid auth token", "revision of auth store is old", "user name is empty")
"""Error texts of etcd, whose codes do not distinguish these from other errors."""

UNAVAILABLE = frozenset({502, 503, 504})
"""Statuses after which another member may succeed."""


class EtcdError(RefusedError):
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


class EtcdTarget:
    """The entry of one engine.

    Args:
        settings: The cluster.
        registration: The registration of the engine.
    """

    def __init__(self, settings: Etcd, registration: Registration) -> None:
        self.name = "etcd"
        self.messages = Messages(
            "Registered in etcd",
            "keep the entry in etcd",
            "the engine is not registered",
            "Deregistered from etcd",
            "deregister from etcd",
        )
        self.keeps_nothing = False
        self.rhythm = rhythm_of(settings)
        self.key = settings.key or "/".join(
            (settings.prefix.rstrip("/"), registration.service, registration.instance)
        )
        self.where = f"{settings.shown}, key '{self.key}'"
        self._settings = settings
        self._value = registration.to_json()
        # What distinguishes engines: the time of the registration does not count.
        self._identity = _identity(self._value)
        self._members = [
            msgspec.structs.replace(settings, url=url)
            for url in (settings.url, *settings.other_urls)
        ]
        url = httpx.URL(settings.url)
        self._username = settings.username or url.username or None
        self._password = settings.password or url.password
        self._client: httpx.Client | None = None
        self._token: str | None = None
        self._auth_is_off = False
        self._lease: str | None = None
        self._is_entered = False
        self._taken_by: str | None = None

    def refresh(self, verdict: Verdict, wanted: Callable[[], bool]) -> bool:
        """Keep the lease alive and the key attached to it; create what is missing."""
        del verdict  # an entry in etcd has no state
        if self._lease is not None and not self._keep_alive(self._lease):
            kit.warning("The lease is gone from etcd: registering again")
            self._lease = None
        if self._lease is None and wanted():
            self._lease, self._is_entered = self._grant(), False
        if self._lease is not None and wanted():
            if self._is_entered:
                self._verify(self._lease, wanted)
            else:
                self._put(self._lease)
        return self._lease is not None and self._is_entered and self._taken_by is None

    def complain(self, verdict: Verdict, timeout: float) -> bool:
        """Send nothing: without a refresh, the lease and the entry expire."""
        del verdict, timeout
        return False

    def leave(self, timeout: float) -> None:
        """Revoke the lease, and with it the key, unless another engine took the key over."""
        if self._lease is None:
            return
        try:
            self._ask("revoke the lease", "/v3/lease/revoke", {"ID": self._lease}, timeout)
        except EtcdError as error:
            if error.code != NOT_FOUND:
                raise
        self._lease = None

    def _grant(self) -> str:
        answer = self._ask("get a lease", "/v3/lease/grant", {"TTL": str(self._settings.ttl)})
        granted = int(answer.get("TTL", 0))
        if granted > self._settings.ttl:
            kit.warning(
                f"etcd grants leases of at least {granted} s: the entry expires that much later"
            )
        return str(answer["ID"])

    def _keep_alive(self, lease: str) -> bool:
        answer = self._ask("keep the lease", "/v3/lease/keepalive", {"ID": lease})
        # The answer for an unknown lease has no TTL.
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def _put(self, lease: str) -> None:
        request = {
            "key": _encode(self.key.encode()),
            "value": _encode(self._value),
            "lease": lease,
            "prev_kv": True,
        }
        answer = self._ask("enter the key", "/v3/kv/put", request)
        earlier = answer.get("prev_kv", {}).get("value")
        if earlier is not None and _identity(_decode(earlier)) != self._identity:
            kit.warning(
                f"Key '{self.key}' belonged to another engine: {_shown(_decode(earlier))}; "
                "each engine needs its own key ('instance')"
            )
        self._is_entered, self._taken_by = True, None

    def _verify(self, lease: str, wanted: Callable[[], bool]) -> None:
        """Write the key again if it was deleted; leave it alone if another engine took it over."""
        key = _encode(self.key.encode())
        request = {
            "compare": [{"key": key, "target": "LEASE", "result": "EQUAL", "lease": lease}],
            "success": [],
            "failure": [{"requestRange": {"key": key}}],
        }
        answer = self._ask("read the key", "/v3/kv/txn", request)
        if answer.get("succeeded"):
            self._taken_by = None
            return
        responses = answer.get("responses") or [{}]
        found = responses[0].get("response_range", {}).get("kvs")
        if not found:
            kit.warning(f"Key '{self.key}' is gone from etcd: writing it again")
            if wanted():
                self._put(lease)
            return
        holder = _shown(_decode(found[0].get("value", "")))
        if holder != self._taken_by:
            # The latest wins: if both wrote, clients would see the entry alternate.
            kit.error(
                f"Key '{self.key}' was taken over by another engine: {holder}; this engine is not "
                "registered until the key is free; each engine needs its own key ('instance')"
            )
            self._taken_by = holder

    def _ask(
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
            except httpx.HTTPError as error:
                self._token = None
                if isinstance(error, (httpx.ConnectError, httpx.TimeoutException)):
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
        limit = self.rhythm.timeout if timeout is None else timeout
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
            except httpx.HTTPError as error:
                last = error
            else:
                if answer.status not in UNAVAILABLE:
                    return _read(doing, answer.status, answer.body, str(answer))
                last = _UnavailableError(doing, str(answer), 0)
            self._members.append(self._members.pop(0))
        raise last

    def _connect(self) -> httpx.Client:
        if self._client is None:
            self._client = self._settings.client()
            if self._settings.bearer_token is None and self._settings.bearer_token_file is None:
                self._client.auth = httpx.Auth()  # etcd's own login uses name and password
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


def _identity(value: bytes) -> object:
    """Return the fields that distinguish engines, without time and process of the registration."""
    try:
        entry = json.loads(value)
    except ValueError:
        return value
    if not isinstance(entry, dict):
        return value
    return tuple(entry.get(name) for name in ("instance", "address", "port", "host"))


def _shown(value: bytes) -> str:
    """Return an entry for a message: short and printable."""
    identity = _identity(value)
    if isinstance(identity, tuple):
        _, address, port, host = identity
        return f"{address}:{port} on host '{host}'"
    text = value.decode(errors="replace")
    return "".join(c if c.isprintable() else "?" for c in text[:100])


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text)
