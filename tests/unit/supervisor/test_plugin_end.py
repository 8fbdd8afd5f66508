# SPDX-License-Identifier: Apache-2.0
"""Plugins never outlive their engine, are warned first, and are ended whole."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness import MARK, Engine, alive, gone, state_of, wait_until

from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.supervisor.shutdown import Shutdown

POLITE = """
trap 'echo goodbye >> "$NOTES"; exit 0' TERM
echo up
while :; do sleep 30 & wait $!; done
"""
STUBBORN = "trap '' TERM INT HUP; echo up; while :; do sleep 0.2; done"
DAEMON = """
import os, sys, time
if os.fork():
    time.sleep(60)
os.setsid()
if os.fork():
    os._exit(0)
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(os.environ["NOTES"], "w").write(str(os.getpid()))
time.sleep(60)
"""


@pytest.fixture
def notes(tmp_path):
    """Where plugins write what they have to say at the end."""
    return tmp_path / "notes"


@pytest.fixture
def up(engine, notes):
    """Start an engine and wait until its plugin is up."""

    def start(settings=None, pattern=r"\] up ", **options) -> Engine:
        one = engine(settings, env={"NOTES": str(notes)}, **options)
        one.wait_log(pattern)
        return one

    return start


ENDS = {
    "returns": "",
    "sys.exit": "import sys; sys.exit(3)",
    "exception": "raise SystemError('in the main thread')",
    "os._exit": "import os; os._exit(4)",
    "abort": "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()",
    "SIGTERM": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "SIGHUP": "import os, signal; os.kill(os.getpid(), signal.SIGHUP)",
    "SIGKILL": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "exec": "import os; os.execv('/bin/sleep', ['sleep', '60'])",
}


@pytest.mark.parametrize("end", ENDS)
def test_engine_ends(end, plugin, up, notes) -> None:
    """However the engine ends, its plugin is warned, says goodbye and is gone."""
    plugin("all_x.sh", POLITE)
    one = up()
    pid = one.plugin_pid("all_x")
    supervisor = one.supervisor()
    if ENDS[end]:
        one.interrupt(ENDS[end])
    else:
        one.close()
    wait_until(lambda: gone(pid), what="the plugin ends")
    assert notes.read_text() == "goodbye\n"
    wait_until(lambda: gone(supervisor), what="the supervisor ends")
    reason = "became another program" if end == "exec" else "ended"
    one.wait_log(rf"Stopping 1 plugin: its engine \(pid {one.pid}\) {reason} ")
    if end == "exec":
        assert alive(one.pid)
        one.kill()


def test_stubborn_plugin_is_killed_after_its_grace_period(plugin, up) -> None:
    """One that ignores SIGTERM is gone after its grace period, which here is not the default."""
    plugin("all_x.sh", STUBBORN)
    one = up({"stop_grace": 0.5})
    pid = one.plugin_pid("all_x")
    started = time.monotonic()
    one.kill()
    wait_until(lambda: gone(pid))
    assert 0.4 < time.monotonic() - started < 4
    one.wait_log(r"Did not end within 0.5 s of SIGTERM")


def test_stop_waits_and_is_idempotent(plugin, up) -> None:
    """``stop_plugins`` returns when no plugin is left; calling it again does nothing."""
    plugin("all_x.sh", POLITE)
    one = up()
    pid, supervisor = one.plugin_pid("all_x"), one.supervisor()
    assert one.do("launcher.stop_plugins()") is None
    assert gone(pid)
    wait_until(lambda: gone(supervisor), what="the exit of the supervisor, which has finished")
    one.do("[launcher.stop_plugins() for _ in range(3)]")
    one.do("launcher.stop_plugins(wait=False)")


def test_stop_without_waiting_returns_at_once(plugin, up) -> None:
    """A shutdown path is not delayed; the supervisor sees to the end by itself."""
    plugin("all_x.sh", STUBBORN)
    one = up({"stop_grace": 2})
    pid = one.plugin_pid("all_x")
    seconds = one.do(
        "(__import__('time').monotonic(), launcher.stop_plugins(wait=False),"
        " __import__('time').monotonic())"
    )
    assert seconds[2] - seconds[0] < 1
    assert alive(pid)
    wait_until(lambda: gone(pid))


def test_daemon_is_ended_too(plugin, up, notes) -> None:
    """A double-forked daemon in a session of its own, deaf to SIGTERM, does not stay."""
    plugin("all_x.py", DAEMON)
    one = up({"stop_grace": 0.5}, pattern="Started")
    wait_until(lambda: notes.exists() and notes.read_text())
    daemon = int(notes.read_text())
    assert alive(daemon)
    one.kill()
    wait_until(lambda: gone(daemon))


def test_daemon_is_ended_by_a_supervisor_that_was_stopped(plugin, up, notes) -> None:
    """However long the supervisor did not run, a daemon that carries no mark is killed."""
    bare = "os.execve('/bin/sleep', ['sleep', '60'], {MARK: os.environ[MARK]})"
    first, _, last = DAEMON.rpartition("time.sleep(60)")
    plugin("all_x.py", f"MARK = {MARK!r}{first}{bare}{last}")
    one = up({"stop_grace": 2}, pattern="Started")
    daemon = int(wait_until(lambda: notes.exists() and notes.read_text()))
    wait_until(lambda: Path(f"/proc/{daemon}/comm").read_text() == "sleep\n")
    supervisor = one.supervisor()
    one.kill()
    one.wait_log("Stopping 1 plugin")
    os.kill(supervisor, signal.SIGSTOP)
    continued = time.monotonic() + 3.5  # all times are over then
    wait_until(lambda: time.monotonic() > continued)
    os.kill(supervisor, signal.SIGCONT)
    wait_until(lambda: gone(supervisor))
    assert gone(daemon)
    assert "Left behind" not in one.log()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
def test_child_of_another_user_is_named_and_left() -> None:
    """A child that may not be signalled raises nothing; it is told from one that is stuck."""
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        program = (
            "import os, sys\n"
            "from lmcache_plugin_adapter.supervisor.processes.leftovers import (\n"
            "    kill_child, why_left)\n"
            f"os.setuid(12345)\nkill_child({child.pid})\n"
            f"print(why_left([{child.pid}, os.getpid()]))"
        )
        said = subprocess.check_output([sys.executable, "-c", program], text=True)
        child.kill()
    assert re.fullmatch(
        rf"of another user, who may not be signalled: pid {child.pid}; "
        r"stuck in the kernel: pid \d+\n",
        said,
    )


class Hidden:
    """A table of processes that shows none, as ``/proc`` may hide another user's."""

    def with_descendants(self, _roots: object) -> set[int]:
        """Return nothing."""
        return set()

    def send(self, _pids: object, _number: object) -> None:
        """Send nothing."""

    def kill(self, _pids: object) -> None:
        """Kill nothing."""


