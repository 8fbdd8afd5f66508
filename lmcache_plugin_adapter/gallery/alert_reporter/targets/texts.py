# SPDX-License-Identifier: Apache-2.0
"""Texts of an alert for people, cut to the length that a target accepts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert


def headline(alert: Alert, again: bool, limit: int = 1000) -> str:
    """Return the first line of a message."""
    status = ("STILL FIRING" if again else "FIRING") if alert.firing else "RESOLVED"
    return cut(f"[{status}] {alert.annotations.get('summary') or alert.name}", min(limit, 1000))


def facts(alert: Alert) -> Iterator[tuple[str, str]]:
    """Yield the labels that a reader needs, and what was measured."""
    for name, value in alert.labels.items():
        if name != "alertname":
            yield name, value
    if alert.value is not None:
        yield alert.measure, f"{alert.value:.4g}"


def links(alert: Alert, limit: int) -> list[tuple[str, str]]:
    """Return names and addresses of the annotations that are links of at most ``limit`` bytes."""
    return [
        (name, value)
        for name, value in alert.annotations.items()
        if value.startswith(("http://", "https://")) and len(value.encode()) <= limit
    ]


def cut(text: str, limit: int) -> str:
    """Return at most ``limit`` characters of a text, with a mark if it is longer."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"


def fitting(make: Callable[[int], dict[str, object]], most_bytes: int) -> dict[str, object]:
    """Return a document whose JSON has at most ``most_bytes``.

    Args:
        make: Returns the document with texts of at most so many characters.
        most_bytes: What the target accepts.
    """
    limit = most_bytes
    while len(json.dumps(document := make(limit))) > most_bytes and limit > 1:
        limit //= 2
    return document
