# SPDX-License-Identifier: Apache-2.0
"""Living supervisors are told from other processes of the same name."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.supervisors.living import living_supervisors
from lmcache_plugin_adapter.contract.run_token import SUPERVISOR_NAME, new_run_id
from lmcache_plugin_adapter.linux.procfs import command_of

if TYPE_CHECKING:
    from pathlib import Path


def test_a_command_is_no_supervisor(tmp_path: Path) -> None:
    """The kernel gives a running script its file's name. An unusable directory is the reason."""
    script = tmp_path / SUPERVISOR_NAME.decode()
    script.write_text("#!/bin/sh\necho up; read _\n")
    script.chmod(0o700)
    environ = {**os.environ, "LMCACHE_PLUGINS_RUNTIME_DIR": str(tmp_path)}
    found = []
    for words, mode in (
        (("status", "--wide"), 0o700),
        ((new_run_id(), "worker 0"), 0o700),
        ((new_run_id(), "worker 0"), 0o755),
    ):
        tmp_path.chmod(mode)
        with subprocess.Popen(
            [script, *words], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            assert command_of(process.pid) == SUPERVISOR_NAME
            found.append(living_supervisors(environ))
            process.communicate(b"\n")
    assert found[0] == []
    for texts, why in zip(found[1:], ("was removed", "chmod 700"), strict=True):
        (text,) = texts
        assert f"worker 0 of engine {os.getpid()}) runs" in text
        assert why in text
