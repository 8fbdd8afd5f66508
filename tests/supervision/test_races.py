# SPDX-License-Identifier: Apache-2.0
"""What happens at the same time: launches, stops, reloads, ends and requests."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest
from harness import alive, connect, gone, wait_until

UP = "trap 'echo goodbye; exit' TERM; echo up; while :; do sleep 30 & wait $!; done"
STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.1; done"


def test_launches_from_many_threads_start_one_supervisor(plugin, engine) -> None:
    """Eight threads, one launcher and eight others: each plugin runs once, and a stop stops it."""
    plugin("all_x.sh", UP)
    one = engine(launch=False)
    one.do(
        "import threading\n"
        "others = [RuntimePluginLauncher(config, 'worker', 1, 0) for _ in range(8)]\n"
        "all_ = [launcher] * 8 + others\n"
        "threads = [threading.Thread(target=each.launch_plugins) for each in all_]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]"
    )
    one.wait_log(r"\] up ")
    one.do("[each.stop_plugins() for each in all_]")
    assert one.log().count("Started") == 1


# The thread that learns of a supervisor does not come to it.
BUSY = """\
import threading
from lmcache_plugin_adapter.engine.supervisor_connection import SupervisorConnection
free, reap = threading.Event(), SupervisorConnection.reap_detaching_process
SupervisorConnection.reap_detaching_process = lambda self: free.wait(60) and reap(self)
"""


@pytest.mark.parametrize("prelude", ["", BUSY], ids=["", "busy"])
def test_a_new_run_waits_for_the_end_of_the_last(plugin, engine, tmp_path, prelude) -> None:
    """Stop without waiting, then launch: old and new copies never run side by side."""
    plugin(
        "all_x.sh",
        f"if ! mkdir {tmp_path}/lock; then echo clash; exit; fi\n"
        f"trap 'sleep 0.5; rmdir {tmp_path}/lock; exit' TERM\n"
        "echo up; while :; do sleep 0.05; done",
    )
    one = engine(prelude=prelude)
    one.wait_log(r"\] up ")
    one.do("launcher.stop_plugins(wait=False); launcher.launch_plugins()")
    one.wait_for(lambda: one.log().count("] up ") == 2)
    assert "clash" not in one.log()
    if prelude:
        one.do("free.set()")


ONE_AT_A_TIME = """\
if ! mkdir {lock}; then echo clash; exit; fi
trap 'sleep 1; rmdir {lock}; exit' TERM
echo up; while :; do sleep 0.05; done
"""


@pytest.fixture
def lone_engine(plugin, engine, tmp_path):
    """An engine with a plugin that takes a second to end and tells if two copies run."""
    plugin("all_x.sh", ONE_AT_A_TIME.format(lock=tmp_path / "lock"))
    one = engine()
    one.wait_log(r"\] up ")
    return one


def up_again_alone(one) -> None:
    """Wait for the plugin's second copy, which must not have met the first."""
    one.wait_for(lambda: re.findall(r"\] (up|clash) ", one.log())[1:])
    assert "clash" not in one.log()


def test_three_runs_in_a_row(lone_engine) -> None:
    """The second is stopped while it waits for the first: the third waits for the first, too."""
    one = lone_engine
    one.do("launcher.stop_plugins(wait=False); launcher.launch_plugins()")
    one.wait_for(lambda: one.do("launcher.status()") is not None)
    one.do("launcher.stop_plugins(); launcher.launch_plugins()")
    up_again_alone(one)


def test_supervisor_killed_while_it_waits_for_an_earlier_one(lone_engine) -> None:
    """The one that takes its place waits as well."""
    one = lone_engine
    first = one.supervisor()
    one.do("launcher.stop_plugins(wait=False); launcher.launch_plugins()")
    status = one.wait_for(lambda: one.do("launcher.status()"))
    assert status["supervisor_pid"] != first
    os.kill(status["supervisor_pid"], signal.SIGKILL)
    up_again_alone(one)
    assert one.supervisor() not in (first, status["supervisor_pid"])


def test_new_run_after_one_that_could_not_start(lone_engine) -> None:
    """A launch that fails does not make the next one forget what is still ending."""
    one = lone_engine
    one.do("import sys; python = sys.executable; launcher.stop_plugins(wait=False)")
    one.do("sys.executable = '/none'")
    assert one.do("launcher.launch_plugins()") is False
    one.do("sys.executable = python")
    assert one.do("launcher.launch_plugins()") is True
    up_again_alone(one)


def test_launch_while_a_supervisor_told_to_stop_ends(lone_engine) -> None:
    """Launched again after a supervisor was ended by SIGTERM, plugins start when it is gone."""
    one = lone_engine
    os.kill(one.supervisor(), signal.SIGTERM)
    one.wait_for(lambda: one.do("launcher._keeper._stopping"), what="the engine has heard of it")
    assert one.do("launcher.launch_plugins()") is True
    up_again_alone(one)


