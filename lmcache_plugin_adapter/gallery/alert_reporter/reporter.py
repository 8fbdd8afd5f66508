"""The alert reporter: measure, judge, tell, and say goodbye."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.alert_reporter.measuring.death import Autopsy
from lmcache_plugin_adapter.gallery.alert_reporter.measuring.measures import Meter
from lmcache_plugin_adapter.gallery.alert_reporter.targets.delivery import Delivery
from lmcache_plugin_adapter.gallery.engine_health.health import EngineHealth
from lmcache_plugin_adapter.gallery.engine_health.process import has_died

from .alerts import Alerts
from .firing_file import FiringFile
from .rules import DIED, Change, Tracker
from .settings import read_plan, state_directory

if TYPE_CHECKING:
    from lmcache_plugin_adapter.kit import Context, Stop

    from .alerts import Alert
    from .settings import Plan

_MARGIN = 0.4
"""Seconds of the grace period that are left for ending."""

_WORD_OF_END = 2.0
"""Seconds in which SIGTERM follows on the engine's end, where a supervisor looks after us."""

_LAST_WORDS = 10.0
"""Seconds for the last alerts where no SIGTERM came: then nothing presses."""

_HOW = {
    "": "goes on, only this plugin ends",
    "closing": "closes in order",
    "replaced": "became another program",
    "told": "may go on, but its supervisor was told to stop",
}
"""What becomes of an engine that has not died, by the supervisor's word."""


def report(ctx: Context, stop: Stop) -> int:
    """Run the reporter until its engine ends or it is told to end."""
    if ctx.engine_pid is None:
        raise kit.ContextError(
            "the engine is not known: LMCACHE_RUNTIME_PLUGIN_ENGINE_PID is not set; "
            "the supervisor of lmcache-plugin-adapter sets it"
        )
    return Reporter(ctx, stop, ctx.engine_pid, read_plan(ctx)).run()


class Reporter:
    """See the module.

    Args:
        ctx: The plugin's context.
        stop: Says when to end.
        engine: The engine process.
        plan: What to look at, and whom to tell.
    """

    def __init__(self, ctx: Context, stop: Stop, engine: int, plan: Plan) -> None:
        self._ctx = ctx
        self._stop = stop
        self._engine = engine
        self._plan = plan
        self._state = ""
        """What was found of the engine's state when it was last looked at."""
        settings = plan.settings
        self._health = EngineHealth(ctx, settings.health)
        measures = {rule.measure for rule in plan.rules}
        self._meter = Meter(engine, measures, self._engine_state, kit.warning)
        self._autopsy = Autopsy(engine)
        self._trackers = [Tracker(rule) for rule in plan.rules]
        self._deliveries = [Delivery(target, settings.keep_resolved) for target in plan.targets]
        self._alerts = Alerts(ctx, plan.labels, settings.annotations, self._tell)
        self._remembered: FiringFile | None = None
        if not all(target.remembers for target in plan.targets):
            self._remembered = FiringFile(state_directory(ctx, settings), plan.labels)

    def run(self) -> int:
        """Measure and tell until the end; return the exit code."""
        settings = self._plan.settings
        places = ", ".join(f"'{delivery.target.shown}'" for delivery in self._deliveries)
        count = len(self._trackers)
        kit.info(
            f"Watching engine process {self._engine} ({self._ctx.label}) by "
            f"{count} {'rule' if count == 1 else 'rules'}; alerts go to {places}"
        )
        if settings.engine_died and self._meter.alive:
            alert = self._alerts.engine_lives(settings.engine_died_severity)
            for delivery in self._deliveries:
                if delivery.target.remembers:
                    delivery.tell(alert)
        self._inherit()
        for _ in kit.every(settings.interval, jitter=0.0, stop=self._stop):
            if not self._meter.alive:
                self._stop.wait(_WORD_OF_END)
                break
            self._look()
        word = self._ctx.ending
        self._end(has_died(word, not self._meter.ends), word)
        return 0

    def _inherit(self) -> None:
        """Go on with what fired for a reporter before this one, or resolve it."""
        now = time.time()
        trackers = {self._alerts.id_of(one.rule): one for one in self._trackers}
        for alert in self._remembered.load() if self._remembered is not None else ():
            over = alert.ends_at or alert.expires_at
            if over is not None and over < now - self._plan.settings.keep_resolved:
                continue
            tracker = trackers.get(alert.id)
            if tracker is not None:
                tracker.firing = alert.firing
            self._alerts.inherit(alert, goes_on=tracker is not None)

    def _remember(self) -> None:
        """Note what webhooks take for firing, or are still to be told of."""
        if self._remembered is not None:
            alerts = {alert.id: alert for alert in self._alerts.firing}
            for delivery in self._deliveries:
                if not delivery.target.remembers:
                    alerts.update((alert.id, alert) for alert in delivery.untold)
            self._remembered.save(alerts.values())

    def _look(self) -> None:
        """Measure once and judge."""
        values = None
        with self._stop.interruptible():  # a question to the engine takes its time
            values = self._meter.read()
        if values is None or not self._meter.alive:
            return  # it is time to end; a dead engine has an alert of its own
        now = time.monotonic()
        for tracker in self._trackers:
            value = values.get(tracker.rule.measure)
            change = tracker.take(now, value)
            if change is Change.FIRES:
                self._say(self._alerts.fire(tracker.rule, value, self._state))
            elif change is Change.RESOLVES:
                resolved = self._alerts.resolve(tracker.rule)
                if resolved is not None:
                    self._say(resolved)
        self._remember()

    def _end(self, died: bool, word: str) -> None:
        """Tell how it ended, in the time that is left."""
        settings = self._plan.settings
        resolved = self._alerts.resolve_all()
        if died and settings.engine_died:
            self._say(
                self._alerts.engine_died(
                    settings.engine_died_severity,
                    self._autopsy.report(word),
                    settings.engine_died_keep,
                )
            )
        seconds = _LAST_WORDS
        if self._stop.is_set():
            seconds = max(self._stop.remaining() - _MARGIN, 0.1)
        for delivery in self._deliveries:
            delivery.finish(seconds)
        for delivery in self._deliveries:
            # That no engine had died is said at the start, and no loss.
            untold = [one for one in delivery.join() if one.firing or one.name != DIED]
            if untold:
                names = ", ".join(
                    sorted({f"{one.name}{'' if one.firing else ' (resolved)'}" for one in untold})
                )
                why = delivery.trouble or "no answer in time"
                kit.error(f"Not told to '{delivery.target.shown}': {names}: {why}")
        self._remember()
        how = "has died" if died else _HOW.get(word, "ends")
        count = "1 alert" if len(resolved) == 1 else f"{len(resolved)} alerts"
        kit.info(f"Ending: engine process {self._engine} {how}; {count} resolved")

    def _engine_state(self) -> str:
        verdict = self._health.check()
        self._state = verdict.reason
        return verdict.state

    def _tell(self, alert: Alert) -> None:
        if alert.firing:
            self._remember()  # before: once it is told, it must not be forgotten
        for delivery in self._deliveries:
            delivery.tell(alert)

    @staticmethod
    def _say(alert: Alert) -> None:
        text = alert.annotations.get("description", "")
        if not alert.firing:
            kit.info(f"Alert {alert.name!r} resolved")
        elif alert.name == DIED or alert.labels.get("severity") == "critical":
            kit.error(f"Alert {alert.name!r} fires: {text}")
        else:
            kit.warning(f"Alert {alert.name!r} fires: {text}")
