# SPDX-License-Identifier: Apache-2.0
"""The alert reporter: measure, apply the rules, deliver alerts, resolve them at the end."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.contract import variables
from lmcache_plugin_adapter.gallery.alert_reporter.measuring.cgroup import ContainerOomKills
from lmcache_plugin_adapter.gallery.alert_reporter.measuring.disk import disk_paths
from lmcache_plugin_adapter.gallery.alert_reporter.measuring.engine_metrics import EngineMetrics
from lmcache_plugin_adapter.gallery.alert_reporter.measuring.measures import Meter
from lmcache_plugin_adapter.gallery.alert_reporter.targets.delivery import AlertDelivery
from lmcache_plugin_adapter.gallery.alert_reporter.targets.webhook import document
from lmcache_plugin_adapter.gallery.engine_health.health import EngineHealth
from lmcache_plugin_adapter.gallery.engine_health.process import has_died

from .alerts import Alerts
from .firing_file import FiringFile
from .rules import DIED, Change, Tracker
from .settings import read_plan, state_directory

if TYPE_CHECKING:
    from lmcache_plugin_adapter.kit import Context, Stop

    from .alerts import Alert
    from .settings import AlertPlan

_MARGIN = 0.4
"""Seconds of the grace period reserved for the exit."""

_SIGTERM_DELAY = 2.0
"""Seconds in which the supervisor sends SIGTERM after the engine's exit."""

_LAST_SECONDS = 10.0
"""Seconds for the last alerts if no SIGTERM arrives."""

_HOW = {
    "": "goes on, only this plugin stops",
    variables.CLOSING: "closes in order",
    variables.REPLACED: "became another program",
    variables.TOLD: "may go on, but its supervisor was told to stop",
}
"""The fate of an engine that has not died, by the supervisor's exit reason."""


def report(ctx: Context, stop: Stop) -> int:
    """Run the reporter until the engine exits or the plugin is to stop; return the exit code."""
    if ctx.engine_pid is None:
        raise kit.ContextError(
            "the engine is unknown: LMCACHE_RUNTIME_PLUGIN_ENGINE_PID is not set; "
            "the supervisor of lmcache-plugin-adapter sets it"
        )
    return AlertReporter(ctx, stop, ctx.engine_pid, read_plan(ctx)).run()


