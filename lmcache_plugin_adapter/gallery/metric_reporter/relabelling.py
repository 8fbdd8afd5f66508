# SPDX-License-Identifier: Apache-2.0
"""Relabel series by pattern, as Prometheus' ``metric_relabel_configs`` do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .exposition import Family
    from .settings import Relabel

    Step = Callable[[dict[str, str]], dict[str, str] | None]

NAME = "__name__"
"""The label that stands for the metric's name."""

_GROUP = re.compile(r"\$(?:\{(\w+)\}|(\w+)|\$)")


def relabelled(families: Iterable[Family], steps: Sequence[Step]) -> list[Family]:
    """Return the families after all steps; series without a name are dropped."""
    if not steps:
        return list(families)
    found: dict[tuple[str, str], Family] = {}
    for family in families:
        for sample in family.samples:
            labels: dict[str, str] | None = {**sample.labels, NAME: sample.name}
            for step in steps:
                labels = step(labels) if labels is not None else None
            name = labels.pop(NAME, "") if labels else ""
            if labels is None or not name:
                continue
            suffix = sample.name.removeprefix(family.name)
            own = family.name if name == sample.name else name.removesuffix(suffix)
            key = own, family.kind
            kept = found.setdefault(key, family._replace(name=own, samples=[]))
            kept.samples.append(sample._replace(name=name, labels=labels))
    return list(found.values())


def step_of(settings: Relabel) -> Step:
    """Return a function that does one step; it returns None to drop the series."""
    matches = re.compile(settings.regex).fullmatch
    action = settings.action

    def step(labels: dict[str, str]) -> dict[str, str] | None:
        if action in ("labeldrop", "labelkeep"):
            keep = action == "labelkeep"
            return {n: v for n, v in labels.items() if n == NAME or bool(matches(n)) is keep}
        if action == "labelmap":
            named = ((matches(name), value) for name, value in labels.items() if name != NAME)
            new = {_filled(settings.replacement, found): v for found, v in named if found}
            return {**labels, **new}
        value = settings.separator.join(labels.get(name, "") for name in settings.source_labels)
        found = matches(value)
        if action in ("keep", "drop"):
            return labels if bool(found) is (action == "keep") else None
        if found:
            labels = {**labels, settings.target_label: _filled(settings.replacement, found)}
        return {name: value for name, value in labels.items() if value}

    return step


def _filled(text: str, found: re.Match[str]) -> str:
    """Return a replacement with the groups of a match; unknown groups are empty."""

    def group(reference: re.Match[str]) -> str:
        name = reference[1] or reference[2]
        if name is None:
            return "$"
        try:
            return found[int(name) if name.isdigit() else name] or ""
        except IndexError:
            return ""

    return _GROUP.sub(group, text)
