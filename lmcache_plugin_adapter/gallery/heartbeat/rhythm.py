# SPDX-License-Identifier: Apache-2.0
"""How often the heartbeat contacts each target, and which settings contradict that."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from .settings import TIMEOUT, Consul, Etcd, Heartbeat, Ping

if TYPE_CHECKING:
    from collections.abc import Iterator

PAUSE = 0.6
"""The longest pause, in seconds, between a failed refresh and the next attempt."""


class Rhythm(NamedTuple):
    """The timing of requests to a target, in seconds."""

    interval: float
    """From one refresh to the next."""
    timeout: float
    """For one request."""
    ttl: float | None
    """Until the target treats the engine as gone; None: unknown."""


class Contradiction(NamedTuple):
    """A setting that contradicts others."""

    key: str
    """The key below the plugin's own section."""
    text: str
    """The value found, the accepted values and the value in use."""


def rhythm_of(target: Etcd | Consul | Ping) -> Rhythm:
    """Return the timing of a target: its settings, as far as they are possible."""
    if isinstance(target, Ping):
        return Rhythm(target.interval, min(target.timeout, target.interval), None)
    interval = target.interval
    if interval is None or interval >= target.ttl / 2:
        interval = target.ttl / 3
    return Rhythm(interval, min(target.timeout, _longest(target.ttl, interval)), target.ttl)


def contradictions(settings: Heartbeat) -> Iterator[Contradiction]:
    """Yield the settings that ``rhythm_of`` cannot use as written."""
    for name in ("etcd", "consul"):
        target: Etcd | Consul | None = getattr(settings, name)
        if target is None:
            continue
        rhythm = rhythm_of(target)
        if target.interval is not None and target.interval != rhythm.interval:
            yield Contradiction(
                f"{name}.interval",
                f"found {target.interval:g}, accepted is less than half of '{name}.ttl' "
                f"({target.ttl / 2:g}), so that one lost refresh does no harm; "
                f"{rhythm.interval:g} is taken",
            )
        if target.timeout not in (rhythm.timeout, TIMEOUT):
            yield Contradiction(
                f"{name}.timeout",
                f"found {target.timeout:g}, accepted is at most "
                f"{_longest(target.ttl, rhythm.interval):g}, so that two refreshes fit into "
                f"'{name}.ttl'; that is taken",
            )
    ping = settings.http
    if ping is not None and ping.timeout > ping.interval and ping.timeout != TIMEOUT:
        yield Contradiction(
            "http.timeout",
            f"found {ping.timeout:g}, accepted is at most 'http.interval' ({ping.interval:g}); "
            "that is taken",
        )


def _longest(ttl: float, interval: float) -> float:
    """Return the longest request timeout that leaves time for a second refresh."""
    return math.floor(50 * (ttl - interval - PAUSE)) / 100