class NoReaper:
    """A reaper that always has a child left."""

    def __init__(self) -> None:
        self.endings: dict[object, None] = {}
        self.first_processes: dict[int, object] = {}

    def reap(self, check: bool) -> bool:
        """Reap nothing."""
        assert not check
        return False

    def check(self, _table: object) -> None:
        """Check nothing."""


def test_child_that_cannot_be_seen_nor_killed_is_left(monkeypatch) -> None:
    """A supervisor names it and ends, rather than looking for it without end."""
    monkeypatch.setattr("lmcache_plugin_adapter.supervisor.shutdown.ProcessTable", Hidden)
    leftovers = "lmcache_plugin_adapter.supervisor.processes.leftovers"
    monkeypatch.setattr(f"{leftovers}.kill_child", lambda _pid: None)
    monkeypatch.setattr("lmcache_plugin_adapter.supervisor.shutdown.KILL_SECONDS", 0.1)
    errors: list[BaseException] = []
    loop = Loop(errors.append)
    said: list[str] = []
    events = SimpleNamespace(log=lambda _level, text: said.append(text))
    services: Any = SimpleNamespace(loop=loop, events=events, reaper=NoReaper())
    shutdown = Shutdown(services)
    loop.call_later(20, loop.stop)
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        for module in (leftovers, "lmcache_plugin_adapter.supervisor.shutdown"):
            monkeypatch.setattr(f"{module}.own_children", lambda: [child.pid])
        shutdown.begin(0.0)
        loop.run()
        child.kill()
    assert said == [f"Left behind, stuck in the kernel: pid {child.pid}"]
    assert errors == []


def test_children_of_the_group_get_sigterm_once(plugin, up, notes) -> None:
    """SIGTERM goes to the whole group, and to nobody twice."""
    plugin(
        "all_x.sh",
        """trap 'echo parent >> "$NOTES"; wait; exit' TERM
        (trap 'echo child >> "$NOTES"; exit' TERM; echo up; while :; do sleep 0.1; done) &
        while :; do sleep 0.1; done""",
    )
    one = up()
    one.do("launcher.stop_plugins()")
    assert sorted(notes.read_text().split()) == ["child", "parent"]


def test_stopped_plugin_is_continued_and_warned(plugin, up, notes) -> None:
    """One that stopped itself with SIGSTOP can still say goodbye."""
    plugin("all_x.sh", POLITE.replace("echo up", "echo up; kill -STOP $$"))
    one = up()
    pid = one.plugin_pid("all_x")
    wait_until(lambda: state_of(pid) == "T")
    one.do("launcher.stop_plugins()")
    assert notes.read_text() == "goodbye\n"