def test_launch_again_where_nothing_watches(plugin, engine) -> None:
    """No thread was to be had: a launch finds out that the supervisor was told to stop."""
    plugin("all_x.sh", UP)
    one = engine(
        prelude="from lmcache_plugin_adapter.engine import supervisor_keeper\n"
        'def refused(*_): raise RuntimeError("can\'t start new thread")\n'
        "supervisor_keeper.start_new_thread = refused\n"
    )
    one.wait_log(r"\] up ")
    supervisor = one.supervisor()
    assert one.do("launcher.launch_plugins()") is True
    assert one.do("launcher.status(10)['supervisor_pid']") == supervisor
    os.kill(supervisor, signal.SIGTERM)
    wait_until(lambda: gone(supervisor))
    assert one.do("launcher.launch_plugins()") is True
    one.wait_for(lambda: one.log().count("] up ") == 2)
    one.do("launcher.stop_plugins()")


def test_supervisor_killed_where_a_copy_of_its_connection_lives(plugin, engine) -> None:
    """A thread forked in the middle of a launch: what the copy holds hides no supervisor's end."""
    plugin("all_x.sh", UP)
    one = engine(
        launch=False,
        prelude="import os, signal\n"
        "from lmcache_plugin_adapter.engine import supervisor_start\n"
        "own_pidfd = supervisor_start._own_pidfd\n"
        "def hooked():\n"
        "    global copy\n"
        "    copy = os.fork() or signal.pause()\n"
        "    return own_pidfd()\n"
        "supervisor_start._own_pidfd = hooked\n",
    )
    one.do("launcher.launch_plugins(); supervisor_start._own_pidfd = own_pidfd")
    try:
        one.wait_log(r"\] up ")
        one.wait_for(lambda: one.do("launcher._keeper.connection.pidfd") >= 0)
        os.kill(one.supervisor(), signal.SIGKILL)
        one.wait_for(lambda: one.log().count("] up ") == 2)
    finally:
        os.kill(one.do("copy"), signal.SIGKILL)


def test_supervisor_that_cannot_be_replaced_at_once(plugin, engine) -> None:
    """Whatever goes wrong with a new supervisor is said, and it is tried again."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    one.do(
        "from lmcache_plugin_adapter.engine import supervisor_start\n"
        "own_pidfd = supervisor_start._own_pidfd\n"
        "def once():\n"
        "    supervisor_start._own_pidfd = own_pidfd\n"
        "    raise MemoryError\n"
        "supervisor_start._own_pidfd = once"
    )
    os.kill(one.supervisor(), signal.SIGKILL)
    one.wait_for(lambda: one.log().count("] up ") == 2)
    one.wait_log(r"Supervisor of runtime plugins of worker 0 failed: .*MemoryError.*trying again")
    assert "Traceback" not in one.log()


def test_supervisor_of_an_earlier_run_killed_after_a_new_launch(plugin, engine) -> None:
    """The earlier run's clean-up does not touch the new run."""
    plugin("all_x.sh", STUBBORN)
    one = engine({"stop_grace": 2})
    one.wait_log(r"\] up ")
    first, old = one.supervisor(), one.plugin_pid("all_x")
    one.do("launcher.stop_plugins(wait=False); launcher.launch_plugins()")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: gone(old))
    one.wait_for(lambda: one.log().count("] up ") == 2)
    one.wait_for(lambda: (one.do("launcher.status()") or {}).get("plugins"))
    pid = one.status()["pid"]
    assert not wait_for_change(lambda: one.status()["pid"] != pid or not alive(pid))


def wait_for_change(condition, seconds: float = 1.0) -> bool:
    """Return whether ``condition`` comes true within so many seconds."""
    try:
        return bool(wait_until(condition, seconds))
    except AssertionError:
        return False


@pytest.mark.parametrize("op", ["start", "restart", "reload"])
def test_nothing_is_started_while_all_ends(plugin, engine, op) -> None:
    """In the grace period after the engine's end, requests to start are refused."""
    plugin("all_x.sh", STUBBORN)
    one = engine({"stop_grace": 60})
    one.wait_log(r"\] up ")
    pid, control = one.plugin_pid("all_x"), one.control
    with connect(control) as connection:
        one.kill()
        one.wait_log(r"Stopping 1 plugin")
        connection.sendall(json.dumps({"op": op, "all": True}).encode() + b"\n")
        assert b"the supervisor is stopping" in connection.recv(4096)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(os.path.dirname(control)))
    assert one.log().count("] Started") == 1


def test_reload_under_way_when_the_engine_ends(plugin, engine) -> None:
    """A changed plugin that waits for its old version's end is not started any more."""
    changing = plugin("all_x.sh", STUBBORN)
    one = engine({"stop_grace": 60})
    one.wait_log(r"\] up ")
    pid = one.plugin_pid("all_x")
    changing.write_text(STUBBORN + "\n")
    assert one.ask("reload")["restarted"] == ["all_x"]
    one.kill()
    one.wait_log(r"Stopping 1 plugin")
    os.kill(pid, signal.SIGKILL)
    run = one.log_path.parent / "run"
    wait_until(lambda: not os.listdir(run))
    assert one.log().count("] Started") == 1


