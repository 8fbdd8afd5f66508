"""Labels that say where a series comes from; what the engine said under such a name is kept."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lmcache_plugin_adapter import kit

    from .exposition import Family, Sample

RENAMED = "exported_"
"""What goes before a label of the engine's that the reporter has a value for, as in Prometheus."""


def own_labels(
    ctx: kit.Context, job: str, instance: str, more: Mapping[str, str]
) -> dict[str, str]:
    """Return the labels that every series gets.

    ``more`` goes over the reporter's own; a label with an empty value is left out.
    """
    labels = {"job": job, "instance": instance, "host": ctx.host}
    if ctx.role:
        labels["role"] = ctx.role.lower()
    if ctx.role == "WORKER":
        labels["rank"] = str(ctx.worker_id)
    labels["dp_rank"] = str(ctx.dp_rank)
    labels.update(more)
    return {name: value for name, value in labels.items() if value}


class Labeller:
    """Adds labels, renames what is in their way, and leaves out what is not wanted.

    Args:
        own: The labels that every series gets.
        drop: Names of metrics that are left out, with ``*`` and ``?``.
    """

    def __init__(self, own: Mapping[str, str], drop: Iterable[str] = ()) -> None:
        self.own = dict(own)
        patterns = [fnmatch.translate(pattern) for pattern in drop]
        self._dropped = re.compile("|".join(patterns)) if patterns else None

    def apply(self, families: Iterable[Family]) -> list[Family]:
        """Return the families with the labels; none that is dropped, no series twice."""
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
                if key not in seen:  # targets refuse a whole request for one such
                    seen.add(key)
                    samples.append(labelled)
            if samples:
                done.append(family._replace(samples=samples))
        return done

    def _label(self, sample: Sample) -> Sample:
        labels: dict[str, str] = {}
        for name, value in sample.labels.items():
            if not value:
                continue  # to Prometheus, an empty label is none
            free = name
            while free in self.own or (free != name and free in sample.labels):
                free = RENAMED + free
            labels[free] = value
        labels.update(self.own)
        return sample._replace(labels=labels)
