# SPDX-License-Identifier: Apache-2.0
"""``log: logging``: lines of plugins as records of Python's logging in the engine."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import pytest
from harness import ENGINE_PROGRAM, wait_until

from lmcache_plugin_adapter.engine import logging_receiver
from lmcache_plugin_adapter.engine.supervisor_keeper import report_exit
from lmcache_plugin_adapter.supervisor.output.logging_relay import ACCEPTED, LoggingRelay
from lmcache_plugin_adapter.supervisor.output.stderr_route import StderrRoute, StreamTarget
from lmcache_plugin_adapter.supervisor.output.writer import Writer

UP = "trap 'echo goodbye; exit 0' TERM; echo up; while :; do sleep 30 & wait $!; done"

# As vLLM sets up its loggers, with a formatter for machines.
PRELUDE = """\
import json, logging, sys
class Machine(logging.Formatter):
    def format(self, record):
        return json.dumps({"json": record.getMessage(), "level": record.levelname,
            "logger": record.name, "file": record.filename, "line": record.lineno,
            "pid": record.process, "plugin": getattr(record, "plugin", None)})
handler = logging.StreamHandler(sys.stderr)
handler.setFormatter(Machine())
logging.getLogger("lmcache_plugins").addHandler(handler)
logging.getLogger("lmcache_plugins").setLevel("INFO")
logging.getLogger("lmcache_plugins").propagate = False
"""
ON = {"log": "logging"}


def relayed(one, plugin: str = "") -> list[dict[str, object]]:
    """Return what the engine logged, of one plugin if a name is given."""
    found = [json.loads(line) for line in re.findall(r'^\{"json".*\}$', one.log(), re.MULTILINE)]
    return [record for record in found if not plugin or record["plugin"] == plugin]


def test_lines_and_events_are_records(plugin, engine) -> None:
    """With level, name, file and pid; starts and ends of plugins, too."""
    plugin("all_x.sh", "echo '<3>bad'; echo '<7>noise'; printf 'a\\tb\\033\\n'; " + UP)
    one = engine(ON, prelude=PRELUDE)
    one.wait_log('"up"|] up"')
    pid = next(r["pid"] for r in relayed(one, "all_x") if r["file"] == "all_x.sh")
    assert [r for r in relayed(one, "all_x") if r["file"] == "all_x.sh"] == [
        {
            "json": f"[all_x] {text}",
            "level": level,
            "logger": "lmcache_plugins",
            "file": "all_x.sh",
            "line": pid,
            "pid": pid,
            "plugin": "all_x",
        }
        for text, level in (("bad", "ERROR"), ("a\tb\\x1b", "INFO"), ("up", "INFO"))
    ]
    events = [str(r["json"]) for r in relayed(one) if r["file"] == "supervisor.py"]
    assert events[0].startswith(f"[all_x] Started, pid {pid}")
    assert one.records() == []
    one.do("launcher.stop_plugins()")
    # The engine's thread may still be at it when the supervisor has ended.
    one.wait_for(lambda: "Stopped: exited with code 0" in str(relayed(one, "all_x")[-1]["json"]))
    assert relayed(one, "all_x")[-2]["json"] == "[all_x] goodbye"


def test_one_plugin_only(plugin, engine) -> None:
    """Set for one plugin, its lines go through logging; the rest stays on stderr."""
    plugin("all_x.sh", UP)
    plugin("all_y.sh", UP)
    one = engine({"plugins": {"all_x": ON}}, prelude=PRELUDE)
    one.wait_for(lambda: relayed(one, "all_x"))
    one.wait_for(lambda: one.texts("all_y") == ["up"])
    assert [record["json"] for record in relayed(one)] == ["[all_x] up"]
    assert one.texts("all_x") == []
    assert one.plugin_pid("all_x")


def test_engine_without_logging(plugin, engine) -> None:
    """Nothing set up: the lines go to stderr as they always do, none is lost."""
    plugin("all_x.sh", UP)
    one = engine(ON)
    one.wait_for(lambda: one.texts("all_x") == ["up"])
    assert one.plugin_pid("all_x")


def test_engine_that_is_killed(plugin, engine) -> None:
    """What plugins say after the engine's end is on its stderr."""
    plugin("all_x.sh", UP)
    one = engine(ON, prelude=PRELUDE)
    one.wait_for(lambda: [r for r in relayed(one) if r["json"] == "[all_x] up"])
    one.kill()
    one.wait_for(lambda: one.texts("all_x") == ["goodbye"])


