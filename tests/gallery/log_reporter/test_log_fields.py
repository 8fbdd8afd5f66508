# SPDX-License-Identifier: Apache-2.0
"""Whose record it is, when it was logged, what a file's name and a server's answer may be."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from harness import wait_until
from log_follower import Follower, append
from log_receivers import Loki, Otlp
from plugins import LOG_REPORTER, log_settings

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.log_reporter import reporter as run
from lmcache_plugin_adapter.gallery.log_reporter.reading.positions import Positions
from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record
from lmcache_plugin_adapter.gallery.log_reporter.targets.loki import encode
from lmcache_plugin_adapter.gallery.log_reporter.targets.origin import Origin
from lmcache_plugin_adapter.kit import Context

LINE = "WARNING 11-22 07:06:56 [sched.py:10] KV cache is full"


@pytest.fixture(params=["loki", "otlp"])
def receiver(request: pytest.FixtureRequest) -> Any:
    """A strict receiver."""
    made = Loki() if request.param == "loki" else Otlp()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def settings(receiver: Loki | Otlp, tmp_path: Path) -> dict[str, Any]:
    """Of a plugin that delivers there."""
    kind = "loki" if isinstance(receiver, Loki) else "otlp"
    return log_settings(
        tmp_path,
        files=str(tmp_path / "vllm.log"),
        **{kind: {"url": receiver.url}},
    )


def wait_records(receiver: Loki | Otlp, count: int) -> None:
    """Wait for so many, and no more."""
    wait_until(lambda: len(receiver.records()) >= count, 20, f"{count} records")
    assert len(receiver.records()) == count


@pytest.mark.parametrize(
    ("process", "role", "replica"),
    [
        ("EngineCore_DP1", "scheduler", "1"),
        ("EngineCore", "scheduler", "0"),
        ("Worker_DP12_TP1", "worker", "12"),
        ("Worker_PP0_TP1", "worker", "0"),
        ("Worker", "worker", "0"),
        ("APIServer_1", "server", "0"),
        ("", "server", "0"),
    ],
)
def test_the_process_tells_role_and_replica(process: str, role: str, replica: str) -> None:
    """The log reporter's own are those of lines that do not tell."""
    labels = Origin("h", "server", -1, 0, "p").labels(process)
    assert labels == {"role": role, "dp_rank": replica}


