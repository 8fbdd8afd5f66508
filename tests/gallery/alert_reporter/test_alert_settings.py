# SPDX-License-Identifier: Apache-2.0
"""The alert reporter's settings: what is wrong is said with its full key, and the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import yaml
from alerting import (
    MORE_THREADS,
    NAME,
    PASSWORD,
    THREADS,
    USER,
    RealAlertmanager,
    Receiver,
    Start,
    check_webhook,
    end_in_order,
    lines,
    password_file,
    wait_line,
    wait_started,
)

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.alert_reporter.measuring.measures import MEASURES
from lmcache_plugin_adapter.gallery.alert_reporter.rules import BUILT_IN, MeasureName, Rule
from lmcache_plugin_adapter.gallery.alert_reporter.settings import AlertPlan, BuiltIn, read_plan

KEY = f"extra_config.runtime_plugins.plugins.{NAME}.settings"
TARGET = {"url": "http://127.0.0.1:9"}


def plan(settings: dict[str, Any], **config: Any) -> AlertPlan:
    """Return what settings come to."""
    plugins = {NAME: {"settings": settings}}
    extra = {"runtime_plugins": {"plugins": plugins}}
    return read_plan(
        kit.Context(
            role="WORKER",
            worker_id=3,
            worker_count=8,
            dp_rank=1,
            dp_size=2,
            name=NAME,
            host="node-1",
            config={"extra_config": extra, **config},
        )
    )


def names(found: AlertPlan) -> list[str]:
    """Return the names of a plan's rules."""
    return [rule.name for rule in found.rules]


def test_without_rules_there_are_the_built_in_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """One target is enough; nothing is complained about."""
    found = plan({"alertmanagers": [TARGET]})
    assert found.rules == BUILT_IN
    assert found.labels == {
        "engine": "",
        "role": "worker",
        "rank": "3",
        "dp_rank": "1",
        "host": "node-1",
    }
    assert capsys.readouterr().out == ""


def test_the_names_in_types_are_those_of_the_tables() -> None:
    """Types cannot be made of tables."""
    assert list(get_args(MeasureName)) == list(MEASURES)
    assert list(get_args(BuiltIn)) == [rule.name for rule in BUILT_IN]


def test_a_rule_takes_the_place_of_the_built_in_one_of_its_name() -> None:
    """Others may be left out, or all of them."""
    own = {"name": "EngineMemoryHigh", "measure": "memory_percent", "above": 70}
    found = plan({"alertmanagers": [TARGET], "rules": [own], "without": ["EngineStalled"]})
    assert len(found.rules) == len(BUILT_IN) - 1
    assert "EngineStalled" not in names(found)
    assert [rule.limit for rule in found.rules if rule.name == "EngineMemoryHigh"] == [70]
    assert names(plan({"webhooks": [TARGET], "built_in_rules": False, "rules": [own]})) == [
        "EngineMemoryHigh"
    ]


def test_the_engine_is_called_as_lmcache_calls_its_instance() -> None:
    """Unless it has a name here, or LMCache has made one up."""
    targets = {"alertmanagers": [TARGET]}
    assert plan(targets, lmcache_instance_id="blue").labels["engine"] == "blue"
    made_up = "lmcacheengineconfig_0123456789abcdef0123456789abcdef"
    assert plan(targets, lmcache_instance_id=made_up).labels["engine"] == ""
    named = plan({**targets, "engine": "red"}, lmcache_instance_id="blue")
    assert named.labels["engine"] == "red"


