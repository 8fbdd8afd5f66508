# SPDX-License-Identifier: Apache-2.0
"""Microsoft Teams as a target: an adaptive card for each alert that fires or resolves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .chat import ChatWebhook, facts, headline

if TYPE_CHECKING:
    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert

_COLOURS = {"critical": "attention", "error": "attention", "info": "accent"}
_TEXT_LIMIT = 4000
"""A message of Teams may have 28 KiB."""


class Teams(ChatWebhook, kw_only=True, forbid_unknown_fields=True):
    """A webhook of Teams, made by the workflow that posts to a channel when it gets a request."""

    @staticmethod
    def document(alert: Alert, again: bool) -> dict[str, object]:
        """Return the card for an alert."""
        severity = alert.labels.get("severity", "")
        colour = _COLOURS.get(severity, "warning") if alert.firing else "good"
        body: list[dict[str, object]] = [
            _text(headline(alert, again), size="medium", weight="bolder", color=colour)
        ]
        description = alert.annotations.get("description", "")
        if description:
            body.append(_text(description))
        pairs = [{"title": name, "value": value[:200]} for name, value in facts(alert)]
        body.append({"type": "FactSet", "facts": pairs[:30]})
        card: dict[str, object] = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": body,
        }
        links = [
            {"type": "Action.OpenUrl", "title": name, "url": value}
            for name, value in alert.annotations.items()
            if value.startswith(("http://", "https://"))
        ]
        if links:
            card["actions"] = links[:6]
        content_type = "application/vnd.microsoft.card.adaptive"
        attachment = {"contentType": content_type, "contentUrl": None, "content": card}
        return {"type": "message", "attachments": [attachment]}


def _text(text: str, **more: str) -> dict[str, object]:
    return {"type": "TextBlock", "text": text[:_TEXT_LIMIT], "wrap": True, **more}
