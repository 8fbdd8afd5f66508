# SPDX-License-Identifier: Apache-2.0
"""The supervisor's files go to the first runtime directory that has room for them."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from lmcache_plugin_adapter.contract import runtime_dir
from lmcache_plugin_adapter.contract.run_token import new_run_id
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.supervisor import runtime_files
from lmcache_plugin_adapter.supervisor.control.server import ControlServer
from lmcache_plugin_adapter.supervisor.operator_stops import OperatorStops
from lmcache_plugin_adapter.supervisor.planning.user_files import _may_enter
from lmcache_plugin_adapter.supervisor.runtime_files import RuntimeFiles
from lmcache_plugin_adapter.supervisor.services import Services


@pytest.mark.parametrize("lacking", ["directory", "socket"])
def test_next_directory_is_used_where_one_has_no_inodes(
    tmp_path: Path, mocker: MockerFixture, lacking: str
) -> None:
    """Whatever cannot be made there, nothing stays there, and nothing is reported."""
    full, other = str(tmp_path / "full"), str(tmp_path / "other")
    mocker.patch.object(runtime_dir, "candidates", return_value=[full, other])
    made, listen = runtime_files.InstanceDir, ControlServer.listen

    def make(root: str, *names: str) -> runtime_dir.InstanceDir:
        if lacking == "directory" and root == full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return made(root, *names)

    def listen_in(server: ControlServer, directory: str, name: str) -> None:
        if directory.startswith(full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        listen(server, directory, name)

    mocker.patch.object(runtime_files, "InstanceDir", make)
    mocker.patch.object(ControlServer, "listen", listen_in)
    errors: list[BaseException] = []
    loop = Loop(errors.append)
    services = mocker.create_autospec(Services, instance=True)
    services.loop, services.file_label, services.events = loop, "worker-0", mocker.Mock()
    services.sockets = {}
    services.reaper = mocker.Mock(first_processes={})
    server = ControlServer(loop)
    files = RuntimeFiles(services, server, OperatorStops(print), new_run_id())
    files.open()
    assert files.instance is not None
    assert os.path.dirname(files.instance.path) == other
    assert "control.sock" in os.listdir(files.instance.path)
    assert os.listdir(full) == []
    services.events.log.assert_not_called()
    server.close()
    files.remove()
    assert not errors


def test_supplementary_groups_may_enter() -> None:
    """A directory that is open to one of a user's groups is open to the user."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o710)
        group = os.stat(directory).st_gid
        assert _may_enter(directory, 54_321, {54_321, group})
        assert not _may_enter(directory, 54_321, {54_321})
