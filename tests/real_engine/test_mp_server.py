# SPDX-License-Identifier: Apache-2.0
"""Plugins beside a real ``lmcache server``: roles, ``/status``, and their end with the server.

Each test starts one server, which takes many seconds. Plugins write their
variables to files.
"""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import json
import os
import re
import signal
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import yaml
from site_under_test import (
    DAEMONISES,
    FLOODS,
    WITNESS,
    ServerProcess,
    Site,
    free_port,
    killed_at_the_end,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        importlib.util.find_spec("lmcache.v1.multiprocess.mp_runtime_plugin_launcher") is None,
        reason="this LMCache's server runs no plugins",
    ),
]
takes_modules = pytest.mark.skipif(
    importlib.util.find_spec("lmcache.v1.multiprocess.ext_server_module") is None,
    reason="this LMCache's server takes no modules",
)

ROOT = Path(__file__).parents[2]
EXAMPLES = Path(os.environ.get("RING_HOME", "/nowhere")) / "lmcache-examples-0.5.6"
"""LMCache's example plugins for its server, from its source package."""
START_SECONDS = 180
END_SECONDS = 30
STOP_GRACE = 2


class LMCacheServer(ServerProcess):
    """A real ``lmcache server``; see :func:`lmcache_server`."""

    def __init__(self, site: Site, *arguments: str) -> None:
        self.http = free_port()
        command = [sys.executable, "-c", "from lmcache.cli.main import main; main()", "server"]
        command += ["--host", "127.0.0.1", "--port", str(free_port())]
        command += ["--http-host", "127.0.0.1", "--http-port", str(self.http)]
        command += ["--l1-size-gb", "0.1", "--eviction-policy", "LRU", *arguments]
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
        environ = {"LMCACHE_TRACK_USAGE": "false", "PYTHONPATH": path}
        super().__init__(site, self.http, command, environ, START_SECONDS)

    def is_healthy(self) -> bool:
        """Return whether the server calls itself healthy."""
        return bool(self.get("/healthcheck")["status"] == "healthy")

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON of the server's answer."""
        url = f"http://127.0.0.1:{self.http}{path}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            answer: dict[str, Any] = json.loads(reply.read())
        return answer

    @property
    def plugins(self) -> dict[str, Any]:
        """The plugins' part of ``/status``."""
        status = self.get("/status")
        assert status["is_healthy"] is True
        found: dict[str, Any] = status["runtime_plugins"]
        return found

    def states(self) -> dict[str, str]:
        """Return the state of each plugin in ``/status``."""
        return {one["name"]: one["state"] for one in self.plugins["plugins"]}

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Signal the server, wait for its exit, and return the seconds."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.wait(END_SECONDS)
        return time.monotonic() - began


@contextlib.contextmanager
def lmcache_server(site: Site, *arguments: str) -> Iterator[LMCacheServer]:
    """Serve; no process is left afterwards, in any case."""
    with killed_at_the_end(site):
        yield LMCacheServer(site, *arguments)


