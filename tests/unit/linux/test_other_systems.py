# SPDX-License-Identifier: Apache-2.0
"""On a system other than Linux all modules can be imported, nothing starts, and one line says so.

The system is simulated: this interpreter without what only Linux has.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_under_test import environment

SIMULATION = """
import ctypes, importlib, logging, os, pkgutil, select, signal, sys, sysconfig
import rich.console, typer, yaml  # these have code of their own for each system
sysconfig.get_config_vars()  # likewise

class NoLibrary:
    def __init__(self, *_, **__): pass
    def __getattr__(self, name): raise AttributeError(f"symbol not found: {name}")

for module, names in (
    (os, "pidfd_open pipe2 memfd_create sched_getaffinity sched_setaffinity posix_fadvise"),
    (select, "epoll EPOLLIN EPOLLOUT EPOLLERR EPOLLHUP"),
    (signal, "SIGRTMIN SIGPWR SIGPOLL pidfd_send_signal"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
ctypes.CDLL = NoLibrary
sys.platform = "darwin"

def forbidden(*_, **__):
    raise SystemExit("started a process")

os.fork = os.posix_spawn = os.execve = forbidden
"""
WHY = "darwin is not supported: the supervisor needs Linux"


def on_another_system(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program there."""
    return subprocess.run(
        [sys.executable, "-c", SIMULATION + program, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_module_can_be_imported() -> None:
    """Those of the gallery need libraries, and those of a connector need vLLM."""
    program = """
import lmcache_plugin_adapter as package
for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    left_out = found.name.endswith(("__main__", ".bootstrap", "connector"))
    if not left_out and ".gallery." not in found.name:
        importlib.import_module(found.name)
        print(found.name)
"""
    done = on_another_system(program)
    assert (done.returncode, done.stderr) == (0, "")
    assert "lmcache_plugin_adapter.engine.launcher" in done.stdout
    assert "lmcache_plugin_adapter.supervisor.supervisor" in done.stdout


def test_a_launch_is_one_line(tmp_path: Path) -> None:
    """It fails, so that a host with another launcher uses that."""
    program = """
from types import SimpleNamespace
from lmcache_plugin_adapter.engine.launcher import RuntimePluginLauncher
from lmcache_plugin_adapter.hosts.vllm.hook import register
register()
logging.basicConfig(format="%(message)s")
config = SimpleNamespace(
    runtime_plugin_locations=[sys.argv[1]], extra_config=None, to_json=lambda: "{}"
)
launcher = RuntimePluginLauncher(config, "worker", 1, 0)
print(launcher.launch_plugins(), launcher.status())
launcher.stop_plugins()
"""
    done = on_another_system(program, str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "False None\n")
    assert done.stderr == f"Cannot launch runtime plugins: {WHY}\n"


@pytest.mark.parametrize("words", ["status", "logs", "stop --all", "reload", "run all_x.sh"])
def test_a_command_is_one_line(words: str) -> None:
    """Commands of supervisors say why there are none."""
    program = "from lmcache_plugin_adapter.cli.main import main\nmain()\n"
    done = on_another_system(program, *words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {WHY}\n"


def test_check_works(tmp_path: Path) -> None:
    """Authors may write plugins there."""
    (tmp_path / "all_x.sh").write_text("true\n")
    (tmp_path / "lmcache.yaml").write_text(f"runtime_plugin_locations: [{tmp_path}]\n")
    program = """
from lmcache_plugin_adapter.cli.inputs import read_config
from lmcache_plugin_adapter.cli.check.report import EngineSize, make_report
import lmcache_plugin_adapter.cli.check.report as report
report.patiently = lambda search: (search(lambda _: None, frozenset()), frozenset())
print(len(make_report(EngineSize(), read_config(sys.argv[1])).running))
"""
    done = on_another_system(program, str(tmp_path / "lmcache.yaml"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
