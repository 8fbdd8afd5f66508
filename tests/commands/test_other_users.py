# SPDX-License-Identifier: Apache-2.0
"""Root and the engines of other users: seen by default, changed only when that is asked for."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_under_test import ROOT, command
from harness import ENGINE_PROGRAM, Engine, alive, gone, wait_until

SYSTEM_PYTHON = "/usr/bin/python3"  # one that every user can run
STRANGER = 54_321

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access(SYSTEM_PYTHON, os.X_OK),
    reason="needs root, and a Python that other users can run",
)


@pytest.fixture
def strangers_engine() -> Iterator[Engine]:
    """An engine of another user, with one plugin; the package is where that user can read it."""
    place = Path(tempfile.mkdtemp(prefix="other-user-"))
    place.chmod(0o755)
    shutil.copytree(ROOT / "lmcache_plugin_adapter", place / "lmcache_plugin_adapter")
    program = Path(shutil.copy(ENGINE_PROGRAM, place))
    (place / "plugins").mkdir()
    plugin = place / "plugins" / "all_x.sh"
    plugin.write_text("#!/bin/sh\necho up\nexec sleep 600\n")
    plugin.chmod(0o755)
    engine = Engine(
        place,
        {"runtime_plugin_locations": [str(plugin.parent)]},
        python=SYSTEM_PYTHON,
        program=program,
        env={"PYTHONPATH": str(place), "LMCACHE_PLUGINS_RUNTIME_DIR": None},
        user=STRANGER,
        group=STRANGER,
        extra_groups=(),
    )
    yield engine
    engine.close()
    wait_until(lambda: gone(engine.pid), what="the engine's end")
    shutil.rmtree(place)
    shutil.rmtree(f"/dev/shm/lmcache-plugins-{STRANGER}", ignore_errors=True)


def test_roots_commands_change_other_users_engines_only_on_request(
    strangers_engine: Engine,
) -> None:
    """``status`` shows them; ``stop`` leaves them alone without ``--all-users``."""
    strangers_engine.wait_log(r"\[all_x\] up ", 30)
    pid = strangers_engine.plugin_pid("all_x")
    selector = ("--engine", str(strangers_engine.pid))

    shown = command("status", *selector)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "all_x" in shown.stdout

    left = command("stop", "--all", "--wait", *selector)
    assert f"skipped engines of user {STRANGER}: --all-users includes them" in left.stderr
    assert alive(pid)

    stopped = command("stop", "--all", "--wait", "--all-users", *selector)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert gone(pid)