def test_role_and_replica_arrive(
    receiver: Loki | Otlp, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """Those of the process, but one's own labels before all."""
    Path(settings["files"]).write_text(
        f"(EngineCore_DP1 pid=5) {LINE} 1\n(Worker_DP1_TP1 pid=6) {LINE} 2\n{LINE} 3\n"
    )
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_records(receiver, 3)
    assert plugin.stop() == 0
    prefix = "" if isinstance(receiver, Loki) else "lmcache."
    names = (f"{prefix}role", f"{prefix}dp_rank")
    assert {got.text[-1]: tuple(got.fields[name] for name in names) for got in receiver.got} == {
        "1": ("scheduler", "1"),
        "2": ("worker", "1"),
        "3": ("scheduler", "0"),
    }


def test_replicas_with_the_same_file(
    receiver: Loki | Otlp, settings: dict[str, Any], tmp_path: Path, run_plugin: Callable[..., Any]
) -> None:
    """One delivers it, the other one when that has ended."""
    log = Path(settings["files"])
    append(log, LINE)
    replicas = []
    for rank in range(2):
        script = tmp_path / str(rank) / "scheduler_log_reporter.py"
        script.parent.mkdir()
        script.write_text(
            "import os\n"
            f"os.environ['LMCACHE_RUNTIME_PLUGIN_DP_RANK'] = '{rank}'\n"
            "os.environ['LMCACHE_RUNTIME_PLUGIN_DP_SIZE'] = '2'\n"
            "from lmcache_plugin_adapter.gallery.log_reporter import main\n"
            "raise SystemExit(main())\n"
        )
        replicas.append(run_plugin(script, settings=settings))
        replicas[-1].wait_for("another log reporter uses" if rank else "Delivers to")
        wait_records(receiver, 1)
    assert replicas[0].stop() == 0
    append(log, LINE)
    wait_records(receiver, 2)
    assert replicas[1].stop() == 0
    assert len(receiver.records()) == 2


def times(records: list[Record]) -> list[int]:
    """Return the times that Loki gets."""
    pushed = json.loads(encode(records, lambda _: {}, metadata=True))
    return [int(value[0]) for stream in pushed["streams"] for value in stream["values"]]


@pytest.mark.parametrize(
    "line",
    [
        LINE,
        "[2026-11-22 07:06:56,699] LMCache INFO: Full (file.py:12:logger)",
        'INFO:     127.0.0.1:5000 - "GET /health HTTP/1.1" 200 OK',
        "no time at all",
    ],
)
def test_lines_that_are_the_same_have_times_of_their_own(tmp_path: Path, line: str) -> None:
    """Loki would keep one of them. In order, and the same in whatever batch."""
    log = tmp_path / "vllm.log"
    append(log, *[line] * 1000)
    records = Follower(log).take(final=True)
    assert len(records) == 1000
    found = times(records)
    assert found == sorted(set(found))
    assert max(found) - min(found) < 10**9
    if "06:56" in line:
        assert times(Follower(log).take(final=True)[500:]) == found[500:]


def test_a_name_that_is_not_utf_8(
    receiver: Loki | Otlp, settings: dict[str, Any], tmp_path: Path, run_plugin: Callable[..., Any]
) -> None:
    """The file is followed like any other; its position is remembered."""
    settings["files"] = str(tmp_path / "*.log")
    log = Path(os.fsdecode(os.fsencode(tmp_path) + b"/v\xffllm.log"))
    append(log, LINE)
    for count in (1, 2):
        plugin = run_plugin(LOG_REPORTER, settings=settings)
        wait_records(receiver, count)
        assert plugin.stop() == 0
        append(log, LINE)
    assert len(receiver.records()) == 2
    name = "filename" if isinstance(receiver, Loki) else "log.file.path"
    assert receiver.got[0].fields[name] == f"{tmp_path}/v\\xffllm.log"


def test_any_name_is_remembered(tmp_path: Path) -> None:
    """Also one with what stands for other bytes."""
    log = tmp_path / "a.log"
    append(log, "one")
    follower = Follower(log)
    follower.take()
    ((_, positions),) = follower.files.positions().items()
    paths = [os.fsdecode(raw) for raw in (b"\xff", b"\\xff", b"a\x80\xfeb", "ä€".encode(), b"ff")]
    state = Positions(str(tmp_path / "state"), "loki")
    assert state.try_lock()
    state.save(dict.fromkeys(paths, positions))
    found = state.load()
    assert found is not None
    assert list(found) == paths


def test_what_a_collector_says(tmp_path: Path, run_plugin: Callable[..., Any]) -> None:
    """Is one line, cut, without control characters and secrets."""
    otlp = Otlp()
    otlp.start()
    settings = {
        "files": str(tmp_path / "vllm.log"),
        "state_directory": str(tmp_path / "state"),
        "otlp": {"url": otlp.url, "bearer_token": "S3CRET-TOKEN"},
    }
    otlp.say = otlp.partly(1, "no S3CRET-TOKEN\x1b[2J\nplease " + "x" * 5000)
    append(tmp_path / "vllm.log", LINE)
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    line = plugin.wait_for(re.compile("refused 1 record")).text
    assert plugin.stop() == 0
    otlp.stop()
    assert "no ***?[2J please xxx" in line
    assert "x" * 201 not in line


def test_a_request_that_hangs_when_it_is_time_to_end(
    receiver: Loki | Otlp, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """It is left behind; the next one, on another connection, is answered at once."""
    log = Path(settings["files"])
    append(log, f"{LINE} 1")
    plugin = run_plugin(LOG_REPORTER, settings=settings, stop_grace=8)
    wait_records(receiver, 1)
    receiver.delay = 60
    append(log, f"{LINE} 2")
    before = receiver.requests
    wait_until(lambda: receiver.requests > before, 20, "a request that hangs")
    receiver.delay = 0
    began = time.monotonic()
    assert plugin.stop() == 0
    assert time.monotonic() - began < 8
    assert [got.text[-1] for got in receiver.records()] == ["1", "2"]
    plugin.wait_for("Delivered 2 records to")


def test_a_file_that_cannot_be_opened(
    receiver: Loki | Otlp, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """Is a warning: nothing of it is delivered."""
    log = Path(settings["files"])
    log.symlink_to(log.name)
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    assert plugin.wait_for(f"cannot follow '{log}'").level == "warning"
    assert plugin.stop() == 0
    assert receiver.records() == []


class _Over:
    """A grace period that is over after some looks at it."""

    def __init__(self) -> None:
        self.left = 5.0

    def is_set(self) -> bool:
        return True

    def wait(self, _: float) -> bool:
        return True

    def remaining(self) -> float:
        self.left -= 1
        return self.left


def test_a_thread_that_hangs_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a file system that is away: it is said all the same what that means."""
    monkeypatch.setattr(run, "_follow", lambda *_: threading.Event().wait(30))
    own = {"files": str(tmp_path / "x.log"), "loki": {"url": "http://loki"}}
    plugins = {"plugins": {"scheduler_log_reporter": {"settings": own}}}
    ctx = Context(
        role="SCHEDULER",
        worker_id=-1,
        worker_count=1,
        name="scheduler_log_reporter",
        config={"extra_config": {"runtime_plugins": plugins}},
    )
    assert run.report(ctx, cast("kit.Stop", _Over())) == 0
    assert (
        "stopped while a batch was in flight; unconfirmed records are delivered"
        in capsys.readouterr().out
    )
