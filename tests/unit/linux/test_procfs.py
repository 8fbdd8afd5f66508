# SPDX-License-Identifier: Apache-2.0
"""What ``/proc`` shows of this process's descendants."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lmcache_plugin_adapter.linux import procfs

FAMILY = """\
import subprocess, sys, threading
sleeps = []
start = lambda: sleeps.append(subprocess.Popen(["sh", "-c", "setsid sleep 1000 & echo; wait"]))
thread = threading.Thread(target=lambda: (start(), sys.stdin.read()), daemon=True)
thread.start()
sys.stdin.read()
"""
"""A process whose second thread has a child, which has a child in a session of its own."""


@pytest.mark.parametrize("hidden", [False, True], ids=["children shown", "children hidden"])
def test_descendants_of_all_threads_and_sessions(monkeypatch, hidden: bool) -> None:
    """Found with and without the kernel's lists of children."""
    if hidden:
        monkeypatch.setattr(procfs, "own_children", lambda: None)
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as family:
        assert family.stdout is not None
        family.stdout.readline()  # its grandchild runs
        expected = procfs.ProcessTable().with_descendants([family.pid])
        try:
            assert len(expected) == 3
            assert procfs.own_descendants() >= {os.getpid(), *expected}
        finally:
            procfs.ProcessTable().kill(expected)
