"""When a rule fires and when it resolves: pure, one value at a time."""

from __future__ import annotations

import math
from enum import Enum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(ge=0, le=86400 * 7)]
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
"""What Alertmanager takes for the name of a label, but for those that have a key of their own."""

Labels = dict[LabelName, str]

MeasureName = Literal[
    "memory_bytes",
    "memory_percent",
    "container_memory_percent",
    "cpu_percent",
    "descriptors",
    "descriptors_percent",
    "threads",
    "read_bytes_per_second",
    "write_bytes_per_second",
    "gpu_memory_bytes",
    "gpu_memory_percent",
    "engine_unhealthy",
    "engine_stopped",
    "engine_unresponsive",
    "engine_stalled",
]
"""Every measure of :data:`.measures.MEASURES`."""

DIED = "EngineDied"
"""The alert of an engine process that has died. It has no rule: nothing is measured any more."""


class Rule(msgspec.Struct, kw_only=True, frozen=True):
    """An alert, and the measure and limit that it depends on."""

    name: Word
    """Name of the alert: label `alertname`."""
    measure: MeasureName
    """What is looked at: see the table of measures."""
    above: float | None = None
    """Fires when the measure is above this."""
    below: float | None = None
    """Fires when the measure is below this. Give one of the two."""
    for_: Seconds = msgspec.field(default=0.0, name="for")
    """Seconds for which it must be so, without a break."""
    hysteresis: Annotated[float, Meta(ge=0)] = 0.0
    """How far the measure must come back beyond the limit before it is well again: with `above: 90`
    and `hysteresis: 5`, to 85."""
    clear_after: Seconds = 0.0
    """Seconds for which it must be well, without a break, before it resolves."""
    severity: Word = "warning"
    """Label `severity`."""
    labels: Labels = {}
    """More labels of the alert."""
    annotations: dict[str, str] = {}
    """Texts that go with the alert, such as `runbook_url`. They may hold `{value}`, `{limit}`,
    `{measure}`, `{role}` (such as `worker 1`), `{engine}` (its process and role) and `{host}`.
    `summary` and `description` are there without being given."""

    def __post_init__(self) -> None:
        """Refuse what no rule can be."""
        if (self.above is None) == (self.below is None):
            raise ValueError("give one of above and below")
        if not math.isfinite(self.limit):
            raise ValueError(f"{self.limit} is no limit")
        if self.name == DIED:
            raise ValueError(f"'{DIED}' is an alert of its own, see engine_died")

    @property
    def limit(self) -> float:
        """The number that the measure is compared with."""
        limit = self.above if self.above is not None else self.below
        return 0.0 if limit is None else limit

    def judge(self, value: float | None) -> Judgement:
        """Say how a value is; None is no value."""
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
    """How a value is in the eyes of a rule."""

    BAD = "bad"
    GOOD = "good"
    NEITHER = "neither"
    """Between limit and hysteresis, or no number: nothing begins, and nothing ends."""


class Change(Enum):
    """What a value did to a rule."""

    FIRES = "fires"
    RESOLVES = "resolves"


class Tracker:
    """Follows one rule.

    It fires once its values were bad for ``for`` seconds without a break, and
    resolves once they were good for ``clear_after`` seconds without a break.

    Args:
        rule: Which.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.firing = False
        self._since: float | None = None
        """Since when all values speak for a change."""

    def take(self, now: float, value: float | None) -> Change | None:
        """Take a value.

        Args:
            now: Seconds that only grow.
            value: None where it could not be measured.

        Returns:
            What happens now, or None.
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
"""Rules for every engine; a rule of the settings with the same name takes the place of one."""
