# SPDX-License-Identifier: Apache-2.0
"""Messages for Slack, Teams and PagerDuty, and alerts on the console.

The formats and limits are those of the published pages:

- Slack: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks,
  https://docs.slack.dev/reference/block-kit/blocks (section, context),
  https://api.slack.com/changelog/2018-04-truncating-really-long-messages
- Teams: https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using,
  https://learn.microsoft.com/connectors/teams (28 KB),
  http://adaptivecards.io/schemas/adaptive-card.json (version 1.4)
- PagerDuty: https://developer.pagerduty.com/docs/events-api-v2-overview (512 KB),
  https://developer.pagerduty.com/docs/send-alert-event
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alerting import (
    FEWER_THREADS,
    MORE_THREADS,
    THREADS,
    Receiver,
    Start,
    end_in_order,
    wait_line,
    wait_started,
)
from harness import wait_until

from lmcache_plugin_adapter.gallery.alert_reporter.alerts import Alert
from lmcache_plugin_adapter.gallery.alert_reporter.targets.pagerduty import PagerDuty, event
from lmcache_plugin_adapter.gallery.alert_reporter.targets.slack import Slack
from lmcache_plugin_adapter.gallery.alert_reporter.targets.teams import Teams

SCHEMAS = Path(__file__).parent / "schemas"
KEY = "0123456789abcdef0123456789abcdef"
ALERT = Alert(
    labels={
        "alertname": "EngineMemoryHigh",
        "severity": "critical",
        "role": "worker",
        "rank": "3",
        "host": "node-7",
        "engine": "a & b",
    },
    annotations={
        "summary": "EngineMemoryHigh of worker 3: <93.5> %",
        "description": "memory_percent is 93.5 % & more than 90 %.",
        "runbook_url": "https://wiki.example.com/x?a=1&b=2",
    },
    starts_at=1795331216.0,
    measure="memory_percent",
    value=93.5,
    limit=90.0,
)
BARE = Alert(labels={"alertname": "X"}, annotations={}, starts_at=1795331216.0)


def long_alert(text: str) -> Alert:
    """Return an alert whose texts, labels and links are longer than servers accept."""
    annotations = dict.fromkeys(("summary", "description", "more"), text * 50_000)
    annotations |= {f"link_{n}": "https://example.com/" + text * 600 for n in range(12)}
    labels = {f"label_{number}": text * 500 for number in range(40)}
    return replace(ALERT, annotations=annotations, labels={**ALERT.labels, **labels})


ALERTS = {
    "usual": ALERT,
    "bare": BARE,
    "markup": long_alert("<"),
    "wide": long_alert("ä"),
    "wider": long_alert("\U0001f525"),
    "escaped": long_alert("\x01"),
}
SLACK = Slack(url="http://slack.example.com")
TEAMS = Teams(url="http://teams.example.com")
MOST_BYTES = {"teams": 28 * 1024, "pagerduty": 512 * 1024}


def problems(kind: str, document: Any) -> list[str]:
    """Return what the schema of a server's documentation finds wrong."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((SCHEMAS / f"{kind}.json").read_text())
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(document)]


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("ends", [None, 1795331300.0])
@pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)
def test_documents_are_what_the_servers_document(
    alert: Alert, ends: float | None, again: bool
) -> None:
    """Also without texts, and with texts that are longer than a server accepts."""
    alert = replace(alert, ends_at=ends)
    documents = {
        "slack": SLACK.document(alert, 0.0, again),
        "teams": TEAMS.document(alert, 0.0, again),
        "pagerduty": event(alert, KEY),
    }
    for kind, document in documents.items():
        content = json.dumps(document)
        assert problems(kind, json.loads(content)) == []
        assert len(content) <= MOST_BYTES.get(kind, len(content))


