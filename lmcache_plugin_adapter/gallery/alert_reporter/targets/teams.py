# SPDX-License-Identifier: Apache-2.0
"""Microsoft Teams as a target: an adaptive card for each alert that fires or resolves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .texts import cut, facts, fitting, headline, links
from .webhook import Webhook

if TYPE_CHECKING:
    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert

_COLOURS = {"critical": "attention", "error": "attention", "info": "accent"}
_MOST_BYTES = 14_000
"""Teams accepts 28 KB, and counts two bytes for each character of some requests."""
_MOST_TEXT, _MOST_VALUE, _MOST_FACTS = 4000, 200, 30
_MOST_ACTIONS = 6
"""The most actions that Teams shows of a card."""


class Teams(Webhook, kw_only=True, forbid_unknown_fields=True):
    """A webhook of Teams, made by the workflow that posts to a channel when it gets a request."""

    def document(
        self,
        alert: Alert,
        now: float,  # noqa: ARG002 - a message has the time of its arrival
        again: bool,
    ) -> dict[str, object]:
        """Return the message with the card for an alert."""
        return fitting(lambda limit: _message(alert, again, limit), _MOST_BYTES)


def _message(alert: Alert, again: bool, limit: int) -> dict[str, object]:
    severity = alert.labels.get("severity", "")
    colour = _COLOURS.get(severity, "warning") if alert.firing else "good"
    body: list[dict[str, object]] = [
        _text(headline(alert, again, limit), size="medium", weight="bolder", color=colour)
    ]
    description = alert.annotations.get("description", "")
    if description:
        body.append(_text(cut(description, min(limit, _MOST_TEXT))))
    pairs = [
        {"title": cut(name, _MOST_VALUE), "value": cut(value, min(limit, _MOST_VALUE))}
        for name, value in facts(alert)
    ]
    if pairs:
        body.append({"type": "FactSet", "facts": pairs[:_MOST_FACTS]})
    card: dict[str, object] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    }
    actions = [
        {"type": "Action.OpenUrl", "title": cut(name, _MOST_VALUE), "url": value}
        for name, value in links(alert, limit)
    ]
    if actions:
        card["actions"] = actions[:_MOST_ACTIONS]
    content_type = "application/vnd.microsoft.card.adaptive"
    attachment = {"contentType": content_type, "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _text(text: str, **more: str) -> dict[str, object]:
    return {"type": "TextBlock", "text": text, "wrap": True, **more}