def module(site: Site, given: object = None, **settings: Any) -> tuple[str, str]:
    """Return the option that loads the adapter's server module."""
    if given is None:
        settings = {"stop_grace": STOP_GRACE, **settings}
        given = {"runtime_plugin_locations": [str(site.plugins)], "runtime_plugins": settings}
    spec = {"module_path": "lmcache_plugin_adapter.server_module", "config": given}
    return "--server-module", json.dumps(spec)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Plugins of each role, which note their variables and their end."""
    site = Site(tmp_path / "site")
    # The server waits for its plugins, so they must not wait for it.
    witness, removed = re.subn(r"    while state\(engine\).*\n.*\n", "", WITNESS)
    assert removed == 1
    for role in ("all", "server", "worker", "scheduler"):
        site.add(f"{role}_witness.py", witness)
    return site


def told(site: Site, number: int) -> dict[str, Mapping[str, str]]:
    """Return the variables of each plugin, by its name, once ``number`` have started."""
    wait_for(lambda: len(site.seen()) >= number, 30, site.seen)
    time.sleep(0.3)  # one too many would start right behind the others
    return {
        one.start["env"].get("LMCACHE_RUNTIME_PLUGIN_NAME", str(at)): one.start["env"]
        for at, one in enumerate(site.seen())
    }


def assert_all_said_goodbye(site: Site, number: int) -> None:
    """Check that each plugin got SIGTERM and the time to note its end."""
    events = [[event["event"] for event in one.events] for one in site.seen()]
    assert events == [["start", "sigterm", "goodbye"]] * number


@takes_modules
def test_roles_status_and_an_orderly_end(site: Site) -> None:
    """The server's and everybody's run, with all of the contract; SIGTERM stops them in order."""
    site.add("server_daemon.sh", DAEMONISES)
    site.add("server_fails.sh", "echo broken; exit 3\n")
    with lmcache_server(site, "--instance-id", "me", *module(site, restart="never")) as server:
        told_to = told(site, 2)
        assert set(told_to) == {"all_witness", "server_witness"}
        for variables in told_to.values():
            get = lambda name, of=variables: of[f"LMCACHE_RUNTIME_PLUGIN_{name}"]  # noqa: E731
            assert (get("ROLE"), get("WORKER_ID"), get("WORKER_COUNT")) == ("SERVER", "0", "1")
            assert get("ENGINE_PID") == str(server.process.pid)
            config = json.loads(get("CONFIG"))
            assert config["mp_config"]["instance_id"] == "me"
            assert config["http_config"]["http_port"] == server.http
            assert config["storage_manager_config"]["eviction_config"]["eviction_policy"] == "LRU"
            assert config["obs_config"]["service_instance_id"] == "me"
        assert all(one.start["lmcache"] for one in site.seen())  # it can import what the server can
        running = {"all_witness": "running", "server_witness": "running"}
        running |= {"server_daemon": "running", "server_fails": "exited"}
        wait_for(lambda: server.states() == running, 20, server.states)
        (failed,) = [one for one in server.plugins["plugins"] if one["name"] == "server_fails"]
        assert failed["last_exit"] == 3
        milliseconds = []
        for _ in range(30):
            began = time.perf_counter()
            server.get("/status")
            milliseconds.append((time.perf_counter() - began) * 1000)
        print(f"/status with 4 plugins: {statistics.median(milliseconds):.1f} ms, median of 30")
        seconds = server.stop()
        print(f"start {server.start_seconds:.1f} s, SIGTERM to end {seconds:.1f} s")
        site.wait_until_nothing_is_left(STOP_GRACE + 1)
        assert_all_said_goodbye(site, 2)
        assert "LMCache HTTP server stopped" in server.log
        assert "Traceback" not in server.log


@takes_modules
def test_a_killed_server(site: Site) -> None:
    """SIGKILL: plugins and their daemons end with it, warned first."""
    site.add("server_daemon.sh", DAEMONISES)
    with lmcache_server(site, *module(site)) as server:
        told(site, 2)
        server.stop(signal.SIGKILL)
        seconds = site.wait_until_nothing_is_left(STOP_GRACE + 1)
        print(f"gone {seconds:.1f} s after SIGKILL, grace period {STOP_GRACE} s")
        assert_all_said_goodbye(site, 2)
        assert all(
            one.goodbye["engine_state"] in ("Z", "gone") for one in site.seen() if one.goodbye
        )


@takes_modules
def test_a_flood_while_the_server_answers(site: Site) -> None:
    """The log stays bounded; what the server's answers take is told, and without the flood."""
    with lmcache_server(site, *module(site)) as server:
        told(site, 2)
        quiet = median_milliseconds(server)
        server.stop()
    site.wait_until_nothing_is_left(STOP_GRACE + 1)
    site.forget()
    site.add("server_flood.sh", FLOODS)
    with lmcache_server(site, *module(site)) as server:
        wait_for(lambda: "suppressed" in server.log, 60, lambda: server.log[-500:])
        size, began = len(server.log), time.monotonic()
        flooded = median_milliseconds(server)
        # The default limit is 1,000 lines a second, of some 200 bytes with their prefix.
        assert len(server.log) - size < (time.monotonic() - began + 5) * 1000 * 250
        (flood,) = [one for one in server.plugins["plugins"] if one["name"] == "server_flood"]
        assert flood["lines"] > 10_000
        print(f"/healthcheck: {quiet:.1f} ms, beside a flood {flooded:.1f} ms; medians of 100")
        server.stop()
        site.wait_until_nothing_is_left(STOP_GRACE + 1)


