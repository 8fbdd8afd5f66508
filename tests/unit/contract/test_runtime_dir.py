# SPDX-License-Identifier: Apache-2.0
"""The files of a supervisor's directory: whole or not there."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmcache_plugin_adapter.contract.run_token import new_run_id
from lmcache_plugin_adapter.contract.runtime_dir import ENDING_NAME, InstanceDir, write_whole


@pytest.fixture
def no_room() -> Iterator[None]:
    """No file may grow, as on a full file system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_file_system_leaves_no_empty_ending_file(tmp_path: Path, no_room: None) -> None:
    """A plugin that reads the file finds a reason, or no file."""
    instance = InstanceDir(str(tmp_path), new_run_id(), "worker-0")
    instance.write_exit_reason("closing")
    assert os.listdir(instance.path) == []
    instance.remove()


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path, no_room: None) -> None:
    """Readers never find half of a file."""
    path = tmp_path / ENDING_NAME
    path.touch(0o600)
    inode = path.stat().st_ino
    with pytest.raises(OSError, match="File too large"):
        write_whole(str(path), b"closing\n")
    assert os.listdir(tmp_path) == [ENDING_NAME]
    assert path.stat().st_ino == inode
