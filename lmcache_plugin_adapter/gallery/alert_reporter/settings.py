"""The reporter's settings: read, checked, and complained about with their full keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.describe import describe_type
from lmcache_plugin_adapter.gallery.engine_health import HealthSettings
from lmcache_plugin_adapter.kit.sections import own_section
from lmcache_plugin_adapter.nearmiss import near_miss

from .alertmanager import Alertmanager
from .alerts import LABEL_NAME, identity, labels_of
from .measures import MEASURES
from .rules import BUILT_IN, DIED, Rule, Seconds
from .webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmcache_plugin_adapter.kit import Context

    from .delivery import Target

S = TypeVar("S", bound=msgspec.Struct)

_PATH = re.compile(r"^(.*?)(?: - at `(?:key in )?\$(.*)`)?$", re.DOTALL)
_SHOWN = 60


class AlertSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What stands in the section of the alert reporter."""

    alertmanagers: Annotated[
        list[Any],
        Meta(description="Alertmanagers, each of which is told of every alert; see below."),
    ] = []
    webhooks: Annotated[
        list[Any],
        Meta(description="Other servers that are told of every alert; see below."),
    ] = []
    rules: Annotated[
        list[Any],
        Meta(description="What to fire alerts for, besides the built-in rules; see below."),
    ] = []
    built_in_rules: Annotated[
        bool, Meta(description="`false` leaves only the rules of `rules`.")
    ] = True
    engine_died: Annotated[
        bool, Meta(description="Whether `EngineDied` fires when the engine has not closed.")
    ] = True
    engine_died_severity: Annotated[
        str, Meta(min_length=1, max_length=200, description="Label `severity` of `EngineDied`.")
    ] = "critical"
    engine_died_keep: Annotated[
        float,
        Meta(
            ge=60,
            le=30 * 86400,
            description="Seconds for which `EngineDied` fires, unless a reporter of the same "
            "labels starts again and resolves it: nobody is left to do so.",
        ),
    ] = 3600.0
    interval: Annotated[
        float, Meta(ge=0.1, le=3600, description="Seconds from one measurement to the next.")
    ] = 5.0
    engine: Annotated[
        str,
        Meta(
            max_length=200,
            description="Name of the engine: label `engine`. Without one it is LMCache's "
            "`lmcache_instance_id`, where that is set.",
        ),
    ] = ""
    labels: Annotated[
        dict[str, str],
        Meta(description="More labels of every alert, such as `cluster`. A rule's go over them."),
    ] = {}
    annotations: Annotated[
        dict[str, str], Meta(description="More annotations of every alert.")
    ] = {}
    keep_resolved: Annotated[
        Seconds,
        Meta(
            description="Seconds for which a target that is away is still to be told that an "
            "alert has resolved."
        ),
    ] = 3600.0
    health: Annotated[
        HealthSettings,
        Meta(description="How the measures `engine_…` are found; as for the heartbeat."),
    ] = msgspec.field(default_factory=HealthSettings)