def median_milliseconds(server: LMCacheServer) -> float:
    """Return how long the server takes to answer."""
    times = []
    for _ in range(100):
        began = time.perf_counter()
        server.get("/healthcheck")
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


@takes_modules
def test_malformed_settings(site: Site) -> None:
    """Each mistake is a line; what is right runs; the server serves on."""
    given = {
        "runtime_plugin_locations": [str(site.plugins), "/nowhere", 7],
        "runtime_plugin": {},
        "extra_config": ["x"],
        "runtime_plugins": {
            "stop_grace": "soon",
            "restart": "sometimes",
            "locatons": ["/typo"],
            "enabled": "perhaps",
        },
    }
    with lmcache_server(site, *module(site, given)) as server:
        assert set(told(site, 2)) == {"all_witness", "server_witness"}
        for said in (
            "did you mean 'runtime_plugins'?",
            "Cannot use 'extra_config' of 'config' of --server-module",
            "runtime_plugin_locations[2]",
            "'/nowhere'",
            *(
                f"runtime_plugins.{key}'"
                for key in ("stop_grace", "restart", "locatons", "enabled")
            ),
        ):
            wait_for(lambda said=said: said in server.log, 20, lambda said=said: said)
            assert server.log.count(said) == 1, said
        assert "Traceback" not in server.log
        assert server.plugins["state"] == "running"
        server.stop()
        site.wait_until_nothing_is_left()
        assert_all_said_goodbye(site, 2)


@takes_modules
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no 'runtime_plugin_locations' is given"),
        ({"runtime_plugin_locations": 5}, "a whole number"),
    ],
)
def test_nothing_to_run(site: Site, given: object, said: str) -> None:
    """One line, and the server serves."""
    with lmcache_server(site, *module(site, given)) as server:
        wait_for(lambda: said in server.log, 20, lambda: server.log[-1000:])
        assert server.plugins["plugins"] == []
        assert server.process.poll() is None
        assert site.seen() == []
        server.stop()


@takes_modules
def test_locations_of_the_server_are_taken_over(site: Site) -> None:
    """One option beside those that were there: every file runs, as in LMCache, and once."""
    site.add("mp_heartbeat.sh", "echo heartbeat; exec sleep 86400\n")  # as LMCache's example
    arguments = ("--runtime-plugin-locations", str(site.plugins))
    with lmcache_server(site, *arguments, *module(site, {})) as server:
        told_to = told(site, 4)
        wait_for(lambda: "[mp_heartbeat] heartbeat" in server.log, 30, lambda: server.log[-900:])
        assert len(told_to) == len(site.seen()) == 4
        assert {one["LMCACHE_RUNTIME_PLUGIN_ROLE"] for one in told_to.values()} == {""}
        assert "Launched runtime plugin" not in server.log  # LMCache's launcher
        first = server.plugins["supervisor_pid"]
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: server.plugins.get("supervisor_pid") not in (None, first), 20)
        wait_for(lambda: witnesses(server) == {"running"}, 20, server.states)
        server.stop()
        site.wait_until_nothing_is_left()


def witnesses(server: LMCacheServer) -> set[str]:
    """Return the states of all plugins but the helper module, which always fails here."""
    return {state for name, state in server.states().items() if name != "utils"}


