"""How long an engine that does not work may still look as if it did: arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .settings import CONSUL_REAPING, Consul, Etcd, Heartbeat, Ping, rhythm_of

if TYPE_CHECKING:
    from lmcache_plugin_adapter.gallery.engine_health.health import State

ETCD_LAG = 1.0
"""etcd looks for leases that have expired twice a second, and removes a number of them at once."""


class Bound(NamedTuple):
    """The longest time from a fault to its effect at a target, in seconds.

    Attributes:
        effect: ``gone``, ``critical`` or ``silent``.
        answering: As long as the target answers.
        unreachable: When it cannot be reached, or the plugin is gone as well.
    """

    effect: str
    answering: float
    unreachable: float

    def __str__(self) -> str:
        """Return it as words."""
        return (
            f"{self.effect} within {self.answering:.0f} s "
            f"({self.unreachable:.0f} s if it cannot be reached)"
        )


def after_verdict(deregister_after: float, target: Etcd | Consul | Ping) -> list[Bound]:
    """Return the longest times from an unhealthy verdict to its effects at a target."""
    _, timeout, ttl = rhythm_of(target)
    if isinstance(target, Etcd) and target.username is not None:
        timeout *= 3  # refused for an old token, logging in, once more
    # A request that has begun is waited for, then comes the one that tells.
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
