# SPDX-License-Identifier: Apache-2.0
"""The settings of the alert reporter, and the rules and targets that follow from them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.alert_reporter.targets.alertmanager import Alertmanager
from lmcache_plugin_adapter.gallery.alert_reporter.targets.pagerduty import PagerDuty
from lmcache_plugin_adapter.gallery.alert_reporter.targets.slack import Slack
from lmcache_plugin_adapter.gallery.alert_reporter.targets.teams import Teams
from lmcache_plugin_adapter.gallery.alert_reporter.targets.webhook import Webhook
from lmcache_plugin_adapter.gallery.engine_health.settings import HealthSettings
from lmcache_plugin_adapter.gallery.http_client.address import Filled
from lmcache_plugin_adapter.gallery.state_file import default_directory
from lmcache_plugin_adapter.kit.settings.quantities import Duration

from .alerts import identity, labels_of
from .rules import BUILT_IN, Annotations, Labels, Rule, Seconds, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcache_plugin_adapter.gallery.alert_reporter.targets.target import AlertTarget
    from lmcache_plugin_adapter.kit import Context

if TYPE_CHECKING:
    BuiltIn = str
else:
    BuiltIn = Literal[tuple(rule.name for rule in BUILT_IN)]
"""The name of a built-in rule."""


class AlertSettings(msgspec.Struct, kw_only=True):
    """All settings of the alert reporter."""

    alertmanagers: list[Alertmanager] = []
    """Alertmanagers. Each target receives every alert."""
    webhooks: list[Webhook] = []
    """Other servers."""
    slack: list[Slack] = []
    """Incoming webhooks of Slack."""
    teams: list[Teams] = []
    """Webhooks of Microsoft Teams."""
    pagerduty: list[PagerDuty] = []
    """Services of PagerDuty."""
    target: Literal["console"] | None = None
    """`console` prints the documents for a webhook, and sends nothing."""
    rules: list[Rule] = []
    """Rules in addition to the built-in ones. A rule with the name of a built-in rule replaces
    it."""
    without: list[BuiltIn] = []
    """Names of built-in rules to leave out."""
    built_in_rules: bool = True
    """`false` leaves only the rules in `rules`."""
    interval: Annotated[Duration, Meta(ge=0.1, le=3600)] = 5.0
    """Seconds between two measurements."""
    engine: Annotated[str, Meta(max_length=200)] = ""
    """Name of the engine: label `engine`. Default: LMCache's `lmcache_instance_id`, if set."""
    labels: Labels = {}
    """More labels of every alert, such as `cluster`. The labels of a rule win."""
    annotations: Annotations = {}
    """More annotations of every alert; see `rules`."""
    engine_died: bool = True
    """Whether `EngineDied` fires when the engine dies."""
    engine_died_severity: Word = "critical"
    """Label `severity` of `EngineDied`."""
    engine_died_keep: Annotated[Duration, Meta(ge=60, le=30 * 86400)] = 3600.0
    """Seconds for which `EngineDied` fires, unless a reporter with the same labels starts."""
    keep_resolved: Seconds = 3600.0
    """Seconds for which a resolved alert is kept for an unreachable target."""
    state_directory: Filled | None = None
    """Directory for the alerts that webhooks consider firing. `~` and `$VARS` are expanded.
    Default: `$XDG_STATE_HOME/lmcache-plugins/NAME`, or `~/.local/state/lmcache-plugins/NAME`, with
    the plugin's name."""
    health: HealthSettings = msgspec.field(default_factory=HealthSettings)
    """How the measures `engine_…` are determined, as in the heartbeat."""

    def why_unusable(self, key: str) -> str:
        """Return why the plugin cannot work with these settings, found at ``key``, or nothing."""
        lists = (self.alertmanagers, self.webhooks, self.slack, self.teams, self.pagerduty)
        if self.target or any(lists):
            return ""
        return (
            f"no target for alerts: '{key}.alertmanagers' and '{key}.webhooks' have "
            "no usable entry, and neither have 'slack', 'teams' and 'pagerduty'; add one, such as "
            "alertmanagers: [{url: 'http://alertmanager:9093'}], or print alerts with "
            "target: console"
        )


@dataclass(frozen=True)
class AlertPlan:
    """The reporter's configuration, from its settings."""

    settings: AlertSettings
    """The settings."""
    labels: Mapping[str, str]
    """The labels of every alert."""
    targets: tuple[AlertTarget, ...]
    """The targets of alerts."""
    rules: tuple[Rule, ...]
    """The rules in use."""


def read_plan(ctx: Context) -> AlertPlan:
    """Read the reporter's settings; each problem is one line.

    Raises:
        kit.SettingsError: There is no target.
    """
    settings = ctx.settings(AlertSettings)
    section = ctx.settings_key
    targets: list[AlertTarget] = [*settings.alertmanagers, *settings.webhooks]
    targets += [*settings.slack, *settings.teams, *settings.pagerduty]
    if settings.target == "console":
        targets = []
    elif why := settings.why_unusable(section):
        raise kit.SettingsError(why)
    labels = {**labels_of(ctx, settings.engine), **settings.labels}
    return AlertPlan(
        settings, labels, tuple(targets), tuple(_rules(settings, labels, section, ctx.role))
    )


def state_directory(ctx: Context, settings: AlertSettings) -> str:
    """Return the directory for the reporter's state."""
    if settings.state_directory is None:
        return default_directory(os.environ, ctx.name)
    return os.path.expanduser(os.path.expandvars(settings.state_directory))


def _rules(
    settings: AlertSettings, labels: Mapping[str, str], section: str, role: str
) -> list[Rule]:
    """Return the built-in rules and those of the settings, without duplicate alerts."""
    found: dict[str, Rule] = {}
    for rule in settings.rules:
        own = {**labels, **rule.labels, "alertname": rule.name, "severity": rule.severity}
        mark = identity({name: value for name, value in own.items() if value})
        if mark in found:
            kit.error(
                f"Cannot use all of setting '{section}.rules': found a second rule "
                f"'{rule.name}' with the same severity and labels; the first one is used"
            )
        else:
            found[mark] = rule
    replaced = {*settings.without, *(rule.name for rule in found.values())}
    built_in = BUILT_IN if settings.built_in_rules else ()
    rules = [*(rule for rule in built_in if rule.name not in replaced), *found.values()]
    left_out = [rule.name for rule in rules if rule.query is not None]
    if role == "WORKER" and left_out:
        kit.info(
            f"Leaves rules on the engine's metrics to the scheduler's reporter, as all processes "
            f"share these: {', '.join(left_out)}"
        )
        rules = [rule for rule in rules if rule.query is None]
    return rules
