# SPDX-License-Identifier: Apache-2.0
"""Loki and OTLP beyond the ordinary, several targets at once, settings, files by default."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import wait_until
from hypothesis import given
from hypothesis import strategies as st
from log_receivers import Loki, Otlp
from plugins import LOG_REPORTER, log_settings

from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Level, Record
from lmcache_plugin_adapter.gallery.log_reporter.reporter import engine_files
from lmcache_plugin_adapter.gallery.log_reporter.targets.loki import encode as encode_loki
from lmcache_plugin_adapter.gallery.log_reporter.targets.otlp import encode as encode_otlp
from lmcache_plugin_adapter.gallery.log_reporter.targets.otlp import read_answer

KEY = "extra_config.runtime_plugins.plugins.scheduler_log_reporter.settings"
LINE = "INFO 11-22 07:06:56 [core.py:12] Number "


@pytest.fixture
def otlp() -> Iterator[Otlp]:
    """A strict receiver."""
    receiver = Otlp()
    receiver.start()
    yield receiver
    receiver.stop()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 20 lines."""
    path = tmp_path / "vllm.log"
    path.write_text("".join(f"{LINE}{number}\n" for number in range(20)))
    return path


@pytest.fixture
def settings(tmp_path: Path, log: Path) -> dict[str, Any]:
    """Settings without a target."""
    return log_settings(
        tmp_path,
        files=str(log),
    )


def append(log: Path, *numbers: int) -> None:
    """Log more lines."""
    with log.open("a") as file:
        file.write("".join(f"{LINE}{number}\n" for number in numbers))


def texts(receiver: Loki | Otlp) -> list[str]:
    """Return what has arrived."""
    return [got.text for got in receiver.records()]


def wait_texts(receiver: Loki | Otlp, count: int) -> None:
    """Wait for so many records."""
    wait_until(lambda: len(texts(receiver)) >= count, 15, f"{count} records")


RECORDS = st.lists(
    st.builds(
        Record,
        path=st.text(st.characters(exclude_categories=["Cs"])),
        tailed=st.none(),
        end=st.just(0),
        observed_ns=st.integers(0, 2**62),
        text=st.text(st.characters(exclude_categories=["Cs"])),
        level=st.sampled_from(Level),
        time_ns=st.integers(10**18, 2**62),
        logger=st.text(st.characters(exclude_categories=["Cs"])),
        file=st.text(st.characters(exclude_categories=["Cs"])),
        line=st.integers(0, 10**9),
        process=st.sampled_from(["", "APIServer", "EngineCore_DP0"]),
        pid=st.none() | st.integers(0, 2**31),
    ),
    min_size=1,
    max_size=20,
)


@given(RECORDS, st.booleans())
def test_whatever_is_encoded_for_loki_can_be_read(records: list[Record], metadata: bool) -> None:
    """By the strict receiver; each stream in its order."""
    got = list(Loki().read(encode_loki(records, lambda _: {"job": "x"}, metadata=metadata)))
    assert sorted(one.text for one in got) == sorted(one.text for one in records)
    for level in Level:
        mine = [(one.time_ns, one.text) for one in records if one.level is level]
        assert sorted((one.time_ns, one.text) for one in got if one.level == level.word) == sorted(
            mine
        )


