# SPDX-License-Identifier: Apache-2.0
"""Slack as a target: a message of an incoming webhook for each alert that fires or resolves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .chat import ChatWebhook, facts, headline

if TYPE_CHECKING:
    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert

_COLOURS = {"critical": "#d00000", "error": "#d00000", "info": "#439fe0"}
_WARNING, _RESOLVED = "#daa038", "#2eb886"
_TEXT_LIMIT = 2900
"""Slack accepts 3,000 characters in the text of a section."""


class Slack(ChatWebhook, kw_only=True, forbid_unknown_fields=True):
    """An incoming webhook of Slack, or of a server that takes its messages."""

    @staticmethod
    def document(alert: Alert, again: bool) -> dict[str, object]:
        """Return the message for an alert."""
        severity = alert.labels.get("severity", "")
        colour = _COLOURS.get(severity, _WARNING) if alert.firing else _RESOLVED
        labels = "  ".join(f"{_plain(name)}: *{_plain(value)}*" for name, value in facts(alert))
        text = _plain(alert.annotations.get("description", ""))
        links = [
            f"<{value}|{_plain(name)}>"
            for name, value in alert.annotations.items()
            if value.startswith(("http://", "https://")) and not set(value) & set("<>| ")
        ]
        parts = [part for part in (text, "  ".join(links)) if part]
        blocks: list[dict[str, object]] = []
        if parts:
            blocks.append(_section("\n".join(parts)[:_TEXT_LIMIT]))
        if labels:
            context = {"type": "mrkdwn", "text": labels[:_TEXT_LIMIT]}
            blocks.append({"type": "context", "elements": [context]})
        message: dict[str, object] = {"text": _plain(headline(alert, again))}
        if blocks:
            message["attachments"] = [{"color": colour, "blocks": blocks}]
        return message


def _section(text: str) -> dict[str, object]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _plain(text: str) -> str:
    """Return text without the characters that control Slack's markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
