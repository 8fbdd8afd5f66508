# SPDX-License-Identifier: Apache-2.0
"""Records of journald, datagrams for syslog, and a trial on the console."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import wait_until
from log_receivers import Loki
from plugins import LOG_REPORTER

from lmcache_plugin_adapter.gallery.log_reporter.journal import KEY, Journal
from lmcache_plugin_adapter.gallery.log_reporter.reading.assembling import Bounds
from lmcache_plugin_adapter.gallery.log_reporter.reading.parsing import Parser
from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Level, Record
from lmcache_plugin_adapter.gallery.log_reporter.settings import JournaldSource

LINE = "(EngineCore_DP0 pid=7) WARNING 11-22 07:06:56 [core.py:12] Full"
JOURNALCTL = """\
#!{python}
# journalctl as far as the reporter uses it: the entries of a file, from a cursor on.
import json, sys, time
after = [one.partition("=")[2] for one in sys.argv if one.startswith("--after-cursor=")]
seen = 0
begun = not after
print(*sys.argv[1:], file=open({calls!r}, "a"))
while True:
    lines = open({entries!r}).read().splitlines()
    for line in lines[seen:]:
        if begun:
            print(line, flush=True)
        begun = begun or json.loads(line)["__CURSOR"] == after[0]
    seen = len(lines)
    time.sleep(0.05)
"""


class FakeJournal:
    """A journal in a file, and the program that reads it."""

    def __init__(self, directory: Path) -> None:
        self.entries = directory / "entries"
        self.entries.touch()
        self.calls = directory / "calls"
        program = directory / "bin" / "journalctl"
        program.parent.mkdir()
        text = JOURNALCTL.format(
            python=sys.executable, calls=str(self.calls), entries=str(self.entries)
        )
        program.write_text(text)
        program.chmod(0o755)
        self.path = str(program.parent)
        self.count = 0

    def log(self, *messages: str | list[int], pid: int = 42, priority: int = 6) -> None:
        """Add entries."""
        with self.entries.open("a") as file:
            for message in messages:
                self.count += 1
                entry = {
                    "__CURSOR": f"s=1;i={self.count}",
                    "__REALTIME_TIMESTAMP": str(1795331216_000000 + self.count),
                    "MESSAGE": message,
                    "PRIORITY": str(priority),
                    "SYSLOG_IDENTIFIER": "vllm",
                    "_PID": str(pid),
                }
                file.write(json.dumps(entry) + "\n")


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJournal:
    """A journal of which plugins find the program."""
    made = FakeJournal(tmp_path)
    monkeypatch.setenv("PATH", made.path + os.pathsep + os.environ["PATH"])
    return made


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Settings without source and target."""
    state = str(tmp_path / "state")
    fast = {"poll": 0.05, "flush_interval": 0.1, "multiline_timeout": 0.1}
    return {**fast, "state_directory": state}


def test_journald_as_a_source(
    journal: FakeJournal,
    loki: Loki,
    settings: dict[str, Any],
    run_plugin: Callable[..., Any],
) -> None:
    """Records with time, level and process; a restart goes on where it ended."""
    settings |= {"journald": {"units": ["vllm"], "kernel": True}, "loki": {"url": loki.url}}
    journal.log(LINE)
    journal.log("Traceback (most recent call last):", '  File "a.py"', "ValueError: x", pid=43)
    journal.log("urgent", priority=3)
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_until(
        lambda: len(loki.records()) >= 3,
        60,
        lambda: f"3 records: {plugin.log}\n{journal.calls.read_text()}",
    )
    assert plugin.stop() == 0
    found = {got.text: got for got in loki.records()}
    assert {text: got.level for text, got in found.items()} == {
        "Full": "warning",
        'Traceback (most recent call last):\n  File "a.py"\nValueError: x': "error",
        "urgent": "error",
    }
    assert found["Full"].fields["process"] == "EngineCore_DP0"
    assert found["urgent"].fields["process"] == "vllm"
    assert found["urgent"].fields["pid"] == "42"
    assert found["urgent"].fields["filename"] == KEY
    matches = "_SYSTEMD_UNIT=vllm.service + _PID=1 UNIT=vllm.service + _TRANSPORT=kernel"
    assert journal.calls.read_text().splitlines()[0].endswith(matches)
    journal.log("later")
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_until(lambda: len(loki.records()) >= 4, 60, "one more record")
    assert plugin.stop() == 0
    assert [got.text for got in loki.records()][3:] == ["later"]


def test_a_journalctl_that_fails(tmp_path: Path) -> None:
    """It is started again, and the reason is logged once."""
    notes: list[str] = []
    source = Journal(
        JournaldSource(kernel=True),
        Parser(),
        Bounds(4096, 0.0, Level.DEBUG),
        None,
        from_end=False,
        report=lambda text, _: notes.append(text),
        command=[sys.executable, "-c", "import sys; sys.exit('No journal files')"],
    )
    now = time.monotonic()
    for step in range(2):
        source.poll(now + 100 * step)
        wait_until(lambda: source.take(10, 1000, now) or source._process is None, 60, "its end")
    source.close()
    assert notes == ["cannot read the journal: No journal files; retrying"]
    missing = Journal(
        *(JournaldSource(kernel=True), Parser(), Bounds(4096, 0.0, Level.DEBUG), None),
        from_end=False,
        report=lambda text, _: notes.append(text),
        command=[str(tmp_path / "none")],
    )
    missing.poll(now)
    assert notes[1] == "cannot read the journal: No such file or directory; retrying"