def test_forked_copy_of_a_killed_engine(plugin, engine) -> None:
    """It holds the engine's end open, and nobody reads there: stderr has what comes."""
    plugin("all_x.sh", UP)
    one = engine(ON, prelude=PRELUDE + "import os, signal\n")
    one.wait_for(lambda: [r for r in relayed(one) if r["json"] == "[all_x] up"])
    copy = one.do("os.fork() or signal.pause()")
    try:
        one.kill()
        one.wait_for(lambda: one.texts("all_x") == ["goodbye"])
    finally:
        os.kill(copy, signal.SIGKILL)


def test_engine_that_is_stopped(plugin, engine, tmp_path) -> None:
    """An engine that takes nothing holds nobody up: after some seconds stderr has the lines."""
    plugin("all_x.sh", "echo up; read -r _ < go; seq 20000; exec sleep 60")
    go = tmp_path / "go"
    os.mkfifo(go)
    one = engine({**ON, "rate_limit": "off"}, prelude=PRELUDE)
    one.wait_for(lambda: [r for r in relayed(one) if r["json"] == "[all_x] up"])
    os.kill(one.pid, signal.SIGSTOP)
    try:
        go.write_text("\n")
        one.wait_for(lambda: "20000" in one.texts("all_x"), 60)
    finally:
        os.kill(one.pid, signal.SIGCONT)

    # A record that the engine has the beginning of is completed before the next one.
    def completed() -> bool:
        one.ask("restart", names=["all_x"], wait=True)
        return sum("Started" in str(record["json"]) for record in relayed(one, "all_x")) > 1

    wait_until(completed, 60)
    numbers = [int(text) for text in one.texts("all_x") if text.isdigit()]
    numbers += [
        int(text)
        for record in relayed(one, "all_x")
        if (text := str(record["json"]).removeprefix("[all_x] ")).isdigit()
    ]
    assert sorted(numbers) == list(range(1, 20_001))


def test_killed_supervisor(plugin, engine) -> None:
    """The next one has a way of its own."""
    plugin("all_x.sh", UP)
    one = engine(ON, prelude=PRELUDE)
    one.wait_for(lambda: "[all_x] up" in [r["json"] for r in relayed(one, "all_x")])
    answer = one.do("launcher.status(10)")
    os.kill(answer["supervisor_pid"], signal.SIGKILL)
    one.wait_for(lambda: [r["json"] for r in relayed(one, "all_x")].count("[all_x] up") == 2)
    threads = "[t.name for t in __import__('threading').enumerate()]"
    one.wait_for(lambda: one.do(threads).count("lmcache-plugins-log") == 1)


def test_nothing_of_it_by_default(plugin, engine) -> None:
    """No thread and no module in the engine."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    threads = one.do("[t.name for t in __import__('threading').enumerate()]")
    assert "lmcache-plugins-log" not in threads
    assert not one.do(
        "'lmcache_plugin_adapter.engine.logging_receiver' in __import__('sys').modules"
    )


LATE = f"""\
import atexit, runpy, time
atexit.register(time.sleep, 0.3)  # before logging's own: it runs after that
runpy.run_path({str(ENGINE_PROGRAM)!r}, run_name="__main__")
"""


def read_slowly(fd: int, whole: list[bytes], fast: threading.Event) -> None:
    """Read to the end: slowly, as a slow terminal does, until told otherwise."""
    while part := os.read(fd, 1000):
        whole.append(part)
        fast.wait(0.005)


def test_engine_that_exits_while_it_logs(plugin, engine, tmp_path) -> None:
    """Slow stderr, many lines under way: the engine ends as it should, and each line is there."""
    plugin("all_x.sh", "read -r _ < go; seq 5000; " + UP)
    go = tmp_path / "go"
    os.mkfifo(go)
    late = tmp_path / "late.py"
    late.write_text(LATE)
    reading, writing = os.pipe()
    one = engine(
        {**ON, "rate_limit": "off", "stop_grace": 5},
        prelude=PRELUDE,
        program=late,
        stderr=writing,
    )
    os.close(writing)
    whole: list[bytes] = []
    fast = threading.Event()
    reader = threading.Thread(target=read_slowly, args=(reading, whole, fast))
    reader.start()
    try:
        wait_until(lambda: one.status().get("state") == "running")
        go.write_text("\n")
        wait_until(lambda: b'"[all_x] 200"' in b"".join(whole), 60)
        later = threading.Timer(1, fast.set)
        later.start()
        assert one.close() == 0
    finally:
        fast.set()
        one.process.kill()
        reader.join(60)
        os.close(reading)
    text = b"".join(whole).decode()
    numbers = [int(n) for n in re.findall(r"\[all_x\] (\d+)(?:\"| \()", text)]
    assert sorted(numbers) == list(range(1, 5001))


def test_supervisor_that_ended_before_the_engine_answers() -> None:
    """The answer that nobody takes ends no engine, whatever it does on SIGPIPE."""
    program = (
        "import logging, signal, socket\n"
        "from lmcache_plugin_adapter.engine import logging_receiver\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "logging.basicConfig()\n"
        "ours, theirs = socket.socketpair()\n"
        "ours.close()\n"
        "logging_receiver.start(theirs.detach(), 'x')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_exit_while_the_watching_thread_loads_the_relay(monkeypatch) -> None:
    """A module that has nothing in it yet is no trouble of the engine's."""
    name = "lmcache_plugin_adapter.engine.logging_receiver"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    report_exit()


