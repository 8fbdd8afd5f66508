# SPDX-License-Identifier: Apache-2.0
"""Decide when a rule fires and when it resolves, one value at a time."""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter.gallery.alert_reporter.measuring.engine_metrics import (
    ENGINE_QUERIES,
    SELECTOR,
    Query,
    Statistic,
)
from lmcache_plugin_adapter.gallery.alert_reporter.measuring.measures import MEASURES
from lmcache_plugin_adapter.kit.settings.quantities import Amount, Duration

Seconds = Annotated[Duration, Meta(ge=0, le=86400 * 7)]
Word = Annotated[str, Meta(min_length=1, max_length=200)]
LabelName = Annotated[
    str,
    Meta(
        pattern=r"^(?!(alertname|severity)$)[a-zA-Z_][a-zA-Z0-9_]*$",
        extra={
            "accepted": "letters, digits and '_', not beginning with a digit, and neither "
            "'alertname' nor 'severity'"
        },
    ),
]
"""A label name that Alertmanager accepts, except those with a setting of their own."""

Labels = dict[LabelName, str]

AnnotationName = Annotated[
    str,
    Meta(
        pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$",
        extra={"accepted": "letters, digits and '_', not beginning with a digit"},
    ),
]
"""An annotation name that Alertmanager accepts: it refuses a whole request for another one."""

Annotations = dict[AnnotationName, str]

if TYPE_CHECKING:
    MeasureName = str
else:
    MeasureName = Literal[tuple(MEASURES)]
"""The name of a measure in :data:`.measuring.measures.MEASURES`."""

Selector = Annotated[
    str,
    Meta(
        pattern=SELECTOR,
        extra={"accepted": 'the name of a metric, also with labels: name{label="value"}'},
    ),
]

DIED = "EngineDied"
"""The alert of a dead engine process. It has no rule, because there is nothing to measure."""


class Rule(msgspec.Struct, kw_only=True, frozen=True):
    """An alert, with its measure and its limit."""

    name: Word
    """Name of the alert: label `alertname`."""
    measure: MeasureName | None = None
    """The measure to compare: see the table of measures."""
    metric: Selector | None = None
    """Instead of `measure`: any metric at `health.metrics_url`, such as
    `vllm:request_success_total{finished_reason="abort"}`."""
    of: Statistic = "value"
    """The figure to compare: `value` (the sum of its series), the largest one (`max`), its
    increase `per_second`, or of a histogram its `mean` or a quantile (`p95`)."""
    over: Annotated[Duration, Meta(ge=1, le=86400)] = 60.0
    """Seconds over which `per_second`, `mean` and quantiles are taken."""
    above: Amount | None = None
    """Fires if the measure is above this value."""
    below: Amount | None = None
    """Fires if the measure is below this value. Set one of the two."""
    for_: Seconds = msgspec.field(default=0.0, name="for")
    """Seconds for which this must hold without a break."""
    hysteresis: Annotated[Amount, Meta(ge=0)] = 0.0
    """How far the measure must return beyond the limit before the alert resolves: with `above: 90`
    and `hysteresis: 5`, to 85."""
    clear_after: Seconds = 0.0
    """Seconds for which the measure must be good without a break before the alert resolves."""
    severity: Word = "warning"
    """Label `severity`."""
    labels: Labels = {}
    """More labels of the alert."""
    annotations: Annotations = {}
    """Texts of the alert, such as `runbook_url`. They may contain `{value}`, `{limit}`,
    `{measure}`, `{role}` (such as `worker 1`), `{engine}` (its process and role) and `{host}`.
    `summary` and `description` have defaults."""

    def __post_init__(self) -> None:
        """Refuse contradictory limits and the reserved name."""
        if (self.measure is None) == (self.metric is None):
            raise ValueError("give one of measure and metric")
        if self.of != "value" and self.metric is None:
            raise ValueError("of needs metric")
        if (self.above is None) == (self.below is None):
            raise ValueError("give one of above and below")
        if not math.isfinite(self.limit):
            raise ValueError(f"{self.limit} is no limit")
        if self.name == DIED:
            raise ValueError(f"'{DIED}' is a reserved name, see engine_died")

    @property
    def subject(self) -> str:
        """The value that the rule compares, for messages and as the key of its value."""
        if self.measure is not None:
            return self.measure
        lasting = f" over {self.over:g} s" if self.of not in ("value", "max") else ""
        return f"{self.metric}" if self.of == "value" else f"{self.of} of {self.metric}{lasting}"

    @property
    def query(self) -> Query | None:
        """The parts of the engine's metrics to read; None: the rule is not on them."""
        if self.metric is not None:
            return Query((self.metric,), self.of, self.over)
        return ENGINE_QUERIES.get(self.measure or "")

    @property
    def limit(self) -> float:
        """The number to compare the measure with."""
        limit = self.above if self.above is not None else self.below
        return 0.0 if limit is None else limit

    def judge(self, value: float | None) -> Judgement:
        """Judge a value; None means that there is no value."""
        if value is None:
            return Judgement.NEITHER
        if self.above is not None:
            over = value - self.above
        elif self.below is not None:
            over = self.below - value
        else:
            return Judgement.NEITHER
        if over > 0:
            return Judgement.BAD
        return Judgement.GOOD if over <= -self.hysteresis else Judgement.NEITHER


class Judgement(Enum):
    """A rule's judgement of a value."""

    BAD = "bad"
    GOOD = "good"
    NEITHER = "neither"
    """Between limit and hysteresis, or no number: no alert fires or resolves."""


class Change(Enum):
    """The effect of a value on a rule."""

    FIRES = "fires"
    RESOLVES = "resolves"


class Tracker:
    """Track the state of one rule.

    The rule fires after ``for`` seconds of bad values without a break, and resolves after
    ``clear_after`` seconds of good values without a break.

    Args:
        rule: The rule.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.firing = False
        self._since: float | None = None
        """The time since which all values demand a change."""

    def take(self, now: float, value: float | None) -> Change | None:
        """Take a value; return its effect, or None.

        Args:
            now: A monotonic time, in seconds.
            value: None if it could not be measured.
        """
        against = Judgement.GOOD if self.firing else Judgement.BAD
        if self.rule.judge(value) is not against:
            self._since = None
            return None
        if self._since is None:
            self._since = now
        if now - self._since < (self.rule.clear_after if self.firing else self.rule.for_):
            return None
        self._since = None
        self.firing = not self.firing
        return Change.FIRES if self.firing else Change.RESOLVES


BUILT_IN: tuple[Rule, ...] = (
    Rule(
        name="EngineMemoryHigh",
        measure="memory_percent",
        above=90,
        for_=60,
        hysteresis=3,
        clear_after=60,
    ),
    Rule(
        name="ContainerMemoryAlmostFull",
        measure="container_memory_percent",
        above=97,
        for_=10,
        hysteresis=3,
        clear_after=60,
        severity="critical",
    ),
    Rule(
        name="EngineDescriptorsHigh",
        measure="descriptors_percent",
        above=80,
        for_=60,
        hysteresis=5,
        clear_after=60,
    ),
    Rule(name="EngineStopped", measure="engine_stopped", above=0, severity="critical"),
    Rule(
        name="EngineUnresponsive",
        measure="engine_unresponsive",
        above=0,
        for_=15,
        clear_after=15,
        severity="critical",
    ),
    Rule(
        name="EngineStalled", measure="engine_stalled", above=0, clear_after=15, severity="critical"
    ),
)
"""The rules for every engine; a rule in the settings with the same name replaces one."""
