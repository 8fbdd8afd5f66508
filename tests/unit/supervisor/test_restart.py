# SPDX-License-Identifier: Apache-2.0
"""Restart policy, backoff, what a plugin leaves behind, and what is said of each."""

from __future__ import annotations

import re
import signal

import pytest
from harness import alive, gone, wait_until

FAST = {"backoff": {"initial": 0.05, "max": 0.2, "reset_after": 30}}


@pytest.mark.parametrize(
    ("restart", "code", "again"),
    [
        ("on-failure", 0, False),
        ("on-failure", 1, True),
        ("never", 1, False),
        ("always", 0, True),
        ("always", 125, False),
        ("on-failure", 125, False),
    ],
)
def test_policy(plugin, engine, tmp_path, restart, code, again) -> None:
    """Whether a plugin is started again follows from policy and exit code, and is said."""
    runs = tmp_path / "runs"
    plugin("all_x.sh", f"echo run >> {runs}; exit {code}")
    one = engine({"restart": restart, **FAST})
    if again:
        one.wait_for(lambda: runs.exists() and runs.read_text().count("run") >= 3)
        one.wait_log(rf"Exited with code {code} after \S+ m?s; starting again in .* \(restart 2\)")
    else:
        one.wait_log(rf"Exited with code {code} after \S+ m?s; not restarted")
        assert one.status()["state"] == ("failed" if code == 125 else "exited")
        assert runs.read_text() == "run\n"


@pytest.mark.parametrize(("name", "again"), [("TERM", False), ("KILL", True), ("SEGV", True)])
def test_signals(plugin, engine, name, again) -> None:
    """A plugin ended by a stop signal was meant to end; by another, it crashed."""
    plugin("all_x.sh", f"ulimit -c 0; kill -{name} $$")
    one = engine(FAST)
    verdict = "starting again" if again else "not restarted"
    one.wait_log(rf"Killed by SIG{name}.*{verdict}")


def test_backoff_doubles_and_is_said(plugin, engine) -> None:
    """A crash loop is slowed: each wait is twice the last up to the maximum, plus jitter."""
    plugin("all_x.sh", "exit 1")
    one = engine(FAST)
    one.wait_log(r"\(restart 5\)")
    waits = [int(w) for w in re.findall(r"starting again in (\d+) ms", one.log())][:5]
    for wait, least in zip(waits, [50, 100, 200, 200, 200], strict=True):
        assert least <= wait <= least * 1.1 + 1


def test_crash_shows_the_last_lines(plugin, engine) -> None:
    """The line of a crash holds what the plugin printed last, of this run only."""
    plugin("all_x.py", "print('one'); print('two'); raise ValueError('the reason')")
    one = engine({"restart": "never"})
    one.wait_log(r"Exited with code 1 .*; last output: .*ValueError: the reason")


def test_spawn_that_fails_is_tried_again(plugin, engine) -> None:
    """Where no process can be made, the plugin is started once one can."""
    plugin("all_x.sh", "echo up; exec sleep 60")
    one = engine(FAST)
    one.wait_log(r"\] up ")


def test_leftovers_end_with_the_first_process(plugin, engine, tmp_path) -> None:
    """What a plugin leaves in the background is ended, counted, and the mend is named."""
    plugin("all_x.sh", f"sleep 60 & echo $! > {tmp_path}/pid; exit 0")
    one = engine()
    one.wait_log(r"Exited with code 0 .* it left 1 process behind, stopped now \(use 'exec'")
    wait_until(lambda: gone(int((tmp_path / "pid").read_text())))
    one.wait_for(lambda: one.status()["state"] == "exited")


def test_leftovers_deaf_to_sigterm_are_killed_before_the_restart(plugin, engine, tmp_path) -> None:
    """A restart never runs beside what the last run left."""
    plugin(
        "all_x.py",
        "import os, signal, sys, time\n"
        f"pids = open({str(tmp_path / 'pids')!r}, 'a+')\n"
        "pids.seek(0)\n"
        "for pid in pids.read().split():\n"
        "    assert not os.path.exists(f'/proc/{pid}'), 'the last run is still here'\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    os.setsid(); time.sleep(60)\n"
        "print(pid, file=pids, flush=True)\n"
        "sys.exit(1)\n",
    )
    one = engine({"stop_grace": 0.2, **FAST})
    one.wait_log(r"\(restart 3\)")
    assert "still here" not in one.log()


def test_leftovers_may_be_kept(plugin, engine, tmp_path) -> None:
    """``leftovers: keep``: a background process lives until the engine ends."""
    plugin("all_x.sh", f"sleep 60 & echo $! > {tmp_path}/pid; exit 0")
    one = engine({"plugins": {"all_x": {"leftovers": "keep"}}})
    one.wait_log(r"Exited with code 0")
    left = int((tmp_path / "pid").read_text())
    assert one.status()["state"] == "exited"
    assert alive(left)
    one.kill(signal.SIGKILL)
    wait_until(lambda: gone(left))


def test_one_that_exits_at_once_is_no_failure_of_the_others(plugin, engine) -> None:
    """A plugin's end concerns that plugin."""
    plugin("all_a.sh", "exit 0")
    plugin("all_b.sh", "echo up; exec sleep 60")
    one = engine()
    one.wait_log(r"\[all_a\] Exited with code 0")
    assert alive(one.plugin_pid("all_b"))


def test_file_that_cannot_be_executed_is_final(plugin, engine) -> None:
    """The kernel's refusal is said with its mend, and not tried again."""
    plugin("all_x", b"\x7fNOT-AN-ELF\n", mode=0o755)
    one = engine(FAST)
    one.wait_log(r"LMCache ERROR: \[all_x\] Cannot run .*: exec format error; add a first line")
    one.wait_for(lambda: one.status()["state"] == "failed")
    assert one.log().count("Started") == 1
