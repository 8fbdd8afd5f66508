# SPDX-License-Identifier: Apache-2.0
"""The kernel's count of processes that it killed because memory ran out."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from lmcache_plugin_adapter.messages.wording import exit_text
from lmcache_plugin_adapter.supervisor.processes import oom_kills
from lmcache_plugin_adapter.supervisor.processes.oom_kills import OomKills

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = "low 0\nhigh 0\nmax 7\noom 5\noom_kill {}\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


@pytest.mark.parametrize("text", [EVENTS, CONTROL], ids=["version 2", "version 1"])
def test_each_kill_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """In the files of both versions of cgroups; the first one that exists is used."""
    file = tmp_path / "events"
    file.write_text(text.format(3))
    monkeypatch.setattr(oom_kills, "_files", lambda: iter([str(tmp_path / "none"), str(file)]))
    kills = OomKills()
    assert not kills.new()
    file.write_text(text.format(4))
    assert kills.new()
    assert not kills.new()
    file.unlink()
    assert not kills.new()


def test_a_count_that_cannot_be_read_is_no_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old kernels and sandboxes have none."""
    monkeypatch.setattr(oom_kills, "_files", lambda: iter([]))
    monkeypatch.setattr(oom_kills, "_VMSTAT", "/none")
    kills = OomKills()
    assert not kills.new()


def test_an_exit_names_the_kernel_s_kill() -> None:
    """Of the process itself, or of another one, as when a shell waits for it."""
    assert exit_text(-signal.SIGKILL, out_of_memory=True).startswith(
        "Killed by SIGKILL from the ker"
    )
    assert exit_text(137, out_of_memory=True) == (
        "Exited with code 137 (the kernel's OOM killer had killed another process)"
    )
