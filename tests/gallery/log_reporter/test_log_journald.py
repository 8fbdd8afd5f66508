# SPDX-License-Identifier: Apache-2.0
"""Records of journald, from a real journal through the real ``journalctl``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import wait_until
from journals import START, WrittenJournal
from log_receivers import Loki
from plugins import LOG_REPORTER, log_settings

from lmcache_plugin_adapter.gallery.log_reporter.journal import KEY, Journal
from lmcache_plugin_adapter.gallery.log_reporter.reading.assembling import Bounds
from lmcache_plugin_adapter.gallery.log_reporter.reading.parsing import Parser
from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Level, Record
from lmcache_plugin_adapter.gallery.log_reporter.settings import JournaldSource

LINE = "(EngineCore_DP0 pid=7) WARNING 11-22 07:06:56 [core.py:12] Full"
TRACEBACK = ("Traceback (most recent call last):", '  File "a.py"', "ValueError: x")
DUMP = "Process 43 (python3) of user 0 dumped core.\n\nStack trace of thread 43:\n#0  0x7f abort"


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WrittenJournal]:
    """A journal of which plugins find the program."""
    made = WrittenJournal(tmp_path)
    monkeypatch.setenv("PATH", f"{made.journalctl.parent}{os.pathsep}{os.environ['PATH']}")
    yield made
    made.close()


@pytest.fixture
def settings(tmp_path: Path, journal: WrittenJournal, loki: Loki) -> dict[str, Any]:
    """Settings that deliver one unit's records and the kernel's."""
    return log_settings(
        tmp_path,
        journald={"units": ["vllm"], "kernel": True, "directory": str(journal.directory)},
        loki={"url": loki.url},
    )


def wait_texts(loki: Loki, number: int, plugin: Any) -> list[str]:
    """Return the texts of so many records."""
    wait_until(lambda: len(loki.records()) >= number, 60, lambda: f"{number} records: {plugin.log}")
    return [got.text for got in loki.records()]


def test_journald_as_a_source(
    journal: WrittenJournal, loki: Loki, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """Records with time, level and process; new ones follow; other units stay out."""
    journal.log(LINE)
    journal.log(*TRACEBACK, x_PID="43")
    journal.log("urgent", PRIORITY="3")
    journal.log("of another unit", x_SYSTEMD_UNIT="sshd.service")
    journal.log(
        DUMP, PRIORITY="2", x_SYSTEMD_UNIT="d.service", COREDUMP_UNIT="vllm.service", x_UID="0"
    )
    journal.log("python3 invoked oom-killer", x_TRANSPORT="kernel", x_SYSTEMD_UNIT="")
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    wait_texts(loki, 5, plugin)
    journal.log("vllm.service: Failed", x_SYSTEMD_UNIT="init.scope", UNIT="vllm.service", x_PID="1")
    wait_texts(loki, 6, plugin)
    assert plugin.stop() == 0
    found = {got.text: got for got in loki.records()}
    assert {text: got.level for text, got in found.items()} == {
        "Full": "warning",
        "\n".join(TRACEBACK): "error",
        "urgent": "error",
        DUMP: "critical",
        "python3 invoked oom-killer": "error",
        "vllm.service: Failed": "info",
    }
    assert found["Full"].fields["process"] == "EngineCore_DP0"
    assert found["urgent"].fields["process"] == "vllm"
    assert found["urgent"].fields["pid"] == "42"
    assert found["urgent"].fields["filename"] == KEY


def test_a_restart_goes_on_after_the_last_entry(
    journal: WrittenJournal, loki: Loki, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """Also when the machine has been restarted before, and since."""
    journal.log("first")
    journal.reboot()
    journal.log("second")
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    assert wait_texts(loki, 2, plugin) == ["first", "second"]
    assert plugin.stop() == 0
    journal.log("third")
    journal.reboot()
    journal.log("fourth")
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    assert wait_texts(loki, 4, plugin) == ["first", "second", "third", "fourth"]
    assert plugin.stop() == 0


def test_a_journal_that_appears_later(
    journal: WrittenJournal,
    loki: Loki,
    settings: dict[str, Any],
    run_plugin: Callable[..., Any],
) -> None:
    """The reason is logged once, and reading begins when it is there."""
    journal.log("there")
    elsewhere = journal.directory.with_name("later")
    settings["journald"]["directory"] = str(elsewhere)
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    plugin.wait_for(f"cannot read the journal: Failed to open {elsewhere}: No such file", 60)
    elsewhere.symlink_to(journal.directory)
    assert wait_texts(loki, 1, plugin) == ["there"]
    assert plugin.stop() == 0


def made(
    source: JournaldSource, command: list[str], notes: list[str], wait: float = 0.0
) -> Journal:
    """Return a source of records from its beginning."""
    return Journal(
        *(source, Parser(), Bounds(100_000, wait, Level.DEBUG), None),
        from_end=False,
        report=lambda text, _: notes.append(text),
        command=command,
    )


def test_a_journalctl_that_fails(tmp_path: Path) -> None:
    """It is started again, and the reason is logged once."""
    notes: list[str] = []
    failing = [sys.executable, "-c", "import sys; sys.exit('No journal files')"]
    source = made(JournaldSource(kernel=True), failing, notes)
    now = time.monotonic()
    for step in range(2):
        source.poll(now + 100 * step)
        wait_until(lambda: source.take(10, 1000, now) or source._process is None, 60, "its end")
    source.close()
    assert notes == ["cannot read the journal: No journal files; retrying"]
    program = str(tmp_path / "none")
    missing = made(JournaldSource(kernel=True), [program], notes)
    missing.poll(now)
    why = f"cannot start '{program}': No such file or directory"
    assert notes[1] == f"cannot read the journal: {why}; retrying"


def test_a_journalctl_that_fails_after_its_first_entry() -> None:
    """The entry is known when it comes again: the reason is logged once, and the pauses grow."""
    notes: list[str] = []
    entry = '{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1","MESSAGE":"m"}'
    program = [sys.executable, "-c", f"import sys; print({entry!r}); sys.exit('broken')"]
    source = made(JournaldSource(kernel=True), program, notes)
    now = time.monotonic()

    def ended() -> bool:
        source.take(10, 1000, now)
        return source._process is None

    for step in range(3):
        source.poll(now + 100 * step)
        wait_until(ended, 60, "its end")
    source.close()
    assert notes == ["cannot read the journal: broken; retrying"]


def test_a_journalctl_that_is_killed(journal: WrittenJournal) -> None:
    """The next one goes on after the last entry: nothing is lost, and nothing comes twice."""
    notes: list[str] = []
    directory = JournaldSource(units=["vllm"], directory=str(journal.directory))
    source = made(directory, [str(journal.journalctl)], notes)
    found: list[str] = []

    def read(number: int) -> bool:
        now = time.monotonic()
        source.poll(now)
        found.extend(record.text for record in source.take(10, 10**6, now))
        return len(found) >= number

    for number in range(1, 4):
        journal.log(f"entry {number}")
        wait_until(lambda number=number: read(number), 60, lambda: f"an entry: {found} {notes}")  # type: ignore[misc]
        assert source._process is not None
        source._process.kill()
    source.close()
    assert found == ["entry 1", "entry 2", "entry 3"]
    assert notes == ["cannot read the journal: journalctl ended with code -9; retrying"] * 2


def test_a_journalctl_that_warns() -> None:
    """What it reports while it runs is logged: that it may not read all entries, for example."""
    notes: list[str] = []
    hint = "import sys, time; print('Hint: not all messages', file=sys.stderr); time.sleep(600)"
    source = made(JournaldSource(kernel=True), [sys.executable, "-uc", hint], notes)
    source.poll(time.monotonic())
    later = time.monotonic() + 5
    wait_until(lambda: source.take(10, 1000, later) or notes, 60, "its hint")
    source.close()
    assert notes == ["journalctl reports: Hint: not all messages"]


def test_entries_confirm_only_what_is_delivered(journal: WrittenJournal) -> None:
    """An open record of one process keeps the cursor before it; bytes that are no text arrive."""
    long = "x" * 49152
    journal.log(TRACEBACK[0], x_PID="1")
    journal.log("a", b"b\xff", x_PID="2")
    journal.log(long, x_PID="3", x_LINE_BREAK="line-max")
    journal.log("end", "one\n  two\nthree", x_PID="3")
    notes: list[str] = []
    directory = JournaldSource(units=["vllm"], directory=str(journal.directory))
    source = made(directory, [str(journal.journalctl)], notes, wait=1e9)
    found: list[Record] = []

    def read() -> bool:
        source.poll(time.monotonic())
        found.extend(source.take(10, 10**6, time.monotonic()))
        return source.lines >= 8

    def acknowledge() -> None:
        for record in found:
            assert record.tailed is not None
            record.tailed.acked = max(record.tailed.acked, record.confirmed)

    wait_until(read, 60, "8 lines")
    assert [record.text for record in found] == ["a", "b\\xff", f"{long}end"]
    acknowledge()
    assert source.positions() == {}
    found += source.take(10, 1000, time.monotonic(), final=True)
    assert [record.text for record in found[3:]] == [TRACEBACK[0], "one\n  two\nthree"]
    assert [record.time_ns for record in found[3:]] == [(START + n) * 1000 for n in (1, 6)]
    acknowledge()
    assert ";i=6;" in source.positions()[KEY][0].digest
    source.close()
    assert notes == []


def test_values_that_an_entry_has_several_times() -> None:
    """The first one counts; the entry is not lost."""
    notes: list[str] = []
    entry = (
        '{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1","MESSAGE":["m","n"],'
        '"SYSLOG_IDENTIFIER":["a","b"],"PRIORITY":[[51],"6"],"_PID":null}'
    )
    program = [sys.executable, "-uc", f"import time; print({entry!r}); time.sleep(600)"]
    source = made(JournaldSource(kernel=True), program, notes)
    source.poll(time.monotonic())
    (record,) = wait_until(lambda: source.take(10, 1000, time.monotonic()), 60, "a record")
    source.close()
    assert (record.text, record.process, record.level) == ("m", "a", Level.ERROR)
