# SPDX-License-Identifier: Apache-2.0
"""Alerts: their labels and texts, and which of them fire."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping  # noqa: TC003 - msgspec reads annotations
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.gallery.alert_reporter.measuring.measures import MEASURES

from .rules import DIED

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.kit import Context

    from .rules import Rule

_MADE_UP = re.compile(r"_[0-9a-f]{32}$")
"""The end of an ``lmcache_instance_id`` that LMCache has generated."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Alert:
    """The state of one alert."""

    labels: Mapping[str, str]
    """Its identity."""
    annotations: Mapping[str, str]
    """Its texts for people."""
    starts_at: float
    """When it fired, in seconds since 1970."""
    ends_at: float | None = None
    """When it resolved; None while it fires."""
    expires_at: float | None = None
    """When it ends on its own, if nobody is left to resolve it; None: never."""
    measure: str = ""
    """The measure; empty if there is none."""
    value: float | None = None
    """The value that made it fire."""
    limit: float | None = None
    """The limit that the value was compared with."""

    @property
    def name(self) -> str:
        """The alert's name."""
        return self.labels["alertname"]

    @property
    def firing(self) -> bool:
        """Whether it fires; otherwise it has resolved."""
        return self.ends_at is None

    @property
    def id(self) -> str:
        """The same for all states of this alert, in every process; hexadecimal."""
        return identity(self.labels)