def test_an_annotation_name_that_alertmanager_refuses_is_not_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Alertmanager would refuse every alert for it."""
    annotations = {"runbook-url": "x", "dashboard": "y"}
    found = plan({"alertmanagers": [TARGET], "annotations": annotations})
    assert found.settings.annotations == {"dashboard": "y"}
    assert f"{KEY}.annotations.runbook-url" in capsys.readouterr().out


GOOD = {"name": "Good", "measure": "threads", "above": 5}
BAD_RULES: list[tuple[object, str, str]] = [
    ("text", "", "accepted is a mapping"),
    ({"measure": "threads", "above": 5}, ".name", "Missing setting"),
    ({"name": "X", "measure": "thread", "above": 5}, ".measure", "did you mean 'threads'?"),
    ({"name": "X", "above": 5}, "", "give one of measure and metric"),
    ({"name": "X", "measure": "threads"}, "", "give one of above and below"),
    ({"name": "X", "measure": "threads", "above": 5, "below": 3}, "", "give one of"),
    ({"name": "X", "measure": "threads", "above": "5"}, ".above", "without quotes"),
    ({"name": "X", "measure": "threads", "above": float("inf")}, ".above", "found inf"),
    ({"name": "EngineDied", "measure": "threads", "above": 5}, "", "see engine_died"),
    ({"name": "", "measure": "threads", "above": 5}, ".name", "1 to 200 characters"),
]
BAD_PARTS: list[tuple[dict[str, object], str, str]] = [
    ({"for": -1}, ".for", "0 stays in force"),
    ({"for": "1 x"}, ".for", "accepted is a duration from 0"),
    ({"hysteresis": -3}, ".hysteresis", "0 stays in force"),
    ({"severity": 5}, ".severity", "'warning' stays in force"),
    ({"labels": {"team name": "x"}}, ".labels.team name", "letters, digits and '_'"),
    ({"labels": {"alertname": "x"}}, ".labels.alertname", "neither 'alertname' nor"),
    ({"labels": {"shard": 5}}, ".labels.shard", "put it in quotes"),
    ({"annotations": {"runbook-url": "x"}}, ".annotations.runbook-url", "letters, digits and '_'"),
    ({"clearafter": 5}, ".clearafter", "did you mean 'clear_after'?"),
]


@pytest.mark.parametrize(("rule", "key", "text"), BAD_RULES)
def test_a_malformed_rule_is_named_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str], rule: object, key: str, text: str
) -> None:
    """One line with its full key; no other rule is touched."""
    settings = {"webhooks": [TARGET], "rules": [GOOD, rule], "built_in_rules": False}
    assert names(plan(settings)) == ["Good"]
    printed = capsys.readouterr().out
    assert f"'{KEY}.rules[1]{key}'" in printed
    assert text in printed


@pytest.mark.parametrize(("part", "key", "text"), BAD_PARTS)
def test_a_malformed_part_of_a_rule_is_named_and_its_rule_goes_on(
    capsys: pytest.CaptureFixture[str], part: dict[str, object], key: str, text: str
) -> None:
    """What a rule can do without has its default."""
    settings = {"webhooks": [TARGET], "rules": [{**GOOD, **part}], "built_in_rules": False}
    found = plan(settings)
    assert [rule.limit for rule in found.rules] == [5]
    assert found.rules[0].for_ == 0
    printed = capsys.readouterr().out
    assert f"'{KEY}.rules[0]{key}'" in printed
    assert text in printed
    assert printed.count("\n") == 1


def test_two_rules_with_the_same_labels_are_one_too_many(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With another severity they are two alerts."""
    critical = {**GOOD, "above": 9, "severity": "critical"}
    settings = {"webhooks": [TARGET], "built_in_rules": False}
    assert len(plan({**settings, "rules": [GOOD, critical]}).rules) == 2
    assert capsys.readouterr().out == ""
    found = plan({**settings, "rules": [GOOD, {**GOOD, "above": 9}]})
    assert [rule.above for rule in found.rules] == [5]
    said = f"Cannot use all of setting '{KEY}.rules': found a second rule 'Good'"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value"),
    [("interval", 0), ("interval", "5x"), ("engine_died_keep", 5), ("keep_resolved", -1)],
)
def test_a_wrong_value_is_named_and_the_default_holds(
    capsys: pytest.CaptureFixture[str], key: str, value: object
) -> None:
    """As everywhere."""
    right, wrong = plan({"webhooks": [TARGET]}), plan({"webhooks": [TARGET], key: value})
    assert getattr(wrong.settings, key) == getattr(right.settings, key)
    assert f"'{KEY}.{key}'" in capsys.readouterr().out


def test_secrets_are_not_shown_in_complaints(capsys: pytest.CaptureFixture[str]) -> None:
    """A target with both kinds of credentials is left out, its values are not printed."""
    both = {**TARGET, "username": "me", "password": "hunter2", "bearer_token": "hunter3"}
    found = plan({"alertmanagers": [both, {**TARGET, "password": ["hunter4"]}, TARGET]})
    assert len(found.targets) == 2
    printed = capsys.readouterr().out
    assert f"'{KEY}.alertmanagers[0]'" in printed
    assert f"'{KEY}.alertmanagers[1].password'" in printed
    assert "hunter" not in printed
    assert "hunter" not in repr(found)


def test_a_reporter_with_nowhere_to_send_to_gives_up(start_reporter: Start) -> None:
    """It says what to add, and is not started again."""
    engine = start_reporter(alertmanagers=[{"url": "alertmanager:9093"}])
    wait_line(engine, "Exited with code 125")
    text = lines(engine)
    assert f"ERROR: Cannot use setting '{KEY}.alertmanagers[0].url'" in text
    assert f"ERROR: No target for alerts: '{KEY}.alertmanagers' and '{KEY}.webhooks'" in text
    assert "alertmanagers: [{url:" in text
    engine.close()


