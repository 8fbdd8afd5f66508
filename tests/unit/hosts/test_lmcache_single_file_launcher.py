# SPDX-License-Identifier: Apache-2.0
"""The launcher of one file: LMCache's own launcher starts it, and it starts the plugins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cli_under_test import ROOT
from harness import Engine, alive, marked, wait_until

from lmcache_plugin_adapter.hosts.lmcache_server.single_file_launcher import read_handed_over

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LAUNCH = ROOT / "configs" / "server" / "launch.sh"
WAIT = """trap 'echo goodbye; exit 0' TERM
echo "$LMCACHE_RUNTIME_PLUGIN_ROLE $LMCACHE_RUNTIME_PLUGIN_ENGINE_PID"
while :; do sleep 1 & wait $!; done
"""


def start(server: Engine, plugins: Path, **settings: Any) -> int:
    """Start the launcher of one file as LMCache's launcher does, and return its pid."""
    handed_over = {
        "mp_config": {"port": 5555},
        "http_config": {"http_port": 8080},
        "runtime_plugin_extra_config": {
            "runtime_plugin_locations": [str(plugins)],
            "runtime_plugins": settings,
            "foo": 1,
        },
    }
    server.do("import os, subprocess, sys")
    environment = {
        "LMCACHE_RUNTIME_PLUGIN_ROLE": "",
        "LMCACHE_RUNTIME_PLUGIN_CONFIG": json.dumps(handed_over),
    }
    server.do(
        f"child = subprocess.Popen(['/bin/sh', {str(LAUNCH)!r}], env={{**os.environ, "
        f"**{environment!r}}}, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr)"
    )
    return int(server.do("child.pid"))


@pytest.fixture
def server(engine: Callable[..., Engine]) -> Engine:
    """A process in the place of LMCache's server."""
    return engine(launch=False, env={"PYTHONPATH": str(ROOT)})


def test_the_launcher_of_one_file_runs_the_others(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """Plugins get the role, the server as their engine, and the whole configuration."""
    for name in ("server_x", "all_x", "worker_x"):
        plugin(f"{name}.sh", WAIT)
    plugin("server_y.sh", 'cat "$LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE" > config; echo written\n')
    start(server, plugins)
    for name in ("server_x", "all_x"):
        server.wait_log(rf"\[{name}\] SERVER {server.pid} ")
    server.wait_log(r"\[server_y\] written")
    assert "[worker_x]" not in server.log()
    config = json.loads((plugins.parent / "config").read_text())
    assert config["mp_config"] == {"port": 5555}
    assert config["runtime_plugin_extra_config"] == {"foo": 1}
    # LMCache's way to stop a plugin.
    server.do("child.terminate()")
    assert server.do("child.wait(10)") == 0
    assert server.log().count("] goodbye (") == 2
    wait_until(lambda: list(marked(str(plugins.parent))) == [server.pid])


def test_a_killed_server_takes_its_plugins_along(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """LMCache's own launcher would leave its plugins running."""
    plugin("server_x.sh", WAIT)
    child = start(server, plugins)
    server.wait_log(r"\[server_x\] SERVER")
    server.kill(signal.SIGKILL)
    server.wait_log(r"\[server_x\] goodbye")
    wait_until(lambda: not alive(child))
    wait_until(lambda: not marked(str(plugins.parent)))


def test_when_the_starter_is_killed_the_plugins_end(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """Plugins get SIGTERM and time to end, and the server goes on."""
    plugin("server_x.sh", WAIT)
    child = start(server, plugins)
    server.wait_log(r"\[server_x\] SERVER")
    os.kill(child, signal.SIGKILL)
    server.wait_log(r"\[server_x\] goodbye")
    server.do("child.wait()")
    wait_until(lambda: list(marked(str(plugins.parent))) == [server.pid])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("", "cannot read LMCACHE_RUNTIME_PLUGIN_CONFIG"),
        ("[]", "it is no JSON object"),
        ("{}", "no 'runtime_plugin_locations' is given in --runtime-plugin-config"),
        ('{"runtime_plugin_extra_config": [1]}', "found a list"),
    ],
)
def test_a_launcher_with_nothing_to_run_says_why(config: str, said: str) -> None:
    """One line gives the reason, and exit code 125 means "do not restart"."""
    result = subprocess.run(
        [sys.executable, "-m", "lmcache_plugin_adapter.server_plugin"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LMCACHE_RUNTIME_PLUGIN_CONFIG": config},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert result.returncode == 125
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_what_is_handed_over_is_kept() -> None:
    """All but the settings is passed on as LMCache gave it."""
    config = read_handed_over('{"a": {"b": 1}, "runtime_plugin_extra_config": {"foo": 1}}')
    assert config.host == {"a": {"b": 1}}
    assert json.loads(config.to_json())["runtime_plugin_extra_config"] == {"foo": 1}


def test_the_launcher_is_a_program() -> None:
    """For LMCache's launcher, which starts it, and for the documentation, which links to it."""
    assert os.access(LAUNCH, os.X_OK)