def test_two_reloads_at_once_see_the_newest_file(plugin, engine) -> None:
    """Each reload answers for a search that began after it was asked for."""
    changing = plugin("all_x.sh", f"echo v1\n{UP}")
    one = engine()
    one.wait_log(r"\] v1 ")
    with connect(one.control) as first, connect(one.control) as second:
        first.sendall(b'{"op": "reload"}\n')
        changing.write_text(f"echo v2; echo\n{UP}")
        second.sendall(b'{"op": "reload"}\n')
        answers = [json.loads(each.recv(4096)) for each in (first, second)]
    assert "all_x" in answers[0]["restarted"] + answers[1]["restarted"]
    one.wait_log(r"\] v2 ")


def test_descriptors_handed_over_reach_no_plugin(plugin, engine) -> None:
    """While the status is asked for again and again, restarted plugins inherit nothing of it."""
    plugin("all_x.sh", 'set -- /proc/$$/fd/*; echo "${*##*/} "; exit 1')
    one = engine({"backoff": {"initial": 0.01, "max": 0.01}})
    until = time.monotonic() + 2
    while time.monotonic() < until:
        one.do("[launcher.status() for _ in range(20)]")
    seen = {line.replace("255 ", "") for line in one.texts("all_x")}
    # 255 is Bash's own copy of the script; 3 is the directory that it reads, at most.
    assert seen <= {"0 1 2 ", "0 1 2 3 "}


def test_many_that_cannot_be_executed(plugin, engine) -> None:
    """300 at once: each is said to be unable to run, and none is tried again."""
    for number in range(300):
        plugin(f"all_x{number}", b"\x7fNOT-AN-ELF\n")
    one = engine()
    one.wait_for(lambda: one.log().count("exec format error") == 300, 60)
    assert "Exited with code 127" not in one.log()
    states = {plugin["state"] for plugin in one.ask("status")["plugins"]}
    assert states == {"failed"}


def test_exec_by_an_engine_whose_forks_live_on(plugin, engine) -> None:
    """A forked copy of the engine does not hide that it became another program."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    pid = one.plugin_pid("all_x")
    one.do("import os, time\ncopy = os.fork()\nif not copy: time.sleep(60); os._exit(0)")
    copy = one.do("copy")
    one.interrupt("import os; os.execv('/bin/sleep', ['sleep', '60'])")
    wait_until(lambda: gone(pid))
    one.wait_log(r"became another program")
    assert alive(copy)
    os.kill(copy, signal.SIGKILL)
    one.kill()


def test_own_files_get_every_line_and_are_closed(plugin, engine, tmp_path) -> None:
    """A plugin with a file of its own is slowed rather than cut; reloads leak no descriptor."""
    noisy = plugin("all_x.sh", f"seq 300000\n{UP}")
    one = engine({"log": str(tmp_path / "logs")})
    one.wait_for(lambda: one.status().get("lines", 0) >= 300_001, 60)
    assert one.status()["lines_dropped"] == 0
    noisy.write_text(UP)
    one.ask("reload")
    one.wait_for(lambda: one.status()["state"] == "running")
    directory = f"/proc/{one.supervisor()}/fd"

    def descriptors() -> int:
        return len(os.listdir(directory))

    before = descriptors()
    for number in range(5):
        noisy.write_text(UP + "\n#" * (number + 1))
        one.ask("reload")
        one.wait_for(lambda: one.status()["state"] == "running")
    wait_until(lambda: descriptors() <= before + 1)


def test_log_file_that_is_a_fifo_holds_nobody(plugin, engine, tmp_path) -> None:
    """What is no regular file is not written; other plugins' files are, and it is said."""
    plugin("all_a.sh", UP)
    plugin("all_b.sh", UP)
    logs = tmp_path / "logs"
    logs.mkdir()
    os.mkfifo(logs / "all_a.worker-0.log")
    one = engine({"log": str(logs)})
    other = logs / "all_b.worker-0.log"
    wait_until(lambda: other.exists() and "up" in other.read_text())
    one.close()
    one.wait_log(r"\[all_a\] \d lines? lost: cannot write '.*/all_a.worker-0.log': No such device")


def test_followed_logs_go_on_after_a_reload(plugin, engine) -> None:
    """Who follows a plugin sees its next version, too."""
    changing = plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    with connect(one.control) as connection:
        connection.sendall(b'{"op": "logs", "names": ["all_x"], "lines": 0, "follow": true}\n')
        received = connection.recv(4096)
        changing.write_text(f"echo second\n{UP}")
        one.ask("reload")
        while b"second" not in received:
            received += connection.recv(65536)


def test_killed_while_stopping_is_not_blamed_on_memory(plugin, engine) -> None:
    """The hint at the kernel is for a SIGKILL that is not ours."""
    plugin("all_x.sh", STUBBORN)
    one = engine({"stop_grace": 0.2})
    one.wait_log(r"\] up ")
    one.close()
    one.wait_log(r"Stopped: killed by SIGKILL after")
    assert "out of memory" not in one.log()