def test_a_malformed_rule_of_a_real_run_does_not_touch_the_others(start_reporter: Start) -> None:
    """The complaint is in the engine's log, and the good rule fires."""
    with Receiver(check_webhook) as hook:
        engine = start_reporter(webhooks=[{"url": hook.url}], rules=[{"name": "Bad"}, THREADS])
        wait_started(engine)
        engine.do(MORE_THREADS)
        hook.wait_for("firing", "ManyThreads")
        assert f"'{KEY}.rules[0]': give one of" in end_in_order(engine)


def test_wrong_credentials_are_said_and_right_ones_are_picked_up(
    start_reporter: Start, tmp_path: Path
) -> None:
    """Alertmanager asks for a password: with the wrong one, one line; then the file is mended."""
    path = password_file(tmp_path, "wrong-password\n")
    with RealAlertmanager(tmp_path / "alertmanager", secured=True) as alertmanager:
        assert isinstance(alertmanager, RealAlertmanager)
        target = {"url": alertmanager.url, "username": USER, "password_file": path}
        engine = start_reporter(alertmanagers=[target], rules=[THREADS])
        wait_started(engine)
        engine.do(MORE_THREADS)
        wait_line(engine, "WARNING: Cannot send alerts to .*HTTP 401 Unauthorized")
        assert alertmanager.alerts() == {}
        password_file(tmp_path, PASSWORD + "\n")
        alertmanager.wait_for("ManyThreads", 20)
        wait_line(engine, "Alerts reach '.*' again")
        text = end_in_order(engine)
        assert alertmanager.alerts() == {}
    assert "password" not in text
    assert text.count("HTTP 401") == 1


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (503, {"Retry-After": "2"}, "WARNING: Cannot send alerts to .*HTTP 503"),
        (404, {}, "WARNING: Cannot send alerts to .*HTTP 404"),
        (302, {"Location": "http://127.0.0.1:9/"}, "WARNING: Cannot send alerts to .*HTTP 302"),
    ],
)
def test_a_webhook_that_refuses_for_now_is_asked_again(
    start_reporter: Start, status: int, headers: dict[str, str], said: str
) -> None:
    """With growing pauses, or after as long as it wants."""
    with Receiver(check_webhook) as hook:
        hook.status, hook.headers = status, headers
        engine = start_reporter(webhooks=[{"url": hook.url}], rules=[THREADS])
        wait_started(engine)
        engine.do(MORE_THREADS)
        wait_line(engine, said)
        hook.status, hook.headers = 200, {}
        hook.wait_for("firing", "ManyThreads")
        end_in_order(engine)
        assert len(hook.documents) == 2


def test_what_a_webhook_cannot_understand_is_not_sent_again_at_once(start_reporter: Start) -> None:
    """HTTP 400 is about the content: one line, and the next news is sent all the same."""
    with Receiver(check_webhook) as hook:
        hook.status = 400
        engine = start_reporter(webhooks=[{"url": hook.url}], rules=[THREADS])
        wait_started(engine)
        engine.do(MORE_THREADS)
        wait_line(engine, r"ERROR: Alerts refused by '.*' \(ManyThreads\): HTTP 400")
        hook.status = 200
        end_in_order(engine)
        assert [document["status"] for document in hook.documents] == ["resolved"]


def test_firing_alerts_are_repeated_to_a_webhook_that_wants_it(start_reporter: Start) -> None:
    """The document says that it is no news."""
    with Receiver(check_webhook) as hook:
        engine = start_reporter(webhooks=[{"url": hook.url, "resend": 1}], rules=[THREADS])
        wait_started(engine)
        engine.do(MORE_THREADS)
        engine.wait_for(lambda: len(hook.documents) >= 3, 30)
        end_in_order(engine)
        assert [d["repeated"] for d in hook.documents[:3]] == [False, True, True]
        assert len({(d["id"], d["starts_at"]) for d in hook.documents}) == 1


PAGE = Path(__file__).parents[3] / "docs" / "plugin-authors" / "gallery" / "alert-reporter.md"


def test_the_page_has_every_measure_and_every_built_in_rule() -> None:
    """With the units, meanings and limits that are in force."""
    page = PAGE.read_text(encoding="utf-8")
    for name, measure in MEASURES.items():
        assert f"| `{name}` | {measure.unit} | {measure.meaning} |" in page
    _, _, rest = page.partition("<!-- test: built-in rules -->")
    written = yaml.safe_load(rest.partition("```yaml\n")[2].partition("```")[0])
    assert [msgspec.convert(rule, Rule) for rule in written] == list(BUILT_IN)


def test_the_documents_of_the_page_are_what_is_sent() -> None:
    """The sample has every key, as the strict webhook wants it."""
    page = PAGE.read_text(encoding="utf-8")
    check_webhook(json.loads(page.partition("```json\n")[2].partition("```")[0]))
