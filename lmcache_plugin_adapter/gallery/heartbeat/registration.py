# SPDX-License-Identifier: Apache-2.0
"""The registration of an engine: its name, its address and its role."""

from __future__ import annotations

import os
import re
import socket
import time
from typing import TYPE_CHECKING

import msgspec

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.http_client.address import is_this_host_only

from .settings import PORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcache_plugin_adapter.kit import Context

    from .settings import Heartbeat

ADDRESS_VARIABLES = ("VLLM_HOST_IP", "POD_IP")
"""Variables with the address of this host; vLLM's own one comes first."""

_SOMEWHERE = (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))
"""Addresses reserved for documentation: nothing is sent there, but the kernel picks a route."""


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """One engine as registered: the JSON in etcd, the metadata in Consul."""

    service: str
    instance: str
    address: str
    port: int
    tags: list[str]
    metadata: dict[str, str]
    host: str
    role: str
    worker_id: int
    worker_count: int
    dp_rank: int
    dp_size: int
    engine_pid: int | None
    registered: str

    @property
    def named(self) -> str:
        """The text for messages: ``'node7-8000-dp0-scheduler' (10.0.0.7:8000)``."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"'{self.instance}' ({host}:{self.port})"

    def to_json(self) -> bytes:
        """Return the registration as one JSON document."""
        return msgspec.json.encode(self)

    def to_metadata(self) -> dict[str, str]:
        """Return the fields that Consul has no field for, as text; configured metadata wins."""
        facts = {
            "host": self.host,
            "role": self.role,
            "worker_count": str(self.worker_count),
            "dp_rank": str(self.dp_rank),
            "dp_size": str(self.dp_size),
            "registered": self.registered,
        }
        return {**facts, **self.metadata}


def register(ctx: Context, settings: Heartbeat) -> Registration:
    """Return the registration of an engine, as of now."""
    port = settings.port or PORT
    return Registration(
        service=settings.service or "vllm",
        instance=settings.instance or default_instance(ctx, port),
        address=advertised_address(os.environ, ctx.host, settings.address or ""),
        port=port,
        tags=settings.tags,
        metadata=settings.metadata,
        host=ctx.host,
        role=ctx.role.lower(),
        worker_id=ctx.worker_id,
        worker_count=ctx.worker_count,
        dp_rank=ctx.dp_rank,
        dp_size=ctx.dp_size,
        engine_pid=ctx.engine_pid,
        registered=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def default_instance(ctx: Context, port: int) -> str:
    """Return a name that is unique among all engines.

    A host may serve several engines, each on its own port.
    """
    words = [ctx.host, str(port), f"dp{ctx.dp_rank}", ctx.role.lower() or "engine"]
    if ctx.role == "WORKER":
        words.append(str(ctx.worker_id))
    return re.sub(r"[^A-Za-z0-9._-]", "-", "-".join(words))


def advertised_address(environ: Mapping[str, str], host: str, configured: str = "") -> str:
    """Return this host's address for others: the configured one, else that of the system.

    The system's address is in a variable, or the default route's, or the host's name. An address
    that leads other hosts to themselves, such as ``0.0.0.0``, is replaced, with a warning.

    Args:
        environ: The environment.
        host: The host's name.
        configured: The setting ``address``; empty: none.
    """
    given = {"address": configured}
    given.update((name, environ.get(name, "").strip()) for name in ADDRESS_VARIABLES)
    unusable = []
    found = ""
    for name, value in given.items():
        if value and not is_this_host_only(value):
            found = value
            break
        if value:
            unusable.append(f"{name} {value!r}")
    found = found or _address_of_route() or host
    if unusable:
        kit.warning(
            f"Cannot register {', '.join(unusable)}: other hosts do not reach this host there; "
            f"registering {found!r} instead"
        )
    return found


def _address_of_route() -> str:
    """Return the address of the interface with the default route; empty: there is none."""
    for somewhere, family in _SOMEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((somewhere, 9))
                address = str(probe.getsockname()[0])
        except OSError:
            continue
        if not is_this_host_only(address):
            return address
    return ""
