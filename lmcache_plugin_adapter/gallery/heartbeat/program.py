# SPDX-License-Identifier: Apache-2.0
"""The plugin: the main thread checks the engine, one thread for each target keeps its entry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.engine_health.health import EngineHealth
from lmcache_plugin_adapter.gallery.heartbeat.targets.console import ConsoleTarget
from lmcache_plugin_adapter.gallery.heartbeat.targets.consul import ConsulTarget
from lmcache_plugin_adapter.gallery.heartbeat.targets.etcd import EtcdTarget
from lmcache_plugin_adapter.gallery.heartbeat.targets.ping import PingTarget

from .bounds import bounds
from .engine_view import EngineView
from .registrar import EXIT_SECONDS, REMINDER, Registrar, RegistryTarget
from .registration import Registration, register
from .rhythm import contradictions
from .settings import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmcache_plugin_adapter.gallery.engine_health.verdict import Verdict

LATE = 2.0
"""Seconds for which a verdict stays valid after the next one is due."""


def run(ctx: kit.Context, stop: kit.Stop) -> int:
    """Register the engine while it works; remove the entries at the end."""
    settings = ctx.settings(Heartbeat).completed(ctx)
    section = ctx.settings_key
    for key, text in contradictions(settings):
        kit.error(f"Cannot use setting '{section}.{key}': {text}")
    registration = register(ctx, settings)
    targets = list(_targets(settings, registration))
    if why := settings.why_unusable(section):
        raise kit.SettingsError(why)
    _introduce(settings, registration, targets)
    _warn_of_grace(targets, stop)
    examination = settings.examination()
    view = EngineView(settings.interval + examination.timeout + LATE)
    registrars = [
        Registrar(target, view, settings.deregister_after, stop.remaining) for target in targets
    ]
    for registrar in registrars:
        registrar.start()
    health = EngineHealth(ctx, examination)
    log = _VerdictLog()
    for _ in kit.every(settings.interval, jitter=0, stop=stop):
        verdict = None
        with stop.interruptible():  # only this: an interrupted lock would stay locked
            verdict = health.check()
        if verdict is not None:
            log.report(verdict)
            view.post(verdict)
    view.close(health.death(ctx.ending))
    for registrar in registrars:
        registrar.join(stop.remaining() - EXIT_SECONDS / 2)
    return 0


def _targets(settings: Heartbeat, registration: Registration) -> Iterator[RegistryTarget]:
    if settings.etcd is not None:
        yield EtcdTarget(settings.etcd, registration)
    if settings.consul is not None:
        yield ConsulTarget(settings.consul, registration, settings.address)
    if settings.http is not None:
        yield PingTarget(settings.http, registration)
    if settings.target == "console":
        yield ConsoleTarget(registration)


def _introduce(
    settings: Heartbeat, registration: Registration, targets: list[RegistryTarget]
) -> None:
    """Log the registration, its targets, and how long a fault may go unnoticed at each."""
    kit.info(f"Registers {registration.named} as '{registration.service}' once the engine works")
    limits = bounds(settings)
    for target in targets:
        kit.info(
            f"{target.name}: {target.where}; every {target.rhythm.interval:g} s, "
            f"answers within {target.rhythm.timeout:g} s"
        )
        for state, effects in limits.get(target.name, {}).items():
            kit.info(f"{target.name}: engine {state}: {', '.join(map(str, effects))}")


def _warn_of_grace(targets: list[RegistryTarget], stop: kit.Stop) -> None:
    """Warn if the grace period may be too short for a slow target."""
    longest = max(target.rhythm.timeout for target in targets)
    if 2 * longest > stop.remaining():
        kit.warning(
            f"A slow target may take {2 * longest:g} s to deregister (twice 'timeout'), and "
            f"'stop_grace' is {stop.remaining():g} s: the entry would be left to expire"
        )


class _VerdictLog:
    """Log the engine's state when it changes, and again while a fault lasts."""

    def __init__(self) -> None:
        self._logged: Verdict | None = None
        self._since = 0.0

    def report(self, verdict: Verdict) -> None:
        """Log a verdict if it is due."""
        now = time.monotonic()
        same = self._logged is not None and self._logged.state == verdict.state
        if same and (verdict.healthy or now - self._since < REMINDER):
            return
        self._logged, self._since = verdict, now
        if verdict.healthy:
            kit.info("The engine works")
        elif verdict.state == "starting" and not same:
            kit.info(f"The engine is starting: {verdict.reason}")
        else:
            kit.warning(f"The engine is {verdict.state}: {verdict.reason}")
