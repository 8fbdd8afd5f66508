# SPDX-License-Identifier: Apache-2.0
"""Records that are left out, and text that is hidden."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import wait_until
from log_receivers import Loki
from plugins import LOG_REPORTER, log_settings

from lmcache_plugin_adapter.gallery.log_reporter.filtering import RecordFilter, compiled
from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record

ACCESS = '(APIServer pid=1) INFO:     10.0.0.9:5 - "GET /{} HTTP/1.1" 200 OK\n'
KEY = "extra_config.runtime_plugins.plugins.scheduler_log_reporter.settings"


@pytest.fixture
def settings(tmp_path: Path, loki: Loki) -> dict[str, Any]:
    """Settings of a reporter that follows one file."""
    return log_settings(
        tmp_path,
        files=str(tmp_path / "vllm.log"),
        loki={"url": loki.url},
    )


def test_dropped_and_hidden(
    loki: Loki, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """Health checks do not arrive, nor does a key; both are in the last line's count or gone."""
    entry = '{"message": "call", "api_key": "sk-12345", "level": "info"}\n'
    Path(settings["files"]).write_text(
        ACCESS.format("health") + ACCESS.format("v1/models") + "login api_key=sk-67890 ok\n" + entry
    )
    settings["drop"] = [r'"GET /(health|metrics) HTTP']
    settings["redact"] = [r"(?i)api[_-]?key=(\S+)"]
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_until(lambda: len(loki.records()) >= 3, 60, "3 records")
    plugin.wait_for("Delivers to")
    assert plugin.stop() == 0
    plugin.wait_for(re.compile("Delivered 3 records to .*; dropped 1 that match 'drop'"))
    texts = [got.text for got in loki.records()]
    assert texts == [
        '10.0.0.9:5 - "GET /v1/models HTTP/1.1" 200 OK',
        "login api_key=*** ok",
        "call",
    ]
    assert loki.records()[2].fields["api_key"] == "***"
    assert not any("sk-" in str(got) for got in loki.records())


def test_patterns_that_are_none(settings: dict[str, Any], run_plugin: Callable[..., Any]) -> None:
    """A bad ``drop`` has no effect; with a bad ``redact`` nothing leaves the host."""
    settings |= {"drop": ["["], "redact": ["(?P<"]}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    for key, effect in (
        ("drop", "it has no effect"),
        ("redact", "nothing is delivered without it"),
    ):
        line = plugin.wait_for(f"Cannot use setting '{KEY}.{key}[0]': found ")
        assert "accepted is a regular expression: " in line.text
        assert line.text.endswith(effect)
    wait_until(lambda: plugin.returncode == 125, 60, "the end")


@pytest.mark.parametrize(
    ("pattern", "text", "hidden"),
    [
        ("secret", "a secret, secret b", "a X, X b"),
        (r"(?:user|key)=(\w+)", "user=me key=you", "user=X key=X"),
        (r"(\w+)@(\w+)", "me@here", "X@X"),
        (r"(a(b)c)", "zabcz", "zXz"),
        (r"k=(\w+)|p=(\w+)", "k=1 p=2", "k=X p=X"),
        (r"^b$", "a\nb", "a\nX"),
    ],
)
def test_what_is_hidden(pattern: str, text: str, hidden: str) -> None:
    """All of a match, or what its groups match."""
    record = Record("/log", None, 0, 0, text)
    RecordFilter([], compiled("k", [pattern], ""), "X").apply(record)
    assert record.text == hidden