def test_what_is_cut() -> None:
    """A cut text ends with a mark; no link, label and escaped character is cut in two."""
    message = SLACK.document(ALERTS["markup"], 0.0, again=False)
    assert str(message["text"]).endswith("&lt;…")
    text, context = message["attachments"][0]["blocks"]  # type: ignore[index]
    assert text["text"]["text"].endswith("&lt;…")
    assert context["elements"][0]["text"].count("*") % 2 == 0
    card = json.dumps(TEAMS.document(ALERTS["wide"], 0.0, again=False), ensure_ascii=False)
    assert "ä…" in card
    details = json.dumps(event(ALERTS["wider"], KEY), ensure_ascii=False)
    assert "\U0001f525…" in details


def test_a_schema_can_fail() -> None:
    """Or the test above would prove nothing."""
    for kind in ("slack", "teams", "pagerduty"):
        assert problems(kind, {"nonsense": 1})


def test_what_people_read() -> None:
    """State, summary, labels and links; characters of Slack's markup are escaped."""
    message = json.dumps(SLACK.document(ALERT, 0.0, again=False))
    assert "[FIRING] EngineMemoryHigh of worker 3: &lt;93.5&gt; %" in message
    assert "a &amp; b" in message
    assert "<https://wiki.example.com/x?a=1&b=2|runbook_url>" in message
    resolved = replace(ALERT, ends_at=ALERT.starts_at + 60)
    assert "[RESOLVED]" in json.dumps(TEAMS.document(resolved, 0.0, again=False))
    assert "[STILL FIRING]" in json.dumps(TEAMS.document(ALERT, 0.0, again=True))


def test_pagerduty_s_key(tmp_path: Path) -> None:
    """It may be rotated in its file; one alert has one key from its first event to the last."""
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    target = PagerDuty(routing_key_file=str(path))
    sent = [
        json.loads(target.requests([alert], 0.0, frozenset())[0].content)
        for alert in (ALERT, replace(ALERT, ends_at=ALERT.starts_at))
    ]
    assert [one["event_action"] for one in sent] == ["trigger", "resolve"]
    assert {(one["routing_key"], one["dedup_key"]) for one in sent} == {(KEY, ALERT.id)}
    for wrong in ({}, {"routing_key": KEY, "routing_key_file": "x"}):
        with pytest.raises(ValueError, match="give one of routing_key"):
            PagerDuty(**wrong)


def test_messages_arrive(start_reporter: Start) -> None:
    """A firing and a resolved one at each server; no address with a secret is logged."""
    checks = {
        kind: Receiver(lambda document, kind=kind: _refuse(problems(kind, document)))
        for kind in ("slack", "teams", "pagerduty")
    }
    started = start_reporter(
        rules=[THREADS],
        slack=[{"url": checks["slack"].url + "/services/T0/B0/secret"}],
        teams=[{"url": checks["teams"].url + "/workflows/secret"}],
        pagerduty=[{"url": checks["pagerduty"].url + "/v2/enqueue", "routing_key": KEY}],
    )
    wait_started(started)
    started.do(MORE_THREADS)
    for receiver in checks.values():
        wait_until(lambda receiver=receiver: receiver.documents, 30, "an alert")
    started.do(FEWER_THREADS)
    for receiver in checks.values():
        wait_until(lambda receiver=receiver: len(receiver.documents) > 1, 30, "its end")
    said = end_in_order(started)
    assert "secret" not in said
    assert KEY not in said
    for receiver in checks.values():
        receiver.close()


def test_the_console_needs_no_server(start_reporter: Start) -> None:
    """It prints the document of a webhook."""
    started = start_reporter(rules=[THREADS], target="console")
    wait_line(started, "alerts go to the console only")
    started.do(MORE_THREADS)
    line = wait_line(started, r"Would send: (\{.*\})")
    document = json.loads(line[1])
    assert (document["status"], document["name"]) == ("firing", "ManyThreads")
    started.do(FEWER_THREADS)
    wait_line(started, r'Would send: \{.*"status": "resolved"')
    end_in_order(started)


def _refuse(found: list[str]) -> None:
    assert not found, found
