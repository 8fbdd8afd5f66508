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
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from cli_under_test import ROOT, Running, state_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLES = ROOT / "examples"
NOWHERE = "http://127.0.0.1:1"
"""An address at which no server listens."""

PATHS = {
    path.name: path
    for directory in (EXAMPLES, ROOT / "configs" / "vllm" / "plugins")
    for path in sorted(directory.iterdir())
    if path.is_file()
}
NAMES = list(PATHS)

# What makes each of them warn, as extra_config or as arguments.
WARNING: dict[str, tuple[dict[str, object], list[str], str]] = {
    "all_plugin.sh": ({"all_plugin": {"warn_mb": 0}}, [], "MB"),
    "scheduler_foo_plugin.py": ({}, [], "taking 5 s"),
    "worker_0_test.sh": ({"worker_0_test": {"min_free_mb": 10**9}}, [], "less than"),
    "worker_uptime.pl": ({}, ["--warn-load", "-1"], "load"),
    "scheduler_hit_rates.py": ({"hit_rates": {"warn_percent": 50}}, [], "20 of 80 tokens"),
    "scheduler_warm_cache.py": ({"warm_cache": {"prompts": []}}, [], "nothing to send"),
    "worker_0_disk_backend.py": ({"disk_backend": {"warn_percent": 0}}, [], "% full"),
}

METRICS = """
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 60.0
vllm:prefix_cache_queries_total{engine="1",model_name="m"} 20.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 20.0
vllm:prefix_cache_hits_total{engine="1",model_name="m"} 0.0
vllm:external_prefix_cache_queries_total{engine="0",model_name="m"} 10.0
vllm:external_prefix_cache_hits_total{engine="0",model_name="m"} 9.0
"""


class Vllm(BaseHTTPRequestHandler):
    """The part of vLLM's server that the examples use."""

    bodies: ClassVar[list[Any]] = []

    def do_GET(self) -> None:
        """Answer with metrics, or with the models."""
        self._answer(METRICS if self.path == "/metrics" else json.dumps({"data": [{"id": "m"}]}))

    def do_POST(self) -> None:
        """Keep the body."""
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer("{}")

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def vllm() -> Iterator[str]:
    """Return the address of a server."""
    Vllm.bodies.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Vllm) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def settings(name: str, url: str, **more: object) -> dict[str, object]:
    """Return a configuration with which an example has something to do."""
    extra: dict[str, dict[str, object]] = {
        "scheduler_hit_rates.py": {"hit_rates": {"url": f"{url}/metrics"}},
        "scheduler_warm_cache.py": {"warm_cache": {"url": url, "prompts": ["a"]}},
    }.get(name, {})
    for section, values in more.items():
        extra.setdefault(section, {}).update(values)  # type: ignore[call-overload]
    local = {"local_disk": f"file://{ROOT}/configs"} if name == "worker_0_disk_backend.py" else {}
    return {"extra_config": extra or None, **local}


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
            [PATHS[name], *arguments],
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
    plugin = start(name, settings(name, NOWHERE), [])
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
def test_a_level_is_a_prefix(name: str, start, vllm: str) -> None:
    """Each example logs a warning with these parameters."""
    extra_config, arguments, said = WARNING[name]
    plugin = start(name, settings(name, vllm, **extra_config), arguments)
    warning = next(line for line in plugin.lines() if line.startswith("<4>"))
    assert said in warning


def test_hit_rates(start, vllm: str) -> None:
    """Of all engines together, for each cache."""
    plugin = start("scheduler_hit_rates.py", settings("scheduler_hit_rates.py", vllm), [])
    lines = plugin.lines()
    assert [next(lines) for _ in range(3)][1:] == [
        "vLLM: 20 of 80 tokens found\n",
        "LMCache: 9 of 10 tokens found\n",
    ]


def test_the_cache_is_warmed_once(start, vllm: str) -> None:
    """Each prompt is sent once, to the served model; then the plugin has done its work."""
    parameters = settings("scheduler_warm_cache.py", vllm, warm_cache={"prompts": ["a", "bc"]})
    plugin = start("scheduler_warm_cache.py", parameters, [])
    sent = ["sent a prompt of 1 characters\n", "sent a prompt of 2 characters\n"]
    assert list(plugin.lines())[1:] == sent
    assert plugin.process.wait(20) == 0
    assert Vllm.bodies == [{"model": "m", "prompt": p, "max_tokens": 1} for p in ("a", "bc")]


def test_disk_backend(start, tmp_path: Path) -> None:
    """How full it is, of the size that LMCache may use."""
    (tmp_path / "chunk.pt").write_bytes(bytes(1 << 20))
    config = {"local_disk": f"file://{tmp_path}", "max_local_disk_size": 1 / 1024}
    plugin = start("worker_0_disk_backend.py", config, [])
    lines = plugin.lines()
    assert [next(lines) for _ in range(2)][1] == f"<4>{tmp_path}: 0.0 of 0 GB, 100 % full\n"


def test_a_wrong_argument_is_final(start) -> None:
    """Exit code 125 means "do not restart"."""
    plugin = start("worker_uptime.pl", {}, ["--no-such-option"])
    assert "no-such-option" in "".join(plugin.lines())
    assert plugin.process.wait(10) == 125


@pytest.mark.parametrize("name", NAMES)
def test_short_and_executable(name: str) -> None:
    """Each example has less than 40 lines."""
    path = PATHS[name]
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