def test_plugin_that_left_its_group_is_stopped(plugin, up) -> None:
    """A first process that moved to another group is found all the same."""
    plugin(
        "all_x.py",
        "import os, signal\npid = os.fork()\n"
        "if not pid:\n    os.setpgid(0, 0); signal.pause()\n"
        "import time\nwhile os.getpgid(pid) != pid: time.sleep(0.01)\n"
        "print('up'); signal.pause()\n",
    )
    one = up()
    one.do("launcher.stop_plugins()")


def test_fork_of_the_engine_that_lives_on_keeps_nothing_alive(plugin, up) -> None:
    """The original engine's end counts, whatever copies of it hold open."""
    plugin("all_x.sh", POLITE)
    one = up()
    copy = one.do(
        "[pid for pid in [__import__('os').fork()] if pid or"
        " __import__('time').sleep(60) or __import__('os')._exit(0)][0]"
    )
    pid = one.plugin_pid("all_x")
    one.kill()
    wait_until(lambda: gone(pid))
    assert alive(copy)
    os.kill(copy, signal.SIGKILL)


def test_fork_of_the_engine_that_exits_touches_nothing(plugin, up) -> None:
    """A forked child that runs its exit handlers, or stops "its" launcher, ends no plugin."""
    plugin("all_x.sh", POLITE)
    one = up()
    pid = one.plugin_pid("all_x")
    one.do(
        "import os\nchild = os.fork()\n"
        "if not child:\n"
        "    launcher.stop_plugins(); launcher.status()\n"
        "    import atexit; atexit._run_exitfuncs(); os._exit(0)\n"
        "os.waitpid(child, 0)"
    )
    assert one.status()["pid"] == pid
    assert alive(pid)


def test_launch_from_a_thread_that_ends(plugin, up) -> None:
    """The plugin's life does not hang on the thread that launched it."""
    plugin("all_x.sh", POLITE)
    one = up(launch=False, pattern="", prelude="")
    one.do(
        "import threading\nt = threading.Thread(target=launcher.launch_plugins)\n"
        "t.start(); t.join()"
    )
    one.wait_log(r"\] up ")
    pid = one.plugin_pid("all_x")
    one.do("import gc; gc.collect()")
    assert one.status()["pid"] == pid


def test_exit_right_after_launch_leaves_nothing(plugin, engine) -> None:
    """An engine that is gone a moment after the launch leaves no plugin and no supervisor."""
    for number in range(20):
        plugin(f"all_{number}_x.sh", "exec sleep 60")
    for delay in range(6):
        one = engine(launch=False, role="scheduler")
        one.interrupt(
            "import signal\nlauncher.launch_plugins()\n"
            "signal.signal(signal.SIGALRM, signal.SIG_DFL)\n"
            f"signal.setitimer(signal.ITIMER_REAL, {0.001 + delay * 0.012})"
        )
        assert one.process.wait(20) == -signal.SIGALRM


def test_engine_s_terminal_interrupt_reaches_plugins_as_sigterm(plugin, up, notes) -> None:
    """Ctrl-C signals the engine's group; plugins are outside it and get a goodbye."""
    plugin("all_x.sh", POLITE.replace("TERM", "TERM INT"))
    one = up(start_new_session=True)
    os.killpg(one.pid, signal.SIGINT)
    one.process.wait(20)
    wait_until(lambda: notes.exists() and notes.read_text() == "goodbye\n")


def test_engine_with_closed_standard_descriptors(plugin, tmp_path) -> None:
    """Descriptors 0 to 2 closed in the engine: plugins run, with sane ones of their own."""
    answer = tmp_path / "answer"
    plugin("all_x.sh", f"ls -l /proc/self/fd > {answer}.new; mv {answer}.new {answer}; sleep 60")
    program = (
        "import os, sys, time, json\n"
        "from lmcache_plugin_adapter import RuntimePluginLauncher\n"
        "class Config:\n"
        f"    runtime_plugin_locations = [{str(tmp_path / 'plugins')!r}]\n"
        "    def to_json(self): return '{}'\n"
        "for fd in (0, 1, 2): os.close(fd)\n"
        "launcher = RuntimePluginLauncher(Config(), 'worker', 1, 0)\n"
        "assert launcher.launch_plugins()\n"
        "deadline = time.monotonic() + 10\n"
        f"while not os.path.exists({str(answer)!r}) and time.monotonic() < deadline:\n"
        "    time.sleep(0.01)\n"
        "launcher.stop_plugins()\n"
        f"os._exit(0 if os.path.exists({str(answer)!r}) else 5)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=20, check=False)
    assert done.returncode == 0
    assert "0 -> /dev/null" in answer.read_text()
