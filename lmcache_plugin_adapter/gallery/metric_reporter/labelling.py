# SPDX-License-Identifier: Apache-2.0
"""Add labels with the origin of a series; keep the engine's own labels under another name."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from .relabelling import relabelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lmcache_plugin_adapter import kit

    from .exposition import Family, Sample
    from .relabelling import Step

RENAMED = "exported_"
"""Prefix of an engine's label whose name the reporter uses, as in Prometheus."""


def own_labels(
    ctx: kit.Context, job: str, instance: str | None, source: str, more: Mapping[str, str]
) -> dict[str, str]:
    """Return the labels of every series; ``more`` wins, and empty values are left out.

    Args:
        ctx: The plugin's context.
        job: The label ``job``.
        instance: The label ``instance``; None: the source.
        source: Host and port of the source. No two reporters have the same.
        more: More labels.
    """
    labels = {"job": job, "instance": instance or source, "host": ctx.host}
    if instance not in (None, source):
        labels["source"] = source
    if ctx.role:
        labels["role"] = ctx.role.lower()
    if ctx.role == "WORKER":
        labels["rank"] = str(ctx.worker_id)
    labels["dp_rank"] = str(ctx.dp_rank)
    labels.update(more)
    return {name: value for name, value in labels.items() if value}


def _pattern(patterns: Iterable[str]) -> re.Pattern[str] | None:
    text = "|".join(fnmatch.translate(pattern) for pattern in patterns)
    return re.compile(text) if text else None


class Labeller:
    """Add labels, rename the engine's conflicting ones, and drop unwanted metrics.

    Args:
        own: The labels of every series.
        drop: Name patterns of metrics to drop, with ``*`` and ``?``.
        keep: Name patterns of metrics to keep; none: all.
        steps: Steps of relabelling, before the labels are added.
    """

    def __init__(
        self,
        own: Mapping[str, str],
        drop: Iterable[str] = (),
        keep: Iterable[str] = (),
        steps: Sequence[Step] = (),
    ) -> None:
        self.own = dict(own)
        self._dropped = _pattern(drop)
        self._kept = _pattern(keep)
        self._steps = steps

    def apply(self, families: Iterable[Family]) -> list[Family]:
        """Return the families with the labels, without dropped metrics and duplicate series."""
        done: list[Family] = []
        seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
        for family in relabelled(families, self._steps):
            samples = []
            for sample in family.samples:
                if not self._is_wanted(family.name, sample.name):
                    continue
                labelled = self._label(sample)
                key = (labelled.name, frozenset(labelled.labels.items()))
                if key not in seen:  # targets refuse a whole request for one duplicate
                    seen.add(key)
                    samples.append(labelled)
            if samples:
                done.append(family._replace(samples=samples))
        return done

    def _is_wanted(self, *names: str) -> bool:
        if self._kept is not None and not any(map(self._kept.match, names)):
            return False
        return self._dropped is None or not any(map(self._dropped.match, names))

    def _label(self, sample: Sample) -> Sample:
        labels: dict[str, str] = {}
        for name, value in sample.labels.items():
            if not value:
                continue  # in Prometheus, an empty label does not exist
            free = name
            while free in self.own or (free != name and free in sample.labels):
                free = RENAMED + free
            labels[free] = value
        labels.update(self.own)
        return sample._replace(labels=labels)