@given(RECORDS)
def test_whatever_is_encoded_for_otlp_can_be_read(records: list[Record]) -> None:
    """By OpenTelemetry's own classes."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    body = encode_otlp(records, lambda _: {"service.name": "x"})
    request = ExportLogsServiceRequest.FromString(body)
    found = [one for scope in request.resource_logs[0].scope_logs for one in scope.log_records]
    assert sorted(one.body.string_value for one in found) == sorted(one.text for one in records)
    assert sum(one.time_unix_nano for one in found) == sum(one.time_ns for one in records)


@given(st.binary(max_size=50))
def test_whatever_a_collector_answers(body: bytes) -> None:
    """It rejects some records, or it does not."""
    rejected, why = read_answer(body)
    assert rejected >= 0
    assert isinstance(why, str)


def test_loki_with_everything_set(
    loki: Loki, settings: dict[str, Any], run_plugin: Callable[..., Any], tmp_path: Path
) -> None:
    """Tenant, name and password from a file, labels, no metadata, no compression."""
    secret = tmp_path / "password"
    secret.write_text("hunter22\n")
    basic = base64.b64encode(b"vllm:hunter22").decode()
    loki.want_headers = {"X-Scope-OrgID": "team-a", "Authorization": f"Basic {basic}"}
    settings["loki"] = {
        "url": f"{loki.url}/loki/api/v1/push",
        "tenant": "team-a",
        "username": "vllm",
        "password_file": str(secret),
        "labels": {"job": "chat", "cluster": "eu-1"},
        "structured_metadata": False,
        "gzip": False,
    }
    plugin = run_plugin(LOG_REPORTER, settings=settings, role="worker", worker_id=1)
    wait_texts(loki, 20)
    assert plugin.stop() == 0
    (stream,) = loki.streams
    assert dict(stream) == {
        "job": "chat",
        "cluster": "eu-1",
        "host": os.uname().nodename,
        "role": "worker",
        "worker_id": "1",
        "dp_rank": "0",
        "filename": settings["files"],
        "level": "info",
    }
    assert loki.records()[0].fields == dict(stream)


def test_otlp_with_everything_set(
    otlp: Otlp, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """A token, attributes, the service's name."""
    otlp.want_headers = {"Authorization": "Bearer t0ken-abc", "X-Key": "k"}
    settings["otlp"] = {
        "url": otlp.url,
        "bearer_token": "t0ken-abc",
        "headers": {"X-Key": "k"},
        "service_name": "chat",
        "attributes": {"deployment.environment": "prod"},
        "gzip": False,
    }
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_texts(otlp, 20)
    assert plugin.stop() == 0
    fields = otlp.records()[0].fields
    assert (fields["service.name"], fields["deployment.environment"]) == ("chat", "prod")