class Broken(logging.Handler):
    """A handler that raises."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle(self, record: logging.LogRecord) -> bool:
        """Note the message, then fail."""
        self.seen.append(record.getMessage())
        raise RuntimeError("a handler's own trouble")


def test_handlers_that_raise_and_odd_records(capfd) -> None:
    """Nothing that comes, and nothing that a handler does, ends the thread or is printed."""
    ours, theirs = socket.socketpair()
    handler = Broken()
    logger = logging.getLogger("lmcache_plugins.odd")
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        logging_receiver.start(theirs.detach(), logger.name)
        with ours:
            for line in (b"rubbish", b"9\x1fx", b"6\x1f1.5\x1fp\x1ff\x1f1\x1f\xff %s %d"):
                ours.sendall(line + b"\n")
            wait_until(lambda: handler.seen)
    finally:
        logger.removeHandler(handler)
    assert handler.seen == ["[p] \ufffd %s %d"]
    wait_until(
        lambda: all(thread.name != "lmcache-plugins-log" for thread in threading.enumerate())
    )
    assert capfd.readouterr().err == ""


def test_record_cut_in_two_by_a_slow_engine_is_completed(tmp_path) -> None:
    """The beginning that the engine has gets its end; what comes between goes to stderr."""
    near, far = socket.socketpair()
    with (tmp_path / "stderr").open("wb") as stderr, near, far:
        writer = Writer(lambda: None)
        stderr_route = StderrRoute(writer, StreamTarget(stderr.fileno()), "logger", False)
        relay = LoggingRelay(near, writer, stderr_route)
        _, (fd,), _, _ = socket.recv_fds(far, 10, 1)
        os.write(fd, ACCEPTED)
        form = relay.make_format("all_x", "x.sh", 1)
        began = time.monotonic()
        sent = [form.frame(6, b"%d:" % n + b"x" * 5000, "") for n in range(200)]
        relay.write(b"".join(sent))
        assert 1 < time.monotonic() - began < 10
        relay.write(form.frame(6, b"200:", ""))
        assert time.monotonic() - began < 10  # not waited for again
        with socket.socket(fileno=fd) as engine:
            engine.settimeout(5)
            data = b""
            while data.count(b":xxx") < 2 or not relay_is_whole(relay):
                data += engine.recv(1 << 20)
                relay.write(form.frame(6, b"more", ""))
            while not data.endswith(b"more\n"):
                data += engine.recv(1 << 20)
    relay._socket.close()
    numbers = [int(n) for n in re.findall(rb"(\d+):", data)]
    on_stderr = [int(n) for n in re.findall(rb"\] (\d+):", (tmp_path / "stderr").read_bytes())]
    assert sorted(numbers + on_stderr) == list(range(201))
    assert all(len(line.split(b"\x1f")) == 6 for line in data.splitlines())


def relay_is_whole(relay: LoggingRelay) -> bool:
    """Whether no end of a record is waiting."""
    return not relay._begun


@pytest.mark.parametrize("value", ["logging", "stderr"])
def test_settings_of_one_plugin_go_first(value) -> None:
    """``log`` of a plugin overrides that of all, both ways."""
    from lmcache_plugin_adapter.configuration.settings import read_settings

    other = "stderr" if value == "logging" else "logging"
    extra = {"runtime_plugins": {"log": other, "plugins": {"a": {"log": value}}}}
    settings, problems = read_settings(extra)
    assert problems == []
    assert settings.for_plugin("a").relay is (value == "logging")
    assert settings.for_plugin("b").relay is (other == "logging")