class Heartbeats(http.server.BaseHTTPRequestHandler):
    """The service that LMCache's frontend plugin reports to."""

    arrived: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Note the request."""
        self.arrived.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@takes_modules
@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="LMCache's source package was not unpacked")
def test_lmcaches_own_plugins(site: Site) -> None:
    """Its two examples and its frontend run unchanged, by default settings, as under LMCache."""
    import lmcache

    frontend = Path(lmcache.__file__).parent / "lmcache_frontend" / "lmcache_mp_plugin"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Heartbeats) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        own = {"plugin.frontend.heartbeat_url": f"http://127.0.0.1:{service.server_port}/beat"}
        arguments = ("--runtime-plugin-locations", str(EXAMPLES), str(frontend))
        arguments += ("--runtime-plugin-config", json.dumps(own))
        with lmcache_server(site, *arguments, *module(site, {})) as server:
            expected = {"mp_plugin", "mp_heartbeat", "lmcache_mp_frontend_plugin"}
            running = dict.fromkeys(expected, "running")
            wait_for(lambda: server.states() == running, 120, server.states)
            for line in (
                '[mp_plugin] [mp_plugin] config: {"mp_config": ',
                "[mp_plugin] [mp_plugin] heartbeat #0",
                "[mp_heartbeat] [mp_heartbeat] heartbeat #0",
                "[lmcache_mp_frontend_plugin] Starting heartbeat service...",
            ):
                wait_for(lambda line=line: line in server.log, 120, lambda: server.log[-3000:])
            wait_for(lambda: Heartbeats.arrived, 120, lambda: server.log[-3000:])
            assert f"%3A{server.http}" in Heartbeats.arrived[0]
            assert "Launched runtime plugin" not in server.log  # LMCache's launcher
            server.stop()
            site.wait_until_nothing_is_left()
            for name in ("mp_plugin", "mp_heartbeat", "mp_frontend"):
                assert f"[{name}] Received termination signal, exiting..." in server.log
            assert "Traceback" not in server.log
        service.shutdown()


@takes_modules
def test_without_the_filter_every_file_runs(site: Site) -> None:
    """With an empty role: LMCache's behaviour, and beyond it only our care for their end."""
    with lmcache_server(site, *module(site, filter_by_role=False)) as server:
        told_to = told(site, 4)
        assert len(told_to) == 4
        assert {one["LMCACHE_RUNTIME_PLUGIN_ROLE"] for one in told_to.values()} == {""}
        server.stop()
        site.wait_until_nothing_is_left(STOP_GRACE + 1)
        assert_all_said_goodbye(site, 4)


@takes_modules
def test_the_plugins_of_the_kubernetes_example(site: Site) -> None:
    """The one that asks the server for its status gets an answer."""
    text = (ROOT / "configs" / "server" / "kubernetes.yaml").read_text()
    config_map = next(iter(yaml.safe_load_all(text)))
    for name, content in config_map["data"].items():
        site.add(name, content)
    given = {"runtime_plugin_locations": [str(site.plugins)], "server_usage": {"interval": 0.5}}
    with lmcache_server(site, *module(site, given)) as server:
        wait_for(
            lambda: "[server_usage] healthy: True" in server.log, 30, lambda: server.log[-900:]
        )
        wait_for(lambda: "[all_alive] SERVER is alive" in server.log, 30)
        server.stop()
        site.wait_until_nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_launcher_of_one_file(site: Site, number: int) -> None:
    """For servers that take no modules: the same roles and ends, whoever ends the server."""
    site.add("server_daemon.sh", DAEMONISES)
    settings = {"stop_grace": STOP_GRACE}
    given = {"runtime_plugin_locations": [str(site.plugins)], "runtime_plugins": settings}
    launch = str(ROOT / "configs" / "server" / "launch.sh")
    arguments = ("--runtime-plugin-locations", launch, "--runtime-plugin-config", json.dumps(given))
    with lmcache_server(site, *arguments) as server:
        told_to = told(site, 2)
        assert set(told_to) == {"all_witness", "server_witness"}
        for variables in told_to.values():
            assert variables["LMCACHE_RUNTIME_PLUGIN_ROLE"] == "SERVER"
            assert variables["LMCACHE_RUNTIME_PLUGIN_ENGINE_PID"] == str(server.process.pid)
            config = json.loads(variables["LMCACHE_RUNTIME_PLUGIN_CONFIG"])
            assert config["http_config"]["http_port"] == server.http
        wait_for(lambda: "[server_witness] watching" in server.log, 20)
        server.stop(number)
        site.wait_until_nothing_is_left(STOP_GRACE + 2)
        assert_all_said_goodbye(site, 2)
