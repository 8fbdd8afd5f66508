# SPDX-License-Identifier: Apache-2.0
"""Add labels with the origin of a series; keep the engine's own labels under another name."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lmcache_plugin_adapter import kit

    from .exposition import Family, Sample

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


class Labeller:
    """Add labels, rename the engine's conflicting ones, and drop unwanted metrics.

    Args:
        own: The labels of every series.
        drop: Name patterns of metrics to drop, with ``*`` and ``?``.
    """

    def __init__(self, own: Mapping[str, str], drop: Iterable[str] = ()) -> None:
        self.own = dict(own)
        patterns = [fnmatch.translate(pattern) for pattern in drop]
        self._dropped = re.compile("|".join(patterns)) if patterns else None

    def apply(self, families: Iterable[Family]) -> list[Family]:
        """Return the families with the labels, without dropped metrics and duplicate series."""
        done: list[Family] = []
        seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
        for family in families:
            if self._dropped is not None and self._dropped.match(family.name):
                continue
            samples = []
            for sample in family.samples:
                if self._dropped is not None and self._dropped.match(sample.name):
                    continue
                labelled = self._label(sample)
                key = (labelled.name, frozenset(labelled.labels.items()))
                if key not in seen:  # targets refuse a whole request for one duplicate
                    seen.add(key)
                    samples.append(labelled)
            if samples:
                done.append(family._replace(samples=samples))
        return done

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
