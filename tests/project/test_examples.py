# SPDX-License-Identifier: Apache-2.0
"""The example plugins keep the contract that they show."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from cli_under_test import ROOT, Running, state_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLES = ROOT / "examples"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_file())

# What makes each of them warn, as extra_config or as arguments.
WARNING: dict[str, tuple[dict[str, object], list[str], str]] = {
    "all_plugin.sh": ({"all_plugin": {"warn_mb": 0}}, [], "MB"),
    "scheduler_foo_plugin.py": ({}, [], "taking 5 s"),
    "worker_0_test.sh": ({"worker_0_test": {"min_free_mb": 10**9}}, [], "less than"),
    "worker_uptime.pl": ({}, ["--warn-load", "-1"], "load"),
}


class Plugin:
    """An example in a session of its own, as the supervisor starts it."""

    def __init__(self, name: str, config: object, arguments: list[str]) -> None:
        environment = {
            "LMCACHE_RUNTIME_PLUGIN_ROLE": "WORKER",
            "LMCACHE_RUNTIME_PLUGIN_WORKER_ID": "3",
            "LMCACHE_RUNTIME_PLUGIN_WORKER_COUNT": "8",
            "LMCACHE_RUNTIME_PLUGIN_ENGINE_PID": str(os.getpid()),
            "LMCACHE_RUNTIME_PLUGIN_CONFIG": json.dumps(config),
            "PYTHONUNBUFFERED": "1",
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
        }
        self.process = subprocess.Popen(
            [EXAMPLES / name, *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def lines(self) -> Iterator[str]:
        """Return an iterator over its output lines."""
        assert self.process.stdout is not None
        return iter(self.process.stdout.readline, "")

    def session(self) -> list[int]:
        """Return the living processes of its session."""
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        found = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == self.process.pid and state_of(pid) != "Z":
                    found.append(pid)
        return found


@pytest.fixture
def start() -> Iterator[object]:
    """Return a function that starts examples; kill all of them at the end."""
    started = []

    def start(name: str, config: object, arguments: list[str]) -> Plugin:
        started.append(Plugin(name, config, arguments))
        return started[-1]

    yield start
    for plugin in started:
        for pid in plugin.session():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        plugin.process.wait(10)
        plugin.process.stdout.close()


@pytest.mark.parametrize("to_group", [True, False], ids=["group", "process"])
@pytest.mark.parametrize("name", NAMES)
def test_sigterm_is_answered_at_once_and_leaves_nothing(name: str, to_group: bool, start) -> None:
    """The supervisor sends it to the group, LMCache's launcher to the process alone."""
    plugin = start(name, {"extra_config": None}, [])
    lines = plugin.lines()
    hello = next(line for line in lines if not line.startswith("<4>"))
    assert hello == "hello from WORKER 3 of 8 workers\n"
    if name != "scheduler_foo_plugin.py":
        assert next(lines)  # it is past its start, about to sleep
    until(lambda: sleeps(plugin), f"{name} waits")
    before = time.monotonic()
    if to_group:
        os.killpg(plugin.process.pid, signal.SIGTERM)
    else:
        plugin.process.send_signal(signal.SIGTERM)
    assert list(lines) == ["goodbye\n"]
    assert plugin.process.wait(10) == 0
    assert time.monotonic() - before < 4  # they look once in 5 s
    until(lambda: not plugin.session(), f"{name} leaves nothing", 4)


def sleeps(plugin: Plugin) -> bool:
    """Return whether each process of the plugin sleeps, a shell's ``sleep`` included."""
    session = plugin.session()
    shell = plugin.process.args[0].suffix == ".sh"
    return len(session) == 1 + shell and all(state_of(pid) == "S" for pid in session)


@pytest.mark.parametrize("name", NAMES)
def test_a_level_is_a_prefix(name: str, start) -> None:
    """Each example logs a warning with these parameters."""
    extra_config, arguments, said = WARNING[name]
    plugin = start(name, {"extra_config": extra_config}, arguments)
    warning = next(line for line in plugin.lines() if line.startswith("<4>"))
    assert said in warning


def test_a_wrong_argument_is_final(start) -> None:
    """Exit code 125 means "do not restart"."""
    plugin = start("worker_uptime.pl", {}, ["--no-such-option"])
    assert "no-such-option" in "".join(plugin.lines())
    assert plugin.process.wait(10) == 125


@pytest.mark.parametrize("name", NAMES)
def test_short_and_executable(name: str) -> None:
    """Each example has less than 40 lines."""
    path = EXAMPLES / name
    assert len(path.read_text().splitlines()) < 40
    assert os.access(path, os.X_OK)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_shellcheck_is_content() -> None:
    """Shellcheck finds no problem in the shell examples."""
    subprocess.run(["shellcheck", *EXAMPLES.glob("*.sh")], check=True)


def test_the_examples_under_stand_in_engines(tmp_path: Path) -> None:
    """All run on one replica with two workers, until Ctrl-C."""
    with Running(tmp_path, "-c", "configs/lmcache.yaml", "--tp", "2") as running:
        for name, who in PLACES:
            running.until_logged(f"[{name}] hello from {who} of 2 workers")
        for name, text in (
            ("all_plugin", "engine process"),
            ("scheduler_foo_plugin", "up for"),
            ("worker_0_test", "/tmp has"),
            ("worker_uptime", "load of the machine"),
        ):
            running.until_logged(f"[{name}] {text}")
        os.killpg(running.process.pid, signal.SIGINT)
        assert running.wait() == 0
        for name, times in (
            ("all_plugin", 3),
            ("scheduler_foo_plugin", 1),
            ("worker_0_test", 1),
            ("worker_uptime", 2),
        ):
            assert running.log.count(f"[{name}] goodbye") == times
        assert running.log.count("] hello") == len(PLACES)
        assert not running.processes()


PLACES = (
    ("all_plugin", "SCHEDULER -1"),
    ("all_plugin", "WORKER 0"),
    ("all_plugin", "WORKER 1"),
    ("scheduler_foo_plugin", "SCHEDULER -1"),
    ("worker_0_test", "WORKER 0"),
    ("worker_uptime", "WORKER 0"),
    ("worker_uptime", "WORKER 1"),
)