class Plan(msgspec.Struct, frozen=True):
    """What the settings come to.

    Attributes:
        settings: All but the lists.
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
    where, _ = own_section(ctx)
    settings = ctx.settings(AlertSettings)
    labels = {
        **labels_of(ctx, settings.engine),
        **_usable_labels(f"{where}.labels", settings.labels),
    }
    targets: list[Target] = [
        *_read_targets(f"{where}.alertmanagers", settings.alertmanagers, Alertmanager),
        *_read_targets(f"{where}.webhooks", settings.webhooks, Webhook),
    ]
    if not targets:
        raise kit.SettingsError(
            f"nowhere to send alerts to: '{where}.alertmanagers' and '{where}.webhooks' name no "
            "target that can be used; add one, such as alertmanagers: "
            "[{url: 'http://alertmanager:9093'}]"
        )
    rules = _read_rules(f"{where}.rules", settings, labels)
    return Plan(settings, labels, tuple(targets), tuple(rules))


def _read_rules(where: str, settings: AlertSettings, common: Mapping[str, str]) -> list[Rule]:
    """Return the built-in rules, with those of the settings over them."""
    found: dict[str, Rule] = {}
    own: set[str] = set()
    for index, raw in enumerate(settings.rules):
        key = f"{where}[{index}]"
        rule = _read_rule(key, raw)
        if rule is None:
            continue
        labels = {**common, **rule.labels}
        mark = identity({**labels, "alertname": rule.name, "severity": rule.severity})
        if mark in found:
            _complain(
                key,
                f"it has the name, severity and labels of another rule ({rule.name!r})",
                "the first one goes on",
            )
            continue
        found[mark] = rule
        own.add(rule.name)
    built_in = [rule for rule in BUILT_IN if settings.built_in_rules and rule.name not in own]
    return [rule for rule in (*built_in, *found.values()) if rule.enabled]


def _read_rule(key: str, raw: object) -> Rule | None:
    """Return a rule, or None and say why not."""
    gone = "the rule has no effect, the others go on"
    known = _known_keys(key, raw, Rule, gone)
    if known is None:
        return None
    template = next((rule for rule in BUILT_IN if rule.name == known.get("name")), None)
    if template is not None and "measure" not in known:
        # Only what differs from the built-in rule is written down.
        base = {k: v for k, v in msgspec.to_builtins(template).items() if v is not None}
        if "above" in known or "below" in known:
            base.pop("above", None)
            base.pop("below", None)
        known = {**base, **known}
    try:
        rule = msgspec.convert(known, Rule)
    except msgspec.ValidationError as error:
        why, path = _explained(error)
        _complain(f"{key}{path}", f"{why}{_found(known, path)}", gone)
        return None
    problem = _problem_of(rule)
    if problem is not None:
        below, why = problem
        _complain(f"{key}{below}", why, gone)
        return None
    return rule


def _problem_of(rule: Rule) -> tuple[str, str] | None:
    """Return key and text of what is wrong with a rule whose types are right."""
    if rule.measure not in MEASURES:
        meant = near_miss(rule.measure, MEASURES)
        hint = f"did you mean {meant!r}?" if meant else f"accepted are {', '.join(MEASURES)}"
        return ".measure", f"no such measure: {rule.measure!r}; {hint}"
    if rule.name == DIED:
        return ".name", f"{DIED!r} is an alert of its own; see 'engine_died'"
    if (rule.above is None) == (rule.below is None):
        return "", "give one of 'above' and 'below'"
    if rule.limit != rule.limit or rule.limit in (float("inf"), float("-inf")):
        return (".below" if rule.above is None else ".above"), f"no limit: {rule.limit}"
    for name in rule.labels:
        why = _why_no_label(name)
        if why is not None:
            return f".labels.{name}", why
    return None


def _usable_labels(key: str, labels: Mapping[str, str]) -> dict[str, str]:
    usable = {}
    for name, value in labels.items():
        why = _why_no_label(name)
        if why is None:
            usable[name] = value
        else:
            _complain(f"{key}.{name}", why, "the label is left out")
    return usable


def _why_no_label(name: str) -> str | None:
    if name in ("alertname", "severity"):
        return f"{name!r} comes from the rule's {'name' if name == 'alertname' else name!r}"
    if LABEL_NAME.fullmatch(name) is None:
        return "names of labels are letters, digits and '_', and begin with no digit"
    return None


def _read_targets(where: str, entries: list[Any], kind: type[S]) -> Iterator[S]:
    """Yield the targets that can be used; a wrong value that is not needed is left out."""
    gone = "this target is not told of alerts, the others are"
    for index, raw in enumerate(entries):
        key = f"{where}[{index}]"
        known = _known_keys(key, raw, kind, gone)
        if known is None:
            continue
        needed = {field.encode_name for field in msgspec.structs.fields(kind) if field.required}
        while True:
            try:
                yield msgspec.convert(known, kind)
            except msgspec.ValidationError as error:
                why, path = _explained(error)
                name = re.split(r"[.\[]", path.lstrip("."), maxsplit=1)[0]
                if name in known and name not in needed:
                    # No value is shown: it may be a secret.
                    _complain(f"{key}{path}", why, "the default is taken")
                    del known[name]
                    continue
                _complain(f"{key}{path}", why, gone)
            break


def _known_keys(
    key: str, raw: object, kind: type[msgspec.Struct], gone: str
) -> dict[str, Any] | None:
    """Return an entry without keys that are not known; None and say so if it is no mapping."""
    if not isinstance(raw, Mapping):
        accepted = "a mapping" if kind is Rule else "a mapping with 'url'"
        _complain(key, f"found {describe_type(raw)}, accepted is {accepted}", gone)
        return None
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    known = {}
    for name, value in raw.items():
        if name in names:
            known[str(name)] = value
            continue
        meant = near_miss(str(name), names)
        hint = f"did you mean {meant!r}?" if meant else f"known are {', '.join(names)}"
        kit.error(f"Unknown setting '{key}.{name}': {hint}; it has no effect")
    return known


def _explained(error: msgspec.ValidationError) -> tuple[str, str]:
    """Return what msgspec says in our words, and the path below the entry."""
    match = _PATH.match(str(error))
    text, path = (match[1], match[2] or "") if match is not None else (str(error), "")
    missing = re.fullmatch(r"Object missing required field `(.+)`", text)
    if missing is not None:
        return "it is missing", f"{path}.{missing[1]}"
    text = text.replace("`", "'")
    return text[:1].lower() + text[1:], path.replace("[...]", "")


def _found(known: Mapping[str, Any], path: str) -> str:
    """Return what was found at a path of one key, for a message."""
    value = known.get(path.removeprefix("."))
    if not isinstance(value, (str, int, float)):
        return ""
    shown = repr(value)
    return f", found {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'}"


def _complain(key: str, why: str, consequence: str) -> None:
    kit.error(f"Cannot use setting '{key}': {why}; {consequence}")
