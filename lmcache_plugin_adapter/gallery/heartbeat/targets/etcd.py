# SPDX-License-Identifier: Apache-2.0
"""An entry in etcd v3, through the JSON gateway: a key that expires with its lease."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.heartbeat.registrar import Messages
from lmcache_plugin_adapter.gallery.heartbeat.rhythm import rhythm_of

from .etcd_session import NOT_FOUND, EtcdError, EtcdSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.gallery.engine_health.verdict import Verdict
    from lmcache_plugin_adapter.gallery.heartbeat.registration import Registration
    from lmcache_plugin_adapter.gallery.heartbeat.settings import Etcd


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
        self._ttl = settings.ttl
        self._value = registration.to_json()
        # The fields that distinguish engines: the time of the registration does not count.
        self._identity = _identity(self._value)
        self._session = EtcdSession(settings)
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
            self._session.ask("revoke the lease", "/v3/lease/revoke", {"ID": self._lease}, timeout)
        except EtcdError as error:
            if error.code != NOT_FOUND:
                raise
        self._lease = None

    def _grant(self) -> str:
        answer = self._session.ask("get a lease", "/v3/lease/grant", {"TTL": str(self._ttl)})
        granted = int(answer.get("TTL", 0))
        if granted > self._ttl:
            kit.warning(
                f"etcd grants leases of at least {granted} s: the entry expires that much later"
            )
        return str(answer["ID"])

    def _keep_alive(self, lease: str) -> bool:
        answer = self._session.ask("keep the lease", "/v3/lease/keepalive", {"ID": lease})
        # The answer for an unknown lease has no TTL.
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def _put(self, lease: str) -> None:
        request = {
            "key": _encode(self.key.encode()),
            "value": _encode(self._value),
            "lease": lease,
            "prev_kv": True,
        }
        answer = self._session.ask("enter the key", "/v3/kv/put", request)
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
        answer = self._session.ask("read the key", "/v3/kv/txn", request)
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
