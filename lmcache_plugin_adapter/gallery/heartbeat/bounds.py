# SPDX-License-Identifier: Apache-2.0
"""How long a broken engine may look healthy at each target."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .rhythm import rhythm_of
from .settings import Consul, Etcd, Heartbeat, Ping

if TYPE_CHECKING:
    from lmcache_plugin_adapter.gallery.engine_health.verdict import State

ETCD_LAG = 1.0
"""etcd searches for expired leases twice a second and removes a limited number at once."""

CONSUL_REAPING = 30.0
"""Consul searches for services to remove at this interval, after a minute at the earliest."""


class Bound(NamedTuple):
    """The longest time from a fault to its effect at a target, in seconds."""

    effect: str
    """``gone``, ``critical`` or ``silent``."""
    answering: float
    """While the target answers."""
    unreachable: float
    """While the target is unreachable, or the plugin is gone as well."""

    def __str__(self) -> str:
        """Return the text for the log."""
        return (
            f"{self.effect} within {self.answering:.0f} s "
            f"({self.unreachable:.0f} s if it cannot be reached)"
        )


def after_verdict(deregister_after: float, target: Etcd | Consul | Ping) -> list[Bound]:
    """Return the longest times from an unhealthy verdict to its effects at a target."""
    _, timeout, ttl = rhythm_of(target)
    if isinstance(target, Etcd) and target.username is not None:
        timeout *= 3  # the expired token is refused, log in, retry
    # The request in flight ends first, then the next one reports the fault.
    told = 2 * timeout
    if isinstance(target, Ping) or ttl is None:
        return [Bound("silent", timeout, timeout)]
    if isinstance(target, Etcd):
        expired = timeout + ttl + ETCD_LAG
        return [Bound("gone", min(deregister_after + told, expired), expired)]
    critical = timeout + ttl
    reaped = critical + target.remove_critical_after + CONSUL_REAPING
    gone = min(deregister_after + told, reaped)
    return [Bound("critical", min(told, critical), critical), Bound("gone", gone, reaped)]


def bounds(settings: Heartbeat) -> dict[str, dict[State, list[Bound]]]:
    """Return the longest times from each fault to its effects, by target."""
    detection = settings.examination().detection(settings.interval)
    found: dict[str, dict[State, list[Bound]]] = {}
    targets = {"etcd": settings.etcd, "Consul": settings.consul, "http": settings.http}
    for name, target in targets.items():
        if target is not None:
            found[name] = {
                state: [
                    Bound(b.effect, seconds + b.answering, seconds + b.unreachable)
                    for b in after_verdict(
                        0.0 if state == "dead" else settings.deregister_after, target
                    )
                ]
                for state, seconds in detection.items()
            }
    return found
