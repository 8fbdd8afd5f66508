# SPDX-License-Identifier: Apache-2.0
"""The log reporter under a supervisor, beside an engine that logs, with each kind of target."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import wait_until
from log_receivers import Got, Loki, Otlp, Rsyslog, look
from plugins import LOG_REPORTER, log_settings


class Site:
    """A target, the log that is followed, and the plugin's settings.

    Args:
        directory: For all of it.
        kind: ``syslog``, ``loki`` or ``otlp``.
        run: Starts plugins.
    """

    def __init__(self, directory: Path, kind: str, run: Callable[..., Any]) -> None:
        self.kind = kind
        self.log = directory / "vllm.log"
        self.target: Any
        own: dict[str, Any]
        if kind == "syslog":
            self.target = Rsyslog(directory / "rsyslog")
            own = {"host": "127.0.0.1", "port": self.target.port}
        else:
            self.target = Loki() if kind == "loki" else Otlp()
            own = {"url": self.target.url}
        target = {kind: {**own, "timeout": 2}}
        self.settings = log_settings(directory, files=[str(self.log)], **target)
        self._run = run
        self.written = 0

    def run(self, **options: Any) -> Any:
        """Start an engine with the plugin."""
        plugin = self._run(LOG_REPORTER, settings=self.settings, **options)
        plugin.wait_for("Delivers to")
        return plugin

    def be_patient(self) -> None:
        """Have the plugin wait longer for an answer: none is asked for twice by a busy machine."""
        self.settings[self.kind]["timeout"] = 20

    def write(self, count: int = 1) -> None:
        """Log lines, numbered through."""
        with self.log.open("a") as file:
            for _ in range(count):
                file.write(
                    f"(EngineCore_DP0 pid=4711) INFO {time.strftime('%m-%d %H:%M:%S')} "
                    f"[core.py:{self.written % 1000 + 1}] Number {self.written}\n"
                )
                self.written += 1

    def numbers(self) -> list[int]:
        """Return the numbers that have arrived."""
        found = [got.text for got in self.target.records()]
        return [int(text.removeprefix("Number ")) for text in found if text.startswith("Number ")]

    def wait_all(self, seconds: float = 20.0) -> None:
        """Wait until each line has arrived at least once."""
        try:
            wait_until(lambda: not self.missing(), seconds)
        except AssertionError:
            missing = sorted(self.missing())
            text = f"{len(missing)} of {self.written} lines have not arrived: {missing[:20]}, …"
            raise AssertionError(text) from None

    def missing(self) -> set[int]:
        """Return the numbers that have not arrived."""
        return set(range(self.written)).difference(self.numbers())

    def duplicates(self) -> int:
        """How many lines have arrived once more."""
        return len(self.numbers()) - len(set(self.numbers()))


@pytest.fixture(params=["syslog", "loki", "otlp"])
def site(
    tmp_path: Path, request: pytest.FixtureRequest, run_plugin: Callable[..., Any]
) -> Iterator[Site]:
    """A target that runs, and a log."""
    made = Site(tmp_path, request.param, run_plugin)
    made.target.start()
    yield made
    made.target.stop()


def only(site: Site, text: str) -> Got:
    """Return the one record with a text."""
    (got,) = [got for got in site.target.records() if got.text == text]
    return got


def test_every_field_arrives(site: Site) -> None:
    """What the line said of itself, and which engine process it is."""
    site.log.write_text(
        '(EngineCore_DP0 pid=4711) WARNING 11-22 07:06:56 [core.py:12] Wörld "q" ] \\\n'
        "\x1b[31;20m[2026-11-22 07:06:57,250] LMCache ERROR:\x1b[0m Bad "
        "\x1b[3m(engine.py:13:lmcache.v1.engine)\x1b[0m\n"
        "plain\n"
    )
    plugin = site.run()
    wait_until(lambda: len(site.target.records()) == 3, 20)
    first, second = only(site, 'Wörld "q" ] \\'), only(site, "Bad")
    at = int(time.mktime((2026, 11, 22, 7, 6, 57, 0, 0, -1))) * 10**9 + 25 * 10**7
    assert second.time_ns // 10**6 * 10**6 == at
    host = os.uname().nodename
    if site.kind == "syslog":
        assert (first.level, second.level) == ("warning", "error")
        assert first.fields == {
            "host": host,
            "app": "vllm",
            "procid": "4711",
            "msgid": "vllm",
            "id": "lmcache@32473",
            "facility": "16",
            "role": "scheduler",
            "dp_rank": "0",
            "process": "EngineCore_DP0",
            "source": "core.py:12",
            "file": str(site.log),
        }
        assert second.fields["logger"] == "lmcache.v1.engine"
        assert second.fields["procid"] == "-"
    elif site.kind == "loki":
        assert (first.level, second.level) == ("warning", "error")
        assert first.fields == {
            "job": "vllm",
            "host": host,
            "role": "scheduler",
            "dp_rank": "0",
            "level": "warning",
            "process": "EngineCore_DP0",
            "filename": str(site.log),
            "source": "core.py:12",
            "pid": "4711",
            "format": "vllm",
        }
        assert second.fields["logger"] == "lmcache.v1.engine"
    else:
        assert (first.level, second.level) == ("WARN", "ERROR")
        assert first.fields == {
            "service.name": "vllm",
            "host.name": host,
            "lmcache.role": "scheduler",
            "lmcache.dp_rank": "0",
            "lmcache.log.format": "vllm",
            "lmcache.process": "EngineCore_DP0",
            "log.file.path": str(site.log),
            "code.file.path": "core.py",
            "code.line.number": "12",
            "process.pid": "4711",
            "scope": "vllm",
        }
        assert second.fields["scope"] == "lmcache.v1.engine"
    assert plugin.stop() == 0
    plugin.wait_for("Delivered 3 records to")


def test_normal_run(site: Site) -> None:
    """Each line once, soon after it was written; nothing to complain of."""
    site.be_patient()
    plugin = site.run()
    for _ in range(5):
        site.write(200)
        site.wait_all()
    assert plugin.stop() == 0
    assert site.numbers() == list(range(1000))
    assert {line.level for line in plugin.lines} == {"info"}


def test_no_file_yet(site: Site) -> None:
    """A pattern that matches nothing may be a slip: it is said, and the file is waited for."""
    plugin = site.run()
    line = plugin.wait_for("No file matches", 20)
    assert line.level == "warning"
    site.write(10)
    site.wait_all()
    assert plugin.stop() == 0


def test_target_down_at_start(site: Site) -> None:
    """It is said once; when the target is there, everything arrives."""
    site.target.stop()
    site.write(50)
    plugin = site.run()
    line = plugin.wait_for("cannot be reached")
    assert line.level == "warning"
    site.write(50)
    site.target.start()
    site.wait_all()
    plugin.wait_for("again, after")
    assert plugin.stop() == 0
    assert len([one for one in plugin.lines if "cannot be reached" in one.text]) == 1


def test_target_down_for_a_while(site: Site) -> None:
    """Killed under load and started again: nothing is lost."""
    plugin = site.run()
    for number in range(40):
        site.write(25)
        if number == 10:
            site.target.stop()
        if number == 25:
            plugin.wait_for("cannot be reached")
            site.target.start()
        time.sleep(0.02)  # the load
    site.wait_all()
    assert plugin.stop() == 0
    assert site.duplicates() <= 11 * 25  # what was written when the target was killed
    print(f"{site.kind}: {site.duplicates()} of {site.written} twice")


def test_end_in_the_middle_and_restart(site: Site) -> None:
    """SIGTERM with the target away: the position is kept, and the next engine goes on there."""
    plugin = site.run()
    site.write(100)
    site.wait_all()
    site.target.stop()
    site.write(100)
    plugin.wait_for("cannot be reached")
    began = time.monotonic()
    assert plugin.stop() == 0  # not killed when its 5 s were over
    assert time.monotonic() - began < 8
    plugin.wait_for("wait for the next start")
    site.target.start()
    site.write(100)
    plugin = site.run()
    site.wait_all()
    assert plugin.stop() == 0
    assert site.numbers() == list(range(300)) or site.duplicates() <= 100


def test_end_under_load(site: Site) -> None:
    """What was written before the end arrives within the grace period, once."""
    site.be_patient()
    site.write(5000)
    plugin = site.run(stop_grace=30)
    assert plugin.stop() == 0
    site.wait_all()  # rsyslog writes a moment later than it takes
    assert sorted(site.numbers()) == list(range(5000))


def test_rotated_while_the_target_is_away(site: Site) -> None:
    """Twice; nothing is lost, and the order is kept."""
    plugin = site.run()
    site.write(10)
    site.wait_all()
    site.target.stop()
    for number in (2, 1):
        site.write(20)
        plugin.wait_for("cannot be reached")
        site.log.rename(f"{site.log}.{number}")
        site.write(20)
        look(plugin)
    site.target.start()
    site.wait_all()
    assert plugin.stop() == 0
    assert list(dict.fromkeys(site.numbers())) == list(range(90))


def test_truncated_while_the_target_is_away(site: Site) -> None:
    """What is lost is counted and said; the rest arrives."""
    plugin = site.run()
    site.write(10)
    site.wait_all()
    site.target.stop()
    site.write(3)
    plugin.wait_for("cannot be reached")
    site.write(2000)
    look(plugin)
    os.truncate(site.log, 0)
    line = plugin.wait_for("truncated before all of it was delivered: at least")
    assert line.level == "warning"
    first = site.written
    site.write(10)
    site.target.start()
    wait_until(lambda: set(site.numbers()) >= set(range(first, first + 10)), 20)
    assert plugin.stop() == 0


def test_the_engine_is_killed(site: Site) -> None:
    """Its last lines arrive in the grace period, also one that it did not end."""
    plugin = site.run(stop_grace=30)
    site.write(10)
    site.wait_all()
    site.write(2000)
    with site.log.open("a") as file:
        file.write("(EngineCore_DP0 pid=4711) INFO 11-22 07:06:56 [core.py:1] Number 20")
    plugin.engine.kill()
    assert plugin.wait_exit(40) == 0
    site.wait_all()
    wait_until(lambda: site.numbers().count(20) >= 2, 20, "the line without an end")
    assert site.numbers().count(20) == 2


def test_a_slow_target(site: Site) -> None:
    """Slower than the log: nothing is lost, and little stands in memory."""
    if site.kind == "syslog":
        site.target.server.pause()
        plugin = site.run()
        site.write(3000)
        plugin.wait_for("not confirmed within 2 s", 30)
        site.target.server.resume()
    else:
        site.target.delay = 0.5
        plugin = site.run()
        site.write(3000)
    site.wait_all(40)
    assert plugin.stop() == 0
    assert site.duplicates() <= 2000


def test_a_target_that_hangs_at_the_end(site: Site) -> None:
    """The plugin ends within its grace period all the same, and the position is kept."""
    plugin = site.run()
    site.write(10)
    site.wait_all()
    if site.kind == "syslog":
        site.target.server.pause()
    else:
        site.target.delay = 60
    site.write(10)
    began = time.monotonic()
    assert plugin.stop() == 0
    assert time.monotonic() - began < 8
    plugin.wait_for(re.compile("10 records and 0 bytes .* wait for the next start"))
    if site.kind == "syslog":
        site.target.server.resume()
    site.target.delay = 0
    plugin = site.run()
    site.wait_all()
    assert plugin.stop() == 0


def test_a_target_that_is_back_when_the_engine_ends(site: Site) -> None:
    """Pauses have grown: it is tried at once all the same."""
    site.target.stop()
    site.write(10)
    plugin = site.run()
    plugin.wait_for("cannot be reached")
    time.sleep(3)  # the next try is seconds away
    site.target.start()
    assert plugin.stop() == 0
    site.wait_all()  # rsyslog writes a moment later than it takes
    assert site.numbers() == list(range(10))


def test_everything_at_once(site: Site) -> None:
    """Target and plugin killed and stopped, logs rotated, for some time: nothing is lost."""
    plugin = site.run(restart="always")
    rotations = 0
    deeds = ["pause target", "kill target", "kill plugin", "rotate", "start target"]
    deeds += ["kill plugin", "rotate"]
    for deed in deeds * 3:
        for _ in range(20):
            site.write(20)
            time.sleep(0.04)  # the load
        if deed == "pause target":
            if site.kind == "syslog":
                # Syslog has no answers: what rsyslog has read and not written when it is
                # stopped is lost with it.
                site.wait_all(60)
                site.target.server.pause()
        elif deed == "kill target":
            site.target.stop()
        elif deed == "start target":
            site.target.start()
        elif deed == "rotate":
            rotations += 1
            site.log.rename(f"{site.log}.{100 - rotations}")
        elif plugin.returncode is None and plugin.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(plugin.pid, signal.SIGKILL)
    site.wait_all(60)
    wait_until(lambda: plugin.returncode is None, 40)
    plugin.stop()
    starts = sum("Started, pid" in line.text for line in plugin.reports)
    print(f"{site.kind}: {starts} starts, {site.duplicates()} of {site.written} twice")
    killed = 9  # each may cost a batch
    assert site.duplicates() <= killed * 1000
