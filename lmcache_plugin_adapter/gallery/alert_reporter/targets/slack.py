# SPDX-License-Identifier: Apache-2.0
"""Slack as a target: a message of an incoming webhook for each alert that fires or resolves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .texts import cut, facts, headline, links
from .webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert

_COLOURS = {"critical": "#d00000", "error": "#d00000", "info": "#439fe0"}
_WARNING, _RESOLVED = "#daa038", "#2eb886"
_MOST_TEXT = 3000
"""The most characters that Slack accepts in the text of a block."""
_PARTIAL_ENTITY = re.compile("&[a-z]{0,3}…$")


class Slack(Webhook, kw_only=True, forbid_unknown_fields=True):
    """An incoming webhook of Slack, or of a server that takes its messages."""

    def document(
        self,
        alert: Alert,
        now: float,  # noqa: ARG002 - a message has the time of its arrival
        again: bool,
    ) -> dict[str, object]:
        """Return the message for an alert."""
        severity = alert.labels.get("severity", "")
        colour = _COLOURS.get(severity, _WARNING) if alert.firing else _RESOLVED
        labels = _joined(f"{_plain(name)}: *{_plain(value)}*" for name, value in facts(alert))
        linked = _joined(
            f"<{value}|{_plain(name)}>"
            for name, value in links(alert, _MOST_TEXT)
            if not set(value) & set("<>| ")
        )
        text = _plain(alert.annotations.get("description", "").strip())
        blocks: list[dict[str, object]] = []
        if text:
            blocks.append(_section(text))
        if linked:
            blocks.append(_section(linked))
        if labels:
            blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": labels}]})
        message: dict[str, object] = {"text": _plain(headline(alert, again))}
        if blocks:
            message["attachments"] = [{"color": colour, "blocks": blocks}]
        return message


def _section(text: str) -> dict[str, object]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _joined(parts: Iterable[str]) -> str:
    """Return as many parts in one text as Slack accepts; none is cut."""
    text = ""
    for part in parts:
        longer = f"{text}  {part}" if text else part
        if len(longer) <= _MOST_TEXT:
            text = longer
    return text


def _plain(text: str) -> str:
    """Return text without the characters that control Slack's markup, as long as Slack accepts."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _PARTIAL_ENTITY.sub("…", cut(text, _MOST_TEXT))