class AlertReporter:
    """Measure one engine process and deliver its alerts.

    Args:
        ctx: The plugin's context.
        stop: Tells when to stop.
        engine: The engine process.
        plan: The rules and the targets.
    """

    def __init__(self, ctx: Context, stop: Stop, engine: int, plan: AlertPlan) -> None:
        self._ctx = ctx
        self._stop = stop
        self._engine = engine
        self._plan = plan
        self._state = ""
        """The reason for the engine's state, from the last check."""
        settings = plan.settings
        self._health = EngineHealth(ctx, settings.health)
        measures = {rule.measure for rule in plan.rules if rule.measure is not None}
        self._meter = Meter(
            *(engine, measures, self._engine_state, kit.warning), disk_paths(ctx.config)
        )
        self._metrics = engine_metrics(plan)
        self._kills = ContainerOomKills(engine)
        self._trackers = [Tracker(rule) for rule in plan.rules]
        self._deliveries = [
            AlertDelivery(target, settings.keep_resolved) for target in plan.targets
        ]
        self._alerts = Alerts(ctx, plan.labels, settings.annotations, self._deliver)
        self._firing_file: FiringFile | None = None
        if not all(target.keeps_alerts for target in plan.targets):
            self._firing_file = FiringFile(state_directory(ctx, settings), plan.labels)

    def run(self) -> int:
        """Measure and deliver until the end; return the exit code."""
        settings = self._plan.settings
        places = ", ".join(f"'{delivery.target.shown}'" for delivery in self._deliveries)
        places = places or "the console only"
        count = len(self._trackers)
        kit.info(
            f"Watching engine process {self._engine} ({self._ctx.label}) by "
            f"{count} {'rule' if count == 1 else 'rules'}; alerts go to {places}"
        )
        if settings.engine_died and self._meter.alive:
            alert = self._alerts.engine_lives(settings.engine_died_severity)
            for delivery in self._deliveries:
                if delivery.target.keeps_alerts:
                    delivery.put(alert)
        self._inherit()
        for _ in kit.every(settings.interval, jitter=0.0, stop=self._stop):
            if not self._meter.alive:
                self._stop.wait(_SIGTERM_DELAY)
                break
            self._measure()
        word = self._ctx.ending
        self._end(has_died(word, not self._meter.ends), word)
        return 0

    def _inherit(self) -> None:
        """Take over the previous reporter's alerts, or resolve them."""
        now = time.time()
        trackers = {self._alerts.id_of(one.rule): one for one in self._trackers}
        for alert in self._firing_file.load() if self._firing_file is not None else ():
            over = alert.ends_at or alert.expires_at
            if over is not None and over < now - self._plan.settings.keep_resolved:
                continue
            tracker = trackers.get(alert.id)
            if tracker is not None:
                tracker.firing = alert.firing
            self._alerts.inherit(alert, goes_on=tracker is not None)

    def _store(self) -> None:
        """Store the alerts that webhooks consider firing, or have not received yet."""
        if self._firing_file is not None:
            alerts = {alert.id: alert for alert in self._alerts.firing}
            for delivery in self._deliveries:
                if not delivery.target.keeps_alerts:
                    alerts.update((alert.id, alert) for alert in delivery.undelivered)
            self._firing_file.save(alerts.values())

    def _measure(self) -> None:
        """Measure once and apply the rules."""
        values = None
        with self._stop.interruptible():  # a health check takes some time
            values = self._meter.read()
            if self._metrics is not None:
                values.update(self._metrics.read())
        if values is None or not self._meter.alive:
            return  # the end; a dead engine has its own alert
        now = time.monotonic()
        for tracker in self._trackers:
            value = values.get(tracker.rule.subject)
            change = tracker.take(now, value)
            if change is Change.FIRES:
                self._log(self._alerts.fire(tracker.rule, value, self._state))
            elif change is Change.RESOLVES:
                resolved = self._alerts.resolve(tracker.rule)
                if resolved is not None:
                    self._log(resolved)
        self._store()

    def _end(self, died: bool, word: str) -> None:
        """Deliver the last alerts in the time that is left."""
        settings = self._plan.settings
        resolved = self._alerts.resolve_all()
        if died and settings.engine_died:
            self._log(
                self._alerts.engine_died(
                    settings.engine_died_severity,
                    _cause_of_death(word, self._kills.since()),
                    settings.engine_died_keep,
                )
            )
        seconds = _LAST_SECONDS
        if self._stop.is_set():
            seconds = max(self._stop.remaining() - _MARGIN, 0.1)
        for delivery in self._deliveries:
            delivery.finish(seconds)
        for delivery in self._deliveries:
            # The resolved EngineDied from the start is no loss.
            undelivered = [one for one in delivery.join() if one.firing or one.name != DIED]
            if undelivered:
                found = {f"{one.name}{'' if one.firing else ' (resolved)'}" for one in undelivered}
                names = ", ".join(sorted(found))
                why = delivery.problem or "no answer in time"
                kit.error(f"Not delivered to '{delivery.target.shown}': {names}: {why}")
        self._store()
        how = "has died" if died else _HOW.get(word, "ends")
        count = "1 alert" if len(resolved) == 1 else f"{len(resolved)} alerts"
        kit.info(f"Stopping: engine process {self._engine} {how}; {count} resolved")

    def _engine_state(self) -> str:
        verdict = self._health.check()
        self._state = verdict.reason
        return verdict.state

    def _deliver(self, alert: Alert) -> None:
        if alert.firing:
            self._store()  # first: a delivered alert must not be forgotten
        for delivery in self._deliveries:
            delivery.put(alert)
        if self._plan.settings.target == "console":
            kit.info(f"Would send: {json.dumps(document(alert, time.time(), again=False))}")

    @staticmethod
    def _log(alert: Alert) -> None:
        text = alert.annotations.get("description", "")
        if not alert.firing:
            kit.info(f"Alert {alert.name!r} resolved")
        elif alert.name == DIED or alert.labels.get("severity") == "critical":
            kit.error(f"Alert {alert.name!r} fires: {text}")
        else:
            kit.warning(f"Alert {alert.name!r} fires: {text}")


def engine_metrics(plan: AlertPlan) -> EngineMetrics | None:
    """Return what reads the engine's metrics; None: no rule needs them, or nobody serves them."""
    queries = {rule.subject: rule.query for rule in plan.rules if rule.query is not None}
    if not queries:
        return None
    health = plan.settings.health
    if health.metrics_url is None:
        names = ", ".join(sorted(repr(name) for name in queries))
        kit.warning(
            f"Cannot measure {names}: 'health.metrics_url' is not set; rules on it stay quiet"
        )
        return None
    return EngineMetrics(*(health.metrics_url, health.timeout, health.verify, queries, kit.warning))


def _cause_of_death(word: str, killed: int) -> str:
    """Return the cause of the engine's death, to follow "engine process 4711" in a text.

    Args:
        word: The context's ``ending``.
        killed: The number of processes in the container that the kernel killed meanwhile.
    """
    how = "was ended by an exception." if word == variables.FAILED else "has ended without closing."
    if not killed:
        return how
    count = "1 process" if killed == 1 else f"{killed} processes"
    return f"{how} Meanwhile the kernel killed {count} of its container for lack of memory."