class Alerts:
    """The firing alerts of one engine.

    Args:
        ctx: The plugin's context.
        labels: The labels of all alerts.
        annotations: The annotations of all alerts.
        send: Receives each alert that fires, and each that resolves.
        clock: Returns the seconds since 1970.
    """

    def __init__(
        self,
        ctx: Context,
        labels: Mapping[str, str],
        annotations: Mapping[str, str],
        send: Callable[[Alert], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._common = labels
        self._annotations = annotations
        self._send = send
        self._clock = clock
        self._places = {"engine": f"engine process {ctx.engine_pid} ({ctx.label})"}
        self._places.update(host=ctx.host, role=ctx.label)
        self._firing: dict[str, Alert] = {}

    @property
    def firing(self) -> list[Alert]:
        """The firing alerts."""
        return list(self._firing.values())

    def labels(self, name: str, severity: str, more: Mapping[str, str]) -> dict[str, str]:
        """Return the labels of an alert, without labels that have no value."""
        labels = {**self._common, **more, "alertname": name, "severity": severity}
        return {name: value for name, value in labels.items() if value}

    def fire(self, rule: Rule, value: float | None, state: str = "") -> Alert:
        """Fire the alert of a rule.

        Args:
            rule: The rule.
            value: The measured value.
            state: The reason for the engine's state, for rules on that state.
        """
        unit = MEASURES[rule.measure].unit if rule.measure is not None else ""
        side = "above" if rule.above is not None else "below"
        limit = worded(rule.limit, unit)
        places = {
            **self._places,
            "value": "unknown" if value is None else worded(value, unit),
            "limit": limit,
            "measure": rule.subject,
        }
        lasting = f" for {rule.for_:g} s" if rule.for_ else ""
        own = {
            "summary": f"{rule.name} of {{role}} on {{host}}: {{measure}} is {{value}}",
            "description": f"{{measure}} of {{engine}} is {{value}}, {side} {{limit}}{lasting}.",
        }
        if rule.subject.startswith("engine_") and state:
            own["summary"] = f"{rule.name} of {{role}} on {{host}}"
            own["description"] = f"{{role}}: {state}."
        return self._fire(
            Alert(
                labels=self.labels(rule.name, rule.severity, rule.labels),
                annotations=_filled({**own, **self._annotations, **rule.annotations}, places),
                starts_at=self._clock(),
                measure=rule.subject,
                value=value,
                limit=float(rule.limit),
            )
        )

    def resolve(self, rule: Rule) -> Alert | None:
        """Resolve the alert of a rule, if it fires."""
        alert = self._firing.pop(self.id_of(rule), None)
        return None if alert is None else self._resolve(alert)

    def id_of(self, rule: Rule) -> str:
        """Return the id of a rule's alert."""
        return identity(self.labels(rule.name, rule.severity, rule.labels))

    def inherit(self, alert: Alert, *, goes_on: bool) -> None:
        """Take over an alert of the previous reporter.

        Args:
            alert: The alert.
            goes_on: Whether a rule will resolve it; otherwise it resolves now.
        """
        if alert.ends_at is not None:
            self._send(alert)
        elif goes_on:
            self._fire(alert)
        else:
            self._resolve(alert)

    def resolve_all(self) -> list[Alert]:
        """Resolve all firing alerts."""
        resolved = [self._resolve(alert) for alert in self._firing.values()]
        self._firing.clear()
        return resolved

    def engine_died(self, severity: str, how: str, keep: float) -> Alert:
        """Fire the alert of a dead engine.

        Args:
            severity: The severity of the alert.
            how: The cause of the death.
            keep: Seconds after which the alert ends on its own.
        """
        now = self._clock()
        own = {"summary": f"{DIED}: {{role}} on {{host}}", "description": f"{{engine}} {how}"}
        return self._fire(
            Alert(
                labels=self.labels(DIED, severity, {}),
                annotations=_filled({**own, **self._annotations}, self._places),
                starts_at=now,
                expires_at=now + keep,
            )
        )

    def engine_lives(self, severity: str) -> Alert:
        """Return, without sending it, a resolved alert for the death of the previous engine."""
        now = self._clock()
        return Alert(
            labels=self.labels(DIED, severity, {}),
            annotations=_filled({"summary": "{engine} runs"}, self._places),
            starts_at=now,
            ends_at=now,
        )

    def _fire(self, alert: Alert) -> Alert:
        self._firing[identity(alert.labels)] = alert
        self._send(alert)
        return alert

    def _resolve(self, alert: Alert) -> Alert:
        # After a step of the clock, an alert must not end before it began.
        resolved = replace(alert, ends_at=max(self._clock(), alert.starts_at), expires_at=None)
        self._send(resolved)
        return resolved


def labels_of(ctx: Context, engine: str) -> dict[str, str]:
    """Return the labels of a plugin's engine process.

    Args:
        ctx: The plugin's context.
        engine: The engine's name from the settings; empty: ``lmcache_instance_id``, unless LMCache
            has generated it, because then it changes at each start.
    """
    if not engine:
        given = ctx.config.get("lmcache_instance_id")
        if isinstance(given, str) and _MADE_UP.search(given) is None:
            engine = given
    return {
        "engine": engine,
        "role": ctx.role.lower(),
        "rank": str(ctx.worker_id) if ctx.role == "WORKER" else "",
        "dp_rank": str(ctx.dp_rank),
        "host": ctx.host,
    }


def identity(labels: Mapping[str, str]) -> str:
    """Return a hexadecimal id that is unique for these labels."""
    parts = [f"{name}\0{value}\0" for name, value in sorted(labels.items())]
    text = "".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:16]


def timestamp(seconds: float) -> str:
    """Return a time in RFC 3339, in UTC, with milliseconds."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def worded(value: float, unit: str) -> str:
    """Return a value with its unit, for messages."""
    if unit.startswith("bytes"):
        for name in ("B", "KiB", "MiB", "GiB"):
            if abs(value) < 1024 or name == "GiB":
                break
            value /= 1024
        return f"{value:.4g} {name}{unit.removeprefix('bytes')}"
    return f"{value:.4g} {unit}".rstrip()


def _filled(texts: Mapping[str, str], places: Mapping[str, str]) -> dict[str, str]:
    """Replace the known placeholders; leave other words in braces as they are."""
    return {
        name: _PLACEHOLDER.sub(lambda match: places.get(match[1], match[0]), text)
        for name, text in texts.items()
    }