def test_entries_confirm_only_what_is_delivered(journal: FakeJournal) -> None:
    """An open record of one process keeps the cursor before it; bytes that are no text arrive."""
    journal.log("Traceback (most recent call last):", pid=1)
    journal.log("a", [98, 255], pid=2)
    source = Journal(
        *(JournaldSource(kernel=True), Parser(), Bounds(4096, 1e9, Level.DEBUG), None),
        from_end=False,
        report=lambda text, _: pytest.fail(text),
    )
    found: list[Record] = []

    def read() -> bool:
        source.poll(time.monotonic())
        found.extend(source.take(10, 1000, time.monotonic()))
        return source.lines >= 3

    def acknowledge() -> None:
        for record in found:
            assert record.tailed is not None
            record.tailed.acked = max(record.tailed.acked, record.confirmed)

    wait_until(read, 60, "3 lines")
    assert [record.text for record in found] == ["a"]
    acknowledge()
    assert source.positions() == {}
    found += source.take(10, 1000, time.monotonic(), final=True)
    assert [record.text for record in found[1:]] == [
        "Traceback (most recent call last):",
        "b\\xff",
    ]
    acknowledge()
    assert source.positions()[KEY][0].digest == "s=1;i=3"
    source.close()


class Datagrams:
    """A socket that keeps what it gets."""

    def __init__(self, bound: socket.socket) -> None:
        self.socket = bound
        self.got: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                data = self.socket.recv(65536)
            except OSError:
                return
            self.got.append(data.decode())


@pytest.mark.parametrize("protocol", ["udp", "local"])
def test_syslog_by_datagrams(
    protocol: str, tmp_path: Path, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """One message each; a daemon that is not there yet loses nothing."""
    log = tmp_path / "vllm.log"
    log.write_text(f"{LINE}\nline one\n  and two\n")
    path = f"/tmp/syslog-{os.getpid()}.sock"
    listener = socket.socket(
        socket.AF_INET if protocol == "udp" else socket.AF_UNIX, socket.SOCK_DGRAM
    )
    if protocol == "udp":
        listener.bind(("127.0.0.1", 0))
        target = {"host": "127.0.0.1", "port": listener.getsockname()[1]}
    else:
        target = {"socket": path}
    settings |= {"files": str(log), "syslog": {"protocol": protocol, **target}}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    try:
        if protocol == "local":
            plugin.wait_for("cannot be reached: No such file or directory", 60)
            listener.bind(path)
        server = Datagrams(listener)
        wait_until(lambda: len(server.got) >= 2, 60, "2 messages")
        assert plugin.stop() == 0
        first, second = server.got
        if protocol == "udp":
            assert first.startswith("<132>1 ")
            assert first.endswith("] Full")
        else:
            pattern = r"<132>Nov 22 07:06:56 vllm\[7\]: \(EngineCore_DP0\) Full"
            assert re.fullmatch(pattern, first)
        assert second.endswith("line one\n  and two")
    finally:
        listener.close()
        Path(path).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ({}, "host is missing"),
        ({"host": "x", "protocol": "udp", "tls": True}, "tls needs protocol: tcp"),
        ({"host": "x", "protocol": "quic"}, "accepted is 'local', 'tcp' or 'udp'"),
    ],
)
def test_protocols_that_are_none(
    target: dict[str, Any],
    text: str,
    tmp_path: Path,
    settings: dict[str, Any],
    run_plugin: Callable[..., Any],
) -> None:
    """One line says so."""
    settings |= {"files": str(tmp_path / "x.log"), "syslog": target}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    plugin.wait_for(text, 60)


def test_the_console_does_not_follow_itself(
    tmp_path: Path, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """What it prints into the followed log is not delivered again."""
    log = tmp_path / "vllm.log"
    log.write_text(f"{LINE}\n")
    settings |= {"files": str(log), "target": "console"}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    line = plugin.wait_for("Would deliver: ", 60)
    found = json.loads(line.text.partition("Would deliver: ")[2])
    assert found["text"] == "Full"
    assert (found["level"], found["process"], found["role"]) == (
        "warning",
        "EngineCore_DP0",
        "scheduler",
    )
    name = "scheduler_log_reporter"
    with log.open("a") as file:
        head = "[2026-11-22 07:06:56,699] LMCache INFO: "
        file.write(f'{head}[{name}] Would deliver: {{"text": "Full"}} ({name}.py:1:x)\nlast\n')
    plugin.wait_for('"text":"last"', 60)
    assert plugin.stop() == 0
    assert sum("Would deliver: " in line.text for line in plugin.lines) == 2
