# SPDX-License-Identifier: Apache-2.0
"""Plugins take what CPU time and memory the engine leaves: nice, autogroups, oom_score_adj."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.supervisor.processes import autogroups


def works(*command: str) -> bool:
    """Return whether a command can be executed here."""
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


HAS_AUTOGROUPS = os.path.exists("/proc/self/autogroup")

DAEMON = "setsid sleep 1000 & echo $! > $HOME/daemon; exec sleep 1000"
"""A plugin that starts a session of its own."""


def oom_score_adj(pid: int | str = "self") -> int:
    """Return how much sooner the kernel kills a process if memory runs out."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def autogroup(pid: int) -> int:
    """Return the nice value of the autogroup that a process is in."""
    return int(Path(f"/proc/{pid}/autogroup").read_text().rpartition(" ")[2])


@pytest.fixture
def with_daemon(engine, plugin, tmp_path):
    """Run a plugin that starts a session, and return its engine and both processes."""

    def start(settings, **options):
        plugin("all_x.sh", DAEMON)
        started = engine(settings, env={"HOME": str(tmp_path)}, **options)
        written = tmp_path / "daemon"
        daemon = started.wait_for(lambda: written.exists() and written.read_text(), 20)
        return started, [started.plugin_pid("all_x"), int(daemon)]

    return start


@pytest.mark.parametrize("nice", [None, 5])
def test_processes_of_a_plugin_have_its_priorities(with_daemon, nice) -> None:
    """The first process, what it starts, and what runs after a restart."""
    least = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = max(least, 19 if nice is None else nice)
    started, pids = with_daemon({"nice": nice})
    for pid in pids:
        assert os.getpriority(os.PRIO_PROCESS, pid) == wanted
        assert oom_score_adj(pid) == 1000
    assert os.getpriority(os.PRIO_PROCESS, started.supervisor()) == least
    assert oom_score_adj(started.supervisor()) == oom_score_adj()
    os.kill(pids[0], 9)
    started.wait_for(lambda: started.plugin_pid("all_x") not in pids, 20)
    again = started.plugin_pid("all_x")  # which may be just before its exec
    started.wait_for(lambda: os.getpriority(os.PRIO_PROCESS, again) == wanted, 20)
    started.wait_for(lambda: oom_score_adj(again) == 1000, 20)


@pytest.mark.skipif(not HAS_AUTOGROUPS, reason="the kernel has no autogroups")
def test_sessions_of_a_plugin_have_its_nice_value(with_daemon) -> None:
    """Autogroups share CPU time between sessions, whatever the nice value of their processes."""
    started, pids = with_daemon({"nice": 19})
    for pid in pids:
        started.wait_for(lambda pid=pid: autogroup(pid) == 19, 20, "the autogroup")
    assert autogroup(started.supervisor()) == 0


@pytest.mark.skipif(not HAS_AUTOGROUPS, reason="the kernel has no autogroups")
def test_many_sessions_of_a_user_who_may_change_one_at_a_time(engine, plugin) -> None:
    """The kernel accepts ten changes a second from users without CAP_SYS_ADMIN."""
    names = [f"all_{letter}" for letter in "abcdefgh"]
    for name in names:
        plugin(f"{name}.sh", "exec sleep 1000")
    drop = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    if not works(*drop, "true"):
        pytest.skip("needs setpriv and root, to drop a capability")
    started = engine({"nice": 7}, prefix=drop)
    for name in names:
        pid = started.plugin_pid(name)
        started.wait_for(lambda pid=pid: autogroup(pid) == 7, 20, "the autogroup")


def test_late_sessions_are_found_beside_frequent_starts(mocker) -> None:
    """Starts every second leave no second between two of them, after which one would search."""
    clock = mocker.patch.object(autogroups.time, "monotonic", return_value=0.0)
    search = mocker.patch.object(autogroups, "own_descendants", return_value=[])
    mocker.patch.object(autogroups.os.path, "exists", return_value=True)
    loop = mocker.create_autospec(Loop, instance=True)
    looks = autogroups.Autogroups(loop, mocker.Mock(), [])
    for second in range(25):
        clock.return_value = float(second)
        looks.started()
        loop.call_later.call_args.args[1]()
    assert search.call_count == 2


def test_a_nice_value_of_0_is_the_engine_s(with_daemon) -> None:
    """Nothing is changed then; oom_score_adj is never below the engine's."""
    _, pids = with_daemon({"nice": 0, "oom_score_adj": -1000})
    for pid in pids:
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0)
        assert oom_score_adj(pid) == oom_score_adj()


def test_an_engine_of_low_priority_has_no_plugin_of_higher_priority(with_daemon) -> None:
    """The engine's own values are the lowest."""
    value = max(oom_score_adj(), 500)  # only a privileged process may make it smaller
    lower = f"import os; os.nice(3); open('/proc/self/oom_score_adj', 'w').write('{value}')"
    started, pids = with_daemon({"nice": 1, "oom_score_adj": 400}, prelude=lower)
    for pid in [*pids, started.supervisor()]:
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(
            os.getpriority(os.PRIO_PROCESS, 0) + 3, 19
        )
        assert oom_score_adj(pid) == value


READ_ONLY = (
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("sh", "-c", 'mount -o remount,ro /proc && exec "$@"', "sh"),
)


def test_a_kernel_that_refuses_is_one_line(engine, plugin) -> None:
    """A read-only /proc: the plugins run, and one line for all of them says what is missing."""
    if not works(*READ_ONLY, "true"):
        pytest.skip("needs root, to mount /proc read-only")
    for name in ("all_a", "all_b"):
        plugin(f"{name}.sh", "exec sleep 1000")
    started = engine({"nice": 19}, prefix=READ_ONLY)
    for name in ("all_a", "all_b"):
        started.wait_log(rf"\[{name}\] Started", 20)
    refused = (
        "Plugins keep the engine's oom_score_adj: cannot write /proc/self/oom_score_adj: Read-o"
    )
    started.wait_log(refused, 20)
    if HAS_AUTOGROUPS:
        started.wait_log("cannot write /proc/PID/autogroup: Read-only file", 20)
    assert started.log().count(refused) == 1
    assert {started.status(name)["state"] for name in ("all_a", "all_b")} == {"running"}


def test_an_engine_under_a_real_time_policy(with_daemon) -> None:
    """Plugins do not inherit the policy, under which their nice value would have no effect."""
    if not works("chrt", "--fifo", "1", "true"):
        pytest.skip("needs chrt, and the right to use a real-time policy")
    started, pids = with_daemon({"nice": 19}, prefix=("chrt", "--fifo", "1"))
    assert os.sched_getscheduler(started.pid) == os.SCHED_FIFO
    for pid in [*pids, started.supervisor()]:
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER
