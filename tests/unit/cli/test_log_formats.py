# SPDX-License-Identifier: Apache-2.0
"""The forms of log lines, and the times and levels that select them. Pure."""

from __future__ import annotations

import json
import time
from datetime import datetime

import pytest

from lmcache_plugin_adapter.cli.inputs import UsageError
from lmcache_plugin_adapter.cli.logs.formats import (
    LEVELS,
    LogFormat,
    LogLine,
    formatter,
    parse_record,
    to_json,
)
from lmcache_plugin_adapter.cli.logs.printer import make_filter
from lmcache_plugin_adapter.contract.log_records import RecordFormat

LINE = LogLine(
    when=1_795_000_000.25,
    process="worker 0",
    plugin="worker_x",
    level=6,
    text="load\t1.77",
    file="worker_x.py",
    pid=42,
    engine=7,
)


def test_a_record_is_read_as_the_supervisor_writes_it() -> None:
    """Brackets and parentheses in the line itself change nothing."""
    frame = RecordFormat("x_y", "x.py", 42, "lmcache_plugin_adapter.dp.1.worker.0", color=False)
    record = frame.frame(4, b"[a] (b.py:1:c) (", "2026-11-22 07:06:56,699").decode().rstrip("\n")
    line = parse_record(record)
    assert line is not None
    assert (line.process, line.plugin, line.text) == ("dp 1 worker 0", "x_y", "[a] (b.py:1:c) (")
    assert (line.level, line.file, line.pid) == (4, "x.py", 42)


@pytest.mark.parametrize("text", ["", "error: x", "[t] LMCache INFO: x (a.py:1:lmcache.y)"])
def test_other_text_is_no_record(text) -> None:
    """It is shown as it is."""
    assert parse_record(text) is None


def test_short() -> None:
    """The columns are as wide as the longest names so far; each plugin has its colour."""
    show = formatter(LogFormat.SHORT, color=False)
    assert show(LINE) == "worker 0 | worker_x | load    1.77"
    show = formatter(LogFormat.SHORT, color=False, expected=[("scheduler", "all_heartbeat")])
    assert show(LINE) == "worker 0  | worker_x      | load    1.77"
    show = formatter(LogFormat.SHORT, color=False, ambiguous={"worker 0"})
    assert show(LINE) == "worker 0 of engine 7 | worker_x | load    1.77"
    colored = formatter(LogFormat.SHORT, color=True)
    first, again = colored(LINE), colored(LINE)
    other = colored(LogLine(0.0, "worker 0", "worker_y", 3, "bad"))
    assert first == again == "\x1b[36mworker 0 | worker_x |\x1b[0m load    1.77"
    assert other == "\x1b[33mworker 0 | worker_y |\x1b[0m \x1b[31mbad\x1b[0m"


def test_lmcache() -> None:
    """The same record as in the engine's log."""
    record = formatter(LogFormat.LMCACHE, color=False)(LINE)
    line = parse_record(record)
    assert line is not None
    assert (line.process, line.plugin, line.pid) == ("worker 0", "worker_x", 42)
    assert record.startswith(
        time.strftime("[%Y-%m-%d %H:%M:%S,250] LMCache INFO: ", time.localtime(LINE.when))
    )


def test_control_characters_stay_escaped() -> None:
    """A line cannot change the terminal, whatever its form."""
    line = LogLine(0.0, "worker 0", "x", 6, "a\x1b[2Jb")
    for form in LogFormat:
        assert "\x1b" not in formatter(form, color=False)(line)


def test_json() -> None:
    """The time has its zone."""
    document = json.loads(to_json(LINE))
    assert datetime.fromisoformat(document.pop("time")).timestamp() == LINE.when
    assert document == {
        "plugin": "worker_x",
        "process": "worker 0",
        "engine_pid": 7,
        "level": "info",
        "text": "load\t1.77",
    }


@pytest.mark.parametrize(
    ("level", "name"), [(0, "critical"), (2, "critical"), (3, "error"), (5, "info"), (7, "debug")]
)
def test_level_names(level, name) -> None:
    """As LMCache names the eight levels of syslog."""
    assert LogLine(0.0, "", "", level, "").level_name == name


def test_level_selects_this_and_more_urgent() -> None:
    """A warning includes errors."""
    admitted = {
        name: [make_filter(None, name, None).admits(LogLine(0.0, "", "", n, "")) for n in range(8)]
        for name in LEVELS
    }
    assert {name: sum(each) for name, each in admitted.items()} == {
        "critical": 3,
        "error": 4,
        "warning": 5,
        "info": 7,
        "debug": 8,
    }


def test_since() -> None:
    """A duration counts back from now; a time is of today; a date has a time or a zone."""
    now = time.time()
    for text, seconds in (("30s", 30), ("10m", 600), ("1h30m", 5_400), ("2d", 172_800)):
        since = make_filter(text, None, None).since
        assert since is not None
        assert now - 60 <= since + seconds <= time.time()
    today = datetime.now().replace(hour=0, minute=1, second=0, microsecond=0)
    assert make_filter("00:01", None, None).since == today.timestamp()
    stamp = datetime(2026, 11, 22, 14, 30).timestamp()
    for text in ("2026-11-22 14:30", "2026-11-22T14:30:00"):
        assert make_filter(text, None, None).since == stamp
    assert make_filter("2026-11-22T14:30:00Z", None, None).since == 1_795_357_800


@pytest.mark.parametrize("text", ["", "yesterday", "10", "25:00", "-5m", "2026-13-01"])
def test_since_that_is_no_time(text) -> None:
    """One line with what is accepted."""
    with pytest.raises(UsageError, match=r"--since is .*: accepted are a duration such as 30s"):
        make_filter(text, None, None)
