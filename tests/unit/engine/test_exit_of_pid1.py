# SPDX-License-Identifier: Apache-2.0
"""A server that is PID 1 of its container: its warning, and the wait at its exit."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest

from lmcache_plugin_adapter.engine import exit_of_pid1

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def may_unshare() -> bool:
    """Return whether this machine allows PID namespaces."""
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run([*UNSHARE, "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0
    )


needs_namespaces = pytest.mark.skipif(not may_unshare(), reason="cannot make PID namespaces")


@needs_namespaces
def test_exit_of_pid1_gives_plugins_time(plugin, engine, tmp_path) -> None:
    """The exit waits until the plugins have ended."""
    notes = tmp_path / "notes"
    plugin(
        "all_x.sh",
        f"trap 'sleep 0.3; echo goodbye >> {notes}; exit' TERM\n"
        "echo up; while :; do sleep 0.1; done",
    )
    one = engine(prefix=UNSHARE)
    one.wait_log(r"WARNING: .*the server is PID 1 of this container")
    one.wait_log(r"\] up ")
    one.close()
    assert notes.read_text() == "goodbye\n"


@needs_namespaces
def test_exit_of_pid1_waits_two_seconds_at_most(plugin, engine, tmp_path) -> None:
    """A plugin that ignores SIGTERM delays the end of the container by 2 s, not by its grace."""
    plugin("all_x.sh", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    one = engine({"stop_grace": 60}, prefix=UNSHARE)
    one.wait_log(r"\] up ")
    begun = time.monotonic()
    one.close()
    shutil.rmtree(tmp_path / "run")  # the supervisor was killed: the next one would remove it
    assert exit_of_pid1.WAIT_SECONDS - 0.1 < time.monotonic() - begun < 15


@needs_namespaces
def test_engine_below_pid1_in_a_namespace(plugin, engine, tmp_path) -> None:
    """With an init as PID 1, plugins get their grace period after SIGKILL of the engine."""
    notes = tmp_path / "notes"
    plugin(
        "all_x.sh",
        f"trap 'echo goodbye >> {notes}; exit' TERM; echo up; while :; do sleep 0.1; done",
    )
    ended = '[ -z "$(ls run)" ]'  # of the supervisor, which PID 1 must not precede
    init = f'"$@"; n=0; until {ended} || [ $n = 100 ]; do sleep 0.1; n=$((n+1)); done'
    one = engine(prefix=(*UNSHARE, "sh", "-c", init, "sh"))
    one.wait_log(r"\] up ")
    one.close()
    assert notes.read_text() == "goodbye\n"


SERVER_OF_ENGINES = """
import json, os, subprocess, sys
from lmcache_plugin_adapter.hosts.vllm.hook import register
register()
engine = subprocess.Popen(sys.argv[1:])
sys.stdin.read()
engine.kill()
engine.wait()
"""


@needs_namespaces
def test_exit_of_a_server_that_is_pid1_waits_for_its_engines_plugins(
    plugin, engine, tmp_path
) -> None:
    """Where the hook runs in PID 1, the API server, plugins of engine cores get time to end."""
    notes = tmp_path / "notes"
    plugin(
        "all_x.sh",
        f"trap 'sleep 0.3; echo goodbye >> {notes}; exit' TERM\n"
        "echo up; while :; do sleep 0.1; done",
    )
    one = engine(prefix=(*UNSHARE, sys.executable, "-c", SERVER_OF_ENGINES))
    one.wait_log(r"\] up ")
    one.close()
    assert notes.read_text() == "goodbye\n"


def test_elsewhere_exit_does_not_wait() -> None:
    """In any other process, the exit does not wait."""
    begun = time.monotonic()
    exit_of_pid1.wait_at_exit()
    exit_of_pid1.wait_for_supervisors(60)
    assert time.monotonic() - begun < 30
