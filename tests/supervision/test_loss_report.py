# SPDX-License-Identifier: Apache-2.0
"""A log that cannot be written, or is slower than plugins print: losses are counted and said."""

from __future__ import annotations

import os
import re
import threading
import time

import pytest
from harness import gone, wait_until

from lmcache_plugin_adapter.contract.log_records import INFO
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.supervisor.output.event_log import EventLog
from lmcache_plugin_adapter.supervisor.output.loss_report import LossReport
from lmcache_plugin_adapter.supervisor.output.stderr_route import StderrRoute, StreamTarget
from lmcache_plugin_adapter.supervisor.output.writer import Writer

LOST = r"WARNING: \[all_x\] ([\d,]+) lines? lost: cannot write '([^']+)': ([\w ]+); "
DROPPED = r"([\d,]+) lines? dropped: the log did not take them in time"


def test_log_directory_that_cannot_be_made_is_said_at_once(plugin, engine, tmp_path) -> None:
    """The path and the reason, not more often than once a period; the lines count as dropped."""
    plugin("all_x.sh", "while :; do echo hello; sleep 0.05; done")
    (tmp_path / "file").touch()
    one = engine({"log": {"directory": str(tmp_path / "file" / "logs")}})
    said = one.wait_log(LOST)
    assert said[2] == str(tmp_path / "file" / "logs" / "all_x.worker-0.log")
    assert said[3] == "Not a directory"
    lines = one.status()["lines"]
    assert one.status()["lines_dropped"] >= 1
    one.wait_for(lambda: one.status()["lines"] > lines + 20)
    assert len(re.findall(LOST, one.log())) == 1
    (tmp_path / "file").unlink()
    log = tmp_path / "file" / "logs" / "all_x.worker-0.log"
    one.wait_for(lambda: log.exists() and "hello" in log.read_text())
    printed = one.status()["lines"]
    supervisor = one.supervisor()
    one.close()
    wait_until(lambda: gone(supervisor))  # it says at its end what was lost last
    lost = sum(int(found[0].replace(",", "")) for found in re.findall(LOST, one.log()))
    assert 20 < lost < printed


def test_slow_reader_gets_all_of_plugins_that_end_together(plugin, engine) -> None:
    """What they leave in their pipes is read when the log has caught up; nothing is dropped."""
    for number in range(20):
        plugin(f"all_{chr(97 + number)}.sh", "seq -f '%.0f xxxxxxxxxxxxxxxxxxxxxxxxx' 1900")
    read_end, write_end = os.pipe()
    received: list[bytes] = []

    def read() -> None:
        while data := os.read(read_end, 65536):
            received.append(data)
            time.sleep(0.01)  # 5 MB in a second

    reader = threading.Thread(target=read)
    reader.start()
    try:
        one = engine({"rate_limit": False, "restart": "never"}, stderr=write_end)
        wait_until(lambda: b"".join(received).count(b"Exited with code 0") == 20, 60)
        wait_until(lambda: b"".join(received).count(b" xxx") == 20 * 1900, 60)
        one.close()
    finally:
        os.close(write_end)
        reader.join(20)
        os.close(read_end)
    assert re.search(DROPPED.encode(), b"".join(received)) is None


def test_slow_reader_of_the_log_gets_all_or_a_count(plugin, engine) -> None:
    """At the end there is more in the queue than a reader takes in a second."""
    plugin("all_x.sh", "seq -f 'line %.0f' 6000; exec sleep 60")
    read_end, write_end = os.pipe()
    one = engine({"rate_limit": False}, stderr=write_end)
    os.close(write_end)
    received: list[bytes] = []

    def read() -> None:
        while data := os.read(read_end, 4096):
            received.append(data)
            time.sleep(0.012)

    wait_until(lambda: one.status().get("lines") == 6000)
    reader = threading.Thread(target=read)
    reader.start()
    one.close()
    reader.join(30)
    os.close(read_end)
    text = b"".join(received).decode()
    arrived = re.findall(r"\] line (\d+) ", text)
    assert arrived == [str(number) for number in range(1, len(arrived) + 1)]
    # On a machine so slow that time is up, it is said what did not arrive; "Stopped" is of it.
    dropped = sum(int(n.replace(",", "")) for n in re.findall(DROPPED, text))
    assert 6000 <= len(arrived) + dropped < 6010
    assert dropped or len(arrived) == 6000


class Disk:
    """A target that takes so many seconds for each batch."""

    batch_bytes = 1

    def __init__(self, seconds: float) -> None:
        self._wait = threading.Event()
        self._seconds = seconds

    def write(self, _data: bytes) -> None:
        """Wait."""
        self._wait.wait(self._seconds)

    def write_ready(self, data: bytes) -> bytes:
        """Take nothing."""
        return data


@pytest.mark.parametrize("seconds", [0.2, 60])
def test_disk_that_is_slow_or_stuck_at_the_end_keeps_nothing_from_the_log(
    tmp_path, monkeypatch, seconds
) -> None:
    """The last words arrive all the same, and the count of what the disk did not take."""
    monkeypatch.setattr("lmcache_plugin_adapter.supervisor.output.loss_report._END_SECONDS", 2.0)
    loop = Loop(lambda error: pytest.fail(repr(error)))
    writer, files = (Writer(lambda: None, loop.call_soon) for _ in range(2))
    with (tmp_path / "log").open("wb") as file:
        route = StderrRoute(writer, StreamTarget(file.fileno()), "test", False)
        events = EventLog(loop, files, route, INFO)
        disk = Disk(seconds)
        for _ in range(100):
            files.put(disk, b"line\n", 1)
        events.log(INFO, "started", "all_x")
        assert writer.drain(30, time.monotonic() + 30)
        events.log(INFO, "last words", "all_x")  # after the loop, as the end of a supervisor is
        LossReport(events).finish()
    said = (tmp_path / "log").read_text()
    assert "[all_x] last words" in said
    dropped = re.findall(DROPPED, said)
    assert len(dropped) == 1
    assert 50 < int(dropped[0]) < 102
