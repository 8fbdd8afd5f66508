"""What is registered of an engine: its name, its address, what it is."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcache_plugin_adapter.kit import Context

    from .settings import Heartbeat

ADDRESS_VARIABLES = ("VLLM_HOST_IP", "POD_IP")
"""Variables that hold the address others reach this host at; vLLM's own one goes first."""

_SOMEWHERE = (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))
"""Addresses that only documentation uses: nothing is sent there, but a route would be taken."""


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """One engine, as it is found at the other end: the JSON in etcd, the metadata in Consul."""

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
        """For messages: ``'node7-8000-dp0-scheduler' (10.0.0.7:8000)``."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"'{self.instance}' ({host}:{self.port})"

    def to_json(self) -> bytes:
        """Return it as one JSON document."""
        return msgspec.json.encode(self)

    def to_metadata(self) -> dict[str, str]:
        """Return as text what has no place of its own in Consul, own metadata on top."""
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
    """Return what to register, now."""
    return Registration(
        service=settings.service,
        instance=settings.instance or default_instance(ctx, settings.port),
        address=settings.address or advertised_address(os.environ, ctx.host),
        port=settings.port,
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
    """Return a name that no other engine of the fleet has.

    A host may serve several engines, each on a port of its own.
    """
    words = [ctx.host, str(port), f"dp{ctx.dp_rank}", ctx.role.lower() or "engine"]
    if ctx.role == "WORKER":
        words.append(str(ctx.worker_id))
    return re.sub(r"[^A-Za-z0-9._-]", "-", "-".join(words))


def advertised_address(environ: Mapping[str, str], host: str) -> str:
    """Return where this host is reached: a variable, the default route's interface, its name."""
    for name in ADDRESS_VARIABLES:
        value = environ.get(name, "").strip()
        if value:
            return value
    for somewhere, family in _SOMEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((somewhere, 9))
                address = str(probe.getsockname()[0])
        except OSError:
            continue
        if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            return address
    return host