@pytest.mark.parametrize("kind", ["loki", "otlp"])
def test_bad_credentials(
    kind: str,
    request: pytest.FixtureRequest,
    settings: dict[str, Any],
    run_plugin: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Said once, without them; nothing is lost, and a new token is taken without a restart."""
    receiver = request.getfixturevalue(kind)
    token = tmp_path / "token"
    token.write_text("wrong-token")
    receiver.want_headers = {"Authorization": "Bearer right-token"}
    settings[kind] = {"url": receiver.url, "bearer_token_file": str(token)}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    line = plugin.wait_for("HTTP 401 Unauthorized")
    assert line.level == "warning"
    wait_until(lambda: receiver.requests >= 3, 15)
    assert receiver.records() == []
    token.write_text("right-token")
    wait_texts(receiver, 20)
    assert plugin.stop() == 0
    assert len([one for one in plugin.lines if one.level == "warning"]) == 1
    assert "wrong-token" not in plugin.log
    assert texts(receiver) == [f"Number {number}" for number in range(20)]


def test_what_a_server_refuses_is_counted(
    loki: Loki, settings: dict[str, Any], log: Path, run_plugin: Callable[..., Any]
) -> None:
    """HTTP 400 will be the same again: those records are lost, said, and later ones are not."""
    loki.say = (400, b"entry too far behind\nsecond line", {})
    settings["loki"] = {"url": loki.url}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    line = plugin.wait_for("refused 20 records, which are lost: HTTP 400 Bad Request")
    assert "entry too far behind second line" in line.text
    loki.say = None
    append(log, 20)
    wait_texts(loki, 1)
    assert texts(loki) == ["Number 20"]
    assert plugin.stop() == 0
    plugin.wait_for("Delivered 1 record to Loki at .*; it refused 20".replace(".*", loki.url))


LONG_REFUSAL = (
    "entry for stream {{{labels}}} has timestamp too old, oldest acceptable timestamp is: x\n"
    "user 'fake', total ignored: 7 out of 20 for stream: {{job=\"vllm\"}}"
).format(labels=", ".join(f'label{n}="value{n}"' for n in range(40)))


def test_a_push_that_loki_refuses_in_part_counts_what_loki_says(
    loki: Loki, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """Loki puts the reason and the number at the end of its answer."""
    loki.say = (400, LONG_REFUSAL.encode(), {})
    settings["loki"] = {"url": loki.url}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    line = plugin.wait_for("refused 7 records, which are lost: HTTP 400 Bad Request: …")
    assert "total ignored: 7 out of 20" in line.text
    assert "timestamp too old" in line.text
    assert plugin.stop() == 0
    plugin.wait_for(f"Delivered 13 records to Loki at {loki.url}; it refused 7")


def test_more_labels_than_loki_accepts_are_an_error_at_the_start(
    loki: Loki, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """One label too many would lose every record."""
    labels = {f"own{number}": "x" for number in range(8)}
    settings["loki"] = {"url": loki.url, "labels": labels}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    line = plugin.wait_for("a stream would have 16 labels")
    assert line.level == "error"
    assert "Loki accepts 15 (max_labels)" in line.text
    assert plugin.wait_exit() == 125
    del labels["own0"]
    settings["loki"] = {"url": loki.url, "labels": {**labels, "job": "mine"}}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_texts(loki, 20)
    assert plugin.stop() == 0


def test_a_backlog_is_in_order_in_each_stream(
    loki: Loki, settings: dict[str, Any], tmp_path: Path, run_plugin: Callable[..., Any]
) -> None:
    """Loki refuses what is an hour older than the newest record of its stream."""
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    count = 3000
    for log in logs:
        begun = int(time.time()) - 36000
        with log.open("w") as file:
            file.write("A banner without a time\n")
            for number in range(count):
                at = time.localtime(begun + number * 11)
                stamp = time.strftime("%Y-%m-%d %H:%M:%S", at)
                file.write(f"[{stamp},000] LMCache INFO: {number} {'x' * 60} (p.py:1:a.b)\n")
    settings |= {"files": [str(log) for log in logs], "loki": {"url": loki.url}}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_texts(loki, 2 * (count + 1))
    assert plugin.stop() == 0
    newest: dict[tuple[str, ...], int] = {}
    for one in loki.records():
        labels = {name for stream in loki.streams for name, _ in stream}
        stream = tuple(one.fields.get(name, "") for name in sorted(labels))
        assert one.time_ns >= newest.get(stream, 0) - 3600 * 10**9, one
        newest[stream] = max(newest.get(stream, 0), one.time_ns)


def test_records_that_otlp_rejects_are_counted(
    otlp: Otlp, settings: dict[str, Any], log: Path, run_plugin: Callable[..., Any]
) -> None:
    """``partial_success`` of an answer: some of them are lost, and nothing is sent again."""
    otlp.say = otlp.partly(3, "attribute too long")
    settings["otlp"] = {"url": otlp.url}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    plugin.wait_for("refused 3 records, which are lost: attribute too long")
    otlp.say = None
    append(log, 20)
    wait_until(lambda: texts(otlp)[-1:] == ["Number 20"])
    assert plugin.stop() == 0
    assert len(texts(otlp)) == len(set(texts(otlp)))


def test_a_batch_that_is_too_large_is_halved(
    loki: Loki, settings: dict[str, Any], log: Path, run_plugin: Callable[..., Any]
) -> None:
    """Until it fits (HTTP 413)."""
    read = loki.read

    def strict(body: bytes) -> Any:
        found = list(read(body))
        if len(found) > 6:
            loki.say = (413, b"too large", {})
            raise ValueError
        return found

    loki.read = strict  # type: ignore[method-assign]
    loki.say = (413, b"too large", {})
    settings["loki"] = {"url": loki.url}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_until(lambda: loki.requests >= 2)
    loki.say = None
    wait_texts(loki, 1)
    assert plugin.stop() == 0


def test_a_server_that_wants_to_be_left_alone(
    otlp: Otlp, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """``Retry-After`` is heeded."""
    otlp.say = (429, b"slow down", {"Retry-After": "2"})
    settings["otlp"] = {"url": otlp.url}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    plugin.wait_for("HTTP 429 Too Many Requests: slow down")
    otlp.say = None
    wait_texts(otlp, 20)
    assert otlp.requests == 2
    plugin.wait_for(re.compile(r"again, after [2-9] s"))
    assert plugin.stop() == 0


def test_each_target_has_a_place_of_its_own(
    loki: Loki,
    otlp: Otlp,
    settings: dict[str, Any],
    log: Path,
    run_plugin: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """One that is away does not hold up the other, and misses nothing."""
    loki.stop()
    settings["loki"] = {"url": loki.url}
    settings["otlp"] = {"url": otlp.url}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_texts(otlp, 20)
    plugin.wait_for("Loki at .* cannot be reached".replace(".*", loki.url))
    assert plugin.stop() == 0
    (directory,) = (tmp_path / "state").iterdir()
    assert directory.name.startswith("scheduler-")
    positions = {
        name: json.loads((directory / f"{name}.json").read_text())["files"][str(log)][0]["offset"]
        for name in ("loki", "otlp")
    }
    assert positions == {"loki": 0, "otlp": log.stat().st_size}
    loki.start()
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_texts(loki, 20)
    append(log, 20)
    wait_texts(loki, 21)
    wait_texts(otlp, 21)
    assert plugin.stop() == 0
    assert texts(loki) == texts(otlp) == [f"Number {number}" for number in range(21)]


def test_malformed_settings(
    loki: Loki, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """Each with its full key; what is right goes on."""
    settings |= {
        "pol": 1,
        "batch_records": 0,
        "level": "warnin",
        "flush_interval": "1 fortnight",
        "loki": {"url": loki.url, "labels": {"a-b": "c", "ok": "yes"}, "tenant": 5},
        "otlp": {"headers": {"Authorization": "Bearer s3cret"}},
        "syslog": {"host": "x", "port": 70000, "ca_file": "y"},
    }
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_texts(loki, 20)
    assert plugin.stop() == 0
    said = "\n".join(line.text for line in plugin.lines)
    for key in (
        ".pol'",
        ".batch_records'",
        ".level'",
        ".flush_interval'",
        ".loki.labels.a-b'",
        ".loki.tenant'",
        ".otlp.url'",
        ".syslog.port'",
        ".syslog'",
    ):
        assert f"'{KEY}{key}" in said
    assert "did you mean 'poll'?" in said
    assert "did you mean 'warning'?" in said
    assert "ca_file needs tls: true" in said
    assert "s3cret" not in plugin.log
    assert dict(next(iter(loki.streams)))["ok"] == "yes"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, f"No target: set 'syslog', 'loki' or 'otlp' in '{KEY}'"),
        ({"loki": {"url": "localhost:3100"}}, "No target"),
    ],
)
def test_settings_that_nothing_can_be_done_with(
    settings: dict[str, Any], run_plugin: Callable[..., Any], change: dict[str, Any], text: str
) -> None:
    """One line, and code 125: it is not started again."""
    plugin = run_plugin(LOG_REPORTER, settings={**settings, **change}, restart="always")
    assert plugin.wait_exit() == 125
    assert any(text in line.text for line in plugin.lines)


def test_the_engine_s_own_log_without_files(
    loki: Loki, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """It is followed where stdout and stderr go to a file; no line of ours begets another."""
    del settings["files"]
    settings["loki"] = {"url": loki.url}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_until(lambda: any("Delivers to Loki" in text for text in texts(loki)))
    count = len(plugin.lines)
    (started,) = (got for got in loki.records() if "Started, pid" in got.text)
    assert started.text.startswith("[scheduler_log_reporter] Started, pid")
    assert started.fields["pid"] != "0"
    assert plugin.stop() == 0
    assert len(plugin.lines) == count + 1


def test_the_files_of_a_process(tmp_path: Path) -> None:
    """Those that its stdout and stderr go to, as patterns; no pipes, no strangers."""
    assert engine_files(None) == []
    assert engine_files(2**22 + 1) == []
    log = tmp_path / "a[1].log"
    with log.open("wb") as file:
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file, stderr=file)
        try:
            assert engine_files(process.pid) == [f"{tmp_path}/a[[]1].log"]
        finally:
            process.communicate()
    process = subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert engine_files(process.pid) == []
    finally:
        process.communicate()


def test_two_with_the_same_state(
    loki: Loki, settings: dict[str, Any], log: Path, run_plugin: Callable[..., Any]
) -> None:
    """The second waits until the first has ended, and goes on where that was."""
    settings["loki"] = {"url": loki.url}
    first = run_plugin(LOG_REPORTER, settings=settings)
    wait_texts(loki, 20)
    second = run_plugin(LOG_REPORTER, settings=settings)
    second.wait_for("another log reporter uses")
    assert first.stop() == 0
    append(log, 20)
    wait_texts(loki, 21)
    assert second.stop() == 0
    assert texts(loki) == [f"Number {number}" for number in range(21)]


def test_no_state_can_be_written(
    loki: Loki, settings: dict[str, Any], run_plugin: Callable[..., Any], tmp_path: Path
) -> None:
    """It is said what that means, and everything is delivered all the same."""
    (tmp_path / "state").write_text("no directory")
    settings["loki"] = {"url": loki.url}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    plugin.wait_for("no position will be stored: cannot write to")
    wait_texts(loki, 20)
    assert plugin.stop() == 0


def test_a_damaged_state(
    loki: Loki, settings: dict[str, Any], run_plugin: Callable[..., Any], tmp_path: Path
) -> None:
    """It is said, and delivery begins anew."""
    settings["loki"] = {"url": loki.url}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_texts(loki, 20)
    assert plugin.stop() == 0
    (path,) = (tmp_path / "state").glob("*/loki.json")
    path.write_text("{")
    before = len(texts(loki))
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    plugin.wait_for("is damaged")
    wait_texts(loki, before + 20)
    assert plugin.stop() == 0
