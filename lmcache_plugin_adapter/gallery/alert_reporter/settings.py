"""The reporter's settings, and what they come to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.alert_reporter.targets.alertmanager import Alertmanager
from lmcache_plugin_adapter.gallery.alert_reporter.targets.webhook import Webhook
from lmcache_plugin_adapter.gallery.engine_health.settings import HealthSettings
from lmcache_plugin_adapter.gallery.http_client.address import Filled
from lmcache_plugin_adapter.gallery.state_file import default_directory

from .alerts import identity, labels_of
from .rules import BUILT_IN, Labels, Rule, Seconds, Word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcache_plugin_adapter.gallery.alert_reporter.targets.delivery import Target
    from lmcache_plugin_adapter.kit import Context

BuiltIn = Literal[
    "EngineMemoryHigh",
    "ContainerMemoryAlmostFull",
    "EngineDescriptorsHigh",
    "EngineStopped",
    "EngineUnresponsive",
    "EngineStalled",
]
"""Names of the built-in rules."""


class AlertSettings(msgspec.Struct, kw_only=True):
    """What stands in the section of the alert reporter."""

    alertmanagers: list[Alertmanager] = []
    """Alertmanagers. Each of them is told of every alert."""
    webhooks: list[Webhook] = []
    """Other servers that are told of every alert."""
    rules: list[Rule] = []
    """What to fire alerts for, besides the built-in rules. One with the name of a built-in rule
    takes its place."""
    without: list[BuiltIn] = []
    """Names of built-in rules that are not used."""
    built_in_rules: bool = True
    """`false` leaves only the rules of `rules`."""
    interval: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    """Seconds from one measurement to the next."""
    engine: Annotated[str, Meta(max_length=200)] = ""
    """Name of the engine: label `engine`. Without one it is LMCache's `lmcache_instance_id`, where
    that is set."""
    labels: Labels = {}
    """More labels of every alert, such as `cluster`. A rule's go over them."""
    annotations: dict[str, str] = {}
    """More annotations of every alert; see `rules`."""
    engine_died: bool = True
    """Whether `EngineDied` fires when the engine has died."""
    engine_died_severity: Word = "critical"
    """Label `severity` of `EngineDied`."""
    engine_died_keep: Annotated[float, Meta(ge=60, le=30 * 86400)] = 3600.0
    """Seconds for which `EngineDied` fires, unless a reporter with the same labels starts before
    and resolves it: nobody else is left to do so."""
    keep_resolved: Seconds = 3600.0
    """Seconds for which a target that is away is still to be told that an alert has resolved."""
    state_directory: Filled | None = None
    """Where it is remembered what webhooks take for firing; `~` and `$VARS` are expanded. If not
    set: `$XDG_STATE_HOME/lmcache-plugins/NAME`, or `~/.local/state/lmcache-plugins/NAME`, with the
    plugin's name."""
    health: HealthSettings = msgspec.field(default_factory=HealthSettings)
    """How the measures `engine_…` are found; as for the heartbeat."""


@dataclass(frozen=True)
class Plan:
    """What the settings come to.

    Attributes:
        settings: All of them.
        labels: Of every alert.
        targets: Where alerts go.
        rules: What they are fired for.
    """

    settings: AlertSettings
    labels: Mapping[str, str]
    targets: tuple[Target, ...]
    rules: tuple[Rule, ...]


def read_plan(ctx: Context) -> Plan:
    """Read the reporter's settings; each problem is one line.

    Raises:
        kit.SettingsError: There is nowhere to send alerts to.
    """
    settings = ctx.settings(AlertSettings)
    section = ctx.settings_key
    targets: list[Target] = [*settings.alertmanagers, *settings.webhooks]
    if not targets:
        raise kit.SettingsError(
            f"nowhere to send alerts to: '{section}.alertmanagers' and '{section}.webhooks' have "
            "no entry that can be used; add one, such as "
            "alertmanagers: [{url: 'http://alertmanager:9093'}]"
        )
    labels = {**labels_of(ctx, settings.engine), **settings.labels}
    return Plan(settings, labels, tuple(targets), tuple(_rules(settings, labels, section)))


def state_directory(ctx: Context, settings: AlertSettings) -> str:
    """Return where the reporter keeps what it has to remember."""
    if settings.state_directory is None:
        return default_directory(os.environ, ctx.name)
    return os.path.expanduser(os.path.expandvars(settings.state_directory))


def _rules(settings: AlertSettings, labels: Mapping[str, str], section: str) -> list[Rule]:
    """Return the built-in rules, and those of the settings, no alert twice."""
    found: dict[str, Rule] = {}
    for rule in settings.rules:
        own = {**labels, **rule.labels, "alertname": rule.name, "severity": rule.severity}
        mark = identity({name: value for name, value in own.items() if value})
        if mark in found:
            kit.error(
                f"Cannot use all of setting '{section}.rules': found a second rule "
                f"'{rule.name}' with the same severity and labels; the first one goes on"
            )
        else:
            found[mark] = rule
    replaced = {*settings.without, *(rule.name for rule in found.values())}
    built_in = BUILT_IN if settings.built_in_rules else ()
    return [*(rule for rule in built_in if rule.name not in replaced), *found.values()]
