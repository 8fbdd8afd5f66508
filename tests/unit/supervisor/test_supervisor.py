# SPDX-License-Identifier: Apache-2.0
"""The supervisor itself: outside the engine's tree, replaced when killed, obedient, asleep."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import sys
from pathlib import Path

import pytest
from harness import alive, gone, state_of, wait_until

from lmcache_plugin_adapter.linux.procfs import ProcessTable, command_of

UP = "echo up; exec sleep 60"


def field(pid: int, name: str) -> int:
    """Return a number of /proc/PID/status."""
    match = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


def test_is_outside_the_engine_s_process_tree(plugin, engine) -> None:
    """Whoever kills the engine's tree by parent pid finds neither supervisor nor plugins."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    wait_until(lambda: ProcessTable().with_descendants([one.pid]) == {one.pid})
    supervisor = one.supervisor()
    assert one.plugin_pid("all_x") in ProcessTable().with_descendants([supervisor])
    assert command_of(supervisor) == b"lmcache-plugins"
    assert os.getsid(supervisor) != os.getsid(one.pid)
    assert str(one.pid).encode() in Path(f"/proc/{supervisor}/cmdline").read_bytes().split(b"\0")


def test_idle_without_wake_ups(plugin, engine) -> None:
    """With quiet plugins nothing runs: no context switch in the supervisor, nor in its threads."""
    for letter in "abc":
        plugin(f"all_{letter}.sh", UP)
    one = engine()
    one.wait_for(lambda: one.log().count("] up ") == 3)
    supervisor = one.supervisor()

    def switches() -> int:
        return sum(
            sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", status.read_text())))
            for status in Path(f"/proc/{supervisor}/task").glob("*/status")
        )

    def settled() -> bool:
        before = switches()
        signal.sigtimedwait([], 1.0)
        return switches() == before

    wait_until(settled, 10, "a second without a context switch")


def test_holds_nothing_of_the_engine_s(plugin, engine) -> None:
    """No descriptor of the engine's stays open in the supervisor."""
    plugin("all_x.sh", UP)
    one = engine(prelude="keep = open('/etc/passwd'); __import__('os').set_inheritable(3, True)")
    one.wait_log(r"\] up ")
    directory = f"/proc/{one.supervisor()}/fd"
    targets = []
    for fd in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile: its own
            targets.append(os.readlink(f"{directory}/{fd}"))
    assert targets
    assert "/etc/passwd" not in targets


def test_killed_supervisor_takes_plugins_along_and_is_replaced(plugin, engine, tmp_path) -> None:
    """SIGKILL: plugins die at once, what they left is swept, and all comes back by itself."""
    plugin(
        "all_x.py",
        "import os, signal, time\n"
        f"notes = open({str(tmp_path / 'pids')!r}, 'a')\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)\n"
        "print(pid, file=notes, flush=True)\n"
        "print('up', flush=True); time.sleep(60)\n",
    )
    one = engine({"stop_grace": 0.5})
    one.wait_log(r"\] up ")
    first, pid = one.supervisor(), one.plugin_pid("all_x")
    child = int((tmp_path / "pids").read_text().split()[0])
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: gone(pid), what="PDEATHSIG reaches the plugin")
    one.wait_log(rf"Supervisor {first} of worker 0 was killed; ended 1 process it left")
    assert gone(child)
    one.wait_for(lambda: one.log().count("] up ") == 2)
    assert one.supervisor() != first
    assert alive(one.pid)
    assert one.status()["state"] == "running"


def test_supervisor_killed_again_and_again(plugin, engine) -> None:
    """Each time it comes back, later each time; the engine goes on, with what it has open."""
    plugin("all_x.sh", UP)
    one = engine()
    descriptors = 0
    for count in range(1, 4):
        one.wait_for(lambda n=count: one.log().count("] up ") == n)
        one.wait_for(lambda: one.do("launcher._keeper.connection.pidfd") >= 0)
        descriptors = descriptors or len(os.listdir(f"/proc/{one.pid}/fd"))
        os.kill(one.supervisor(), signal.SIGKILL)
    one.wait_for(lambda: one.log().count("] up ") == 4)
    one.wait_for(lambda: len(os.listdir(f"/proc/{one.pid}/fd")) <= descriptors)
    one.do("launcher.stop_plugins()")


def test_stop_while_the_supervisor_is_being_replaced(plugin, engine) -> None:
    """A stop between two supervisors holds: nothing comes up any more."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    os.kill(one.supervisor(), signal.SIGKILL)
    one.do("launcher.stop_plugins()")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_supervisor_told_to_stop(plugin, engine, number) -> None:
    """An orderly stop with the full grace, no other supervisor, and a line on how to go on."""
    plugin("all_x.sh", "trap 'echo goodbye; exit' TERM; echo up; while :; do sleep 0.1; done")
    one = engine()
    one.wait_log(r"\] up ")
    supervisor = one.supervisor()
    os.kill(supervisor, number)
    one.wait_log(r"\] goodbye ")
    one.wait_log(r"Plugins start again when their engine is started again")
    wait_until(lambda: gone(supervisor))
    assert one.do("launcher.status()") is None
    one.do("launcher.stop_plugins()")
    assert one.log().count("] up ") == 1


def test_stopped_supervisor_goes_on_when_continued(plugin, engine) -> None:
    """SIGSTOP: nothing happens until SIGCONT, then what is due happens."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    supervisor, pid = one.supervisor(), one.plugin_pid("all_x")
    os.kill(supervisor, signal.SIGSTOP)
    wait_until(lambda: state_of(supervisor) == "T")
    one.kill()
    assert alive(pid)
    os.kill(supervisor, signal.SIGCONT)
    wait_until(lambda: gone(pid))


def test_engine_and_supervisor_killed_together(plugin, engine) -> None:
    """What both left is swept by the next supervisor of this user."""
    plugin(
        "all_x.py",
        "import os, signal, time\n"
        "if not os.fork():\n"
        "    os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    print('child', os.getpid(), flush=True); time.sleep(60)\n"
        "time.sleep(60)\n",
    )
    one = engine({"stop_grace": 0.5})
    left = int(one.wait_log(r"\] child (\d+)")[1])
    os.kill(one.pid, signal.SIGSTOP)
    os.kill(one.supervisor(), signal.SIGKILL)
    os.kill(one.pid, signal.SIGKILL)
    one.process.wait(5)
    run = Path(one.log_path.parent / "run")
    assert os.listdir(run)
    # Any supervisor of this user sweeps it; here one is sure to come.
    other = engine({"stop_grace": 0.5}, role="scheduler")
    other.wait_log(r"Started")
    wait_until(lambda: gone(left))
    wait_until(lambda: len(os.listdir(run)) == 1)


def test_runtime_directory_is_private(plugin, engine, tmp_path) -> None:
    """Directories are 0700, the socket and the configuration 0600."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    run = tmp_path / "run"
    (instance,) = run.iterdir()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in instance.iterdir()}
    assert modes == {"control.sock": 0o600, "config.json": 0o600, "processes": 0o600}
    assert stat.S_IMODE(run.stat().st_mode) == stat.S_IMODE(instance.stat().st_mode) == 0o700


def test_without_a_chosen_runtime_directory_another_is_used(plugin, engine) -> None:
    """A choice that cannot be used falls through to the next place."""
    plugin("all_x.sh", 'echo "file=[$LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE]"; exec sleep 60')
    one = engine(env={"LMCACHE_PLUGINS_RUNTIME_DIR": "/proc/none"})
    assert "/lmcache-plugins-" in one.wait_log(r"\] file=\[(.*)\]")[1]
    one.wait_log(
        "WARNING: .* LMCACHE_PLUGINS_RUNTIME_DIR: cannot use '/proc/none': No such file or "
        "directory; using '/.*/lmcache-plugins-.*' instead"
    )


def test_memory_is_small(plugin, engine) -> None:
    """Far below any full interpreter with site-packages; the exact target is a benchmark's."""
    for number in range(10):
        plugin(f"all_{number}_x.sh", UP) if number else plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    assert field(one.supervisor(), "VmRSS") < 25_000


def test_runs_on_the_engine_s_python_alone(plugin, engine) -> None:
    """The supervisor runs on the engine's interpreter, without its site-packages."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    command = Path(f"/proc/{one.supervisor()}/cmdline").read_bytes().split(b"\0")
    assert command[0].decode() == sys.executable
    assert b"-I" in command
    assert b"-S" in command
    maps = Path(f"/proc/{one.supervisor()}/maps").read_text()
    assert "site-packages" not in maps


def test_survives_writes_that_nobody_takes(plugin, engine, tmp_path) -> None:
    """Neither the death of its engine nor that of the log's reader ends it by SIGPIPE."""
    plugin(
        "all_x.sh",
        f"trap 'sleep 0.3; touch {tmp_path}/bye; exit' TERM\necho up; while :; do sleep 0.1; done",
    )
    plugin("all_y.sh", f"touch {tmp_path}/up; while :; do echo line; sleep 0.05; done")
    reader, writer = os.pipe()
    one = engine(stderr=writer)
    os.close(writer)
    wait_until((tmp_path / "up").exists)
    wait_until(lambda: one.status("all_x")["lines"] == 1)
    supervisor = one.do("launcher.status(10)")["supervisor_pid"]
    os.close(reader)
    wait_until(lambda: one.status("all_y")["lines"] > 5)
    one.kill()
    wait_until(lambda: gone(supervisor))
    with contextlib.suppress(OSError):  # where nobody reaps it, its status can be read
        assert Path(f"/proc/{supervisor}/stat").read_text().split()[-1] == "0"
    assert not os.listdir(tmp_path / "run")
