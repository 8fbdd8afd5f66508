# SPDX-License-Identifier: Apache-2.0
"""The server module in a process that stands for LMCache's multiprocess server."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from harness import alive, marked, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness import Engine

SHOW = 'echo "$LMCACHE_RUNTIME_PLUGIN_ROLE|$LMCACHE_RUNTIME_PLUGIN_WORKER_ID"\n'
WAIT = f"trap 'echo goodbye; exit 0' TERM\n{SHOW}while :; do sleep 1 & wait $!; done\n"


@pytest.fixture
def server(engine: Callable[..., Engine]) -> Engine:
    """A process in the place of LMCache's server."""
    return engine(launch=False, prelude="from lmcache_server_shapes import *")


def build(server: Engine, given: object, options: str = "") -> None:
    """Build the adapter's module in the server."""
    server.do(f"module = build({given!r}{', ' + options if options else ''})")


def asked(server: Engine) -> dict[str, Any]:
    """Return the part of ``/status`` that the module reports."""
    answer: dict[str, Any] = server.do("module.report_status()")
    assert list(answer) == ["runtime_plugins"]
    return answer["runtime_plugins"]  # type: ignore[no-any-return]


def status(server: Engine) -> dict[str, Any]:
    """Return that part once the supervisor answers in time, or if there is none."""
    found: list[dict[str, Any]] = []

    def known() -> bool:
        found.append(asked(server))
        return found[-1]["state"] != "unknown"

    server.wait_for(known, what="a supervisor that answers")
    return found[-1]


def states(server: Engine) -> dict[str, str]:
    """Return the state of each plugin in ``/status``."""
    return {one["name"]: one["state"] for one in status(server)["plugins"]}


def settled(server: Engine, number: int) -> dict[str, str]:
    """Wait until ``/status`` has ``number`` plugins, and return their states."""
    server.wait_for(lambda: len(states(server)) == number)
    return states(server)


def all_roles(plugin: Callable[..., Path], text: str = WAIT) -> None:
    """Write a plugin of each kind of name."""
    for name in ("server_a", "server_0_b", "server", "all_a", "worker_a", "worker_0_a"):
        plugin(f"{name}.sh", text)
    for name in ("server_1_a", "all_0_a", "scheduler_a", "helper_file"):
        plugin(f"{name}.sh", text)


OURS = {"server_a", "server_0_b", "server", "all_a"}


def test_only_plugins_for_a_server_run_and_status_has_them(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """They get role SERVER and id 0; ``close`` gives them time to end."""
    all_roles(plugin)
    build(server, {"runtime_plugin_locations": [str(plugins)]})
    assert server.do("module.context") == "the context"
    assert set(settled(server, len(OURS)).values()) == {"running"}
    assert set(states(server)) == OURS
    for name in OURS:
        server.wait_log(rf"\[{name}\] SERVER\|0 ")
    answer = status(server)
    assert (answer["state"], answer["reason"]) == ("running", None)
    assert answer["identity"] == "server"
    assert "run_id" not in answer
    server.do("module.close()")
    assert server.log().count("] goodbye (") == len(OURS)  # they are waited for
    answer = status(server)
    assert (answer["state"], answer["plugins"]) == ("off", [])
    server.do("module.close()")


def test_without_the_filter_every_file_runs_with_an_empty_role(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """LMCache's launcher does the same in this mode."""
    all_roles(plugin)
    settings = {"filter_by_role": False}
    build(server, {"runtime_plugin_locations": [str(plugins)], "runtime_plugins": settings})
    assert set(settled(server, 10).values()) == {"running"}
    for name in ("worker_0_a", "scheduler_a", "helper_file", "server_1_a"):
        server.wait_log(rf"\[{name}\] \|0 ")


def test_plugins_find_lmcaches_objects_and_their_own_parameters(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """The JSON has one key for each object, and ``runtime_plugin_extra_config``."""
    plugin("server_x.sh", 'cat "$LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE" > config; echo done\n')
    given = {"runtime_plugin_locations": str(plugins), "foo": {"x": 1}, "runtime_plugins": {}}
    build(server, given, "parameters={'bar': 2, 'foo': 3}")
    server.wait_log(r"\[server_x\] done")
    config = json.loads((plugins.parent / "config").read_text())
    assert config.pop("mp_config")["runtime_plugin_config"] == {
        "locations": [],
        "extra_config": {"bar": 2, "foo": 3},
    }
    assert config == {
        "storage_manager_config": {"a": 1},
        "obs_config": {"b": 2},
        "http_config": {"http_port": 8080},
        "runtime_plugin_extra_config": {"bar": 2, "foo": {"x": 1}},
        "runtime_plugin_locations": str(plugins),
        "extra_config": {"bar": 2, "foo": {"x": 1}, "runtime_plugins": {}},
    }


def test_lmcaches_launcher_starts_no_second_copy(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """The module takes the locations of ``--runtime-plugin-locations`` over."""
    plugin("server_x.sh", WAIT)
    server.do(f"context = make({{}}, locations=[{str(plugins)!r}])")
    server.do("module = build_server_modules(context)")
    assert server.do("context.mp_config.runtime_plugin_config.locations") == []
    assert settled(server, 1) == {"server_x": "running"}


def test_disabled_leaves_everything_to_lmcache(server: Engine, plugins: Path) -> None:
    """LMCache keeps its own locations."""
    server.do(
        f"context = make({{'runtime_plugins': {{'enabled': False}}}}, locations=['{plugins}'])"
    )
    server.do("module = build_server_modules(context)")
    assert server.do("context.mp_config.runtime_plugin_config.locations") == [str(plugins)]
    assert status(server)["state"] == "off"
    assert "enabled' is false" in status(server)["reason"]
    assert "enabled' is false" in server.log()


def test_where_ours_cannot_start_lmcaches_launcher_does(server: Engine, plugins: Path) -> None:
    """One line gives the reason, and the server goes on."""
    server.do("__import__('sys').executable = '/nowhere/python'")
    server.do(f"context = make({{}}, locations=[{str(plugins)!r}])")
    server.do("module = build_server_modules(context)")
    assert server.do("context.mp_config.runtime_plugin_config.locations") == [str(plugins)]
    (line,) = [line for line in server.log().splitlines() if "do not run" in line]
    assert "/nowhere/python" in line
    assert line.endswith("the server serves on")
    assert status(server)["state"] == "off"
    server.do("module.close()")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_plugins_end_with_their_server(
    server: Engine, plugins: Path, plugin: Callable[..., Path], number: int
) -> None:
    """They end also where nothing calls ``close``."""
    plugin("server_x.sh", WAIT)
    build(server, {"runtime_plugin_locations": [str(plugins)]})
    pid = server.plugin_pid("server_x")
    server.wait_log(r"\[server_x\] SERVER")
    server.kill(number)
    server.wait_log(r"\[server_x\] goodbye")
    wait_until(lambda: not alive(pid))


def test_close_does_not_wait_for_a_long_grace_period(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """It waits 2 s at most; the plugin keeps the rest of its grace period."""
    plugin("server_x.sh", "trap '' TERM\necho ready\nwhile :; do sleep 1; done\n")
    settings = {"stop_grace": 60}
    build(server, {"runtime_plugin_locations": [str(plugins)], "runtime_plugins": settings})
    server.wait_log(r"\[server_x\] ready")
    pid = server.plugin_pid("server_x")
    began = time.monotonic()
    server.do("module.close()")
    assert 1.9 < time.monotonic() - began < 15
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


def test_a_supervisor_that_does_not_answer_costs_status_a_quarter_of_a_second(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """The server's event loop waits during that time."""
    plugin("server_x.sh", WAIT)
    build(server, {"runtime_plugin_locations": [str(plugins)]})
    settled(server, 1)
    supervisor = status(server)["supervisor_pid"]
    os.kill(supervisor, signal.SIGSTOP)
    try:
        taken = []
        for _ in range(3):
            began = time.monotonic()
            answer = asked(server)
            taken.append(time.monotonic() - began)
            assert (answer["state"], answer["plugins"]) == ("unknown", [])
        assert min(taken) < 1
        # Requests without an answer must not pile up until they block their sender.
        server.do("[module._launchers[0].status(0.0001) for _ in range(1000)] and None")
    finally:
        os.kill(supervisor, signal.SIGCONT)
    server.wait_for(lambda: status(server)["state"] == "running")


def test_names_of_any_bytes_are_in_status_as_text(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """The server encodes its answer strictly; one such name would make all of it fail."""
    (plugins / os.fsdecode(b"server_\xff.sh")).write_text(WAIT)
    build(server, {"runtime_plugin_locations": [str(plugins)]})
    settled(server, 1)
    server.do("import json")
    encoded = "json.dumps(module.report_status(), ensure_ascii=False).encode().decode()"
    server.wait_for(lambda: r"server_\\xff" in server.do(encoded))


def test_named_twice_runs_once(server: Engine, plugins: Path, plugin: Callable[..., Path]) -> None:
    """The second module logs a warning and adds nothing to ``/status``."""
    plugin("server_x.sh", WAIT)
    build(server, {"runtime_plugin_locations": [str(plugins)]})
    given = {"runtime_plugin_locations": [str(plugins)]}
    server.do(f"second = build({given!r}, modules=[module])")
    assert server.do("second.report_status()") == {}
    settled(server, 1)
    server.do("second.close()")
    assert states(server) == {"server_x": "running"}
    server.wait_log("Started, pid")  # the log may lag behind the status
    assert server.log().count("Started, pid") == 1
    assert "Second --server-module" in server.log()


def test_the_supervisor_is_replaced_when_it_is_killed(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """``/status`` then has the new one."""
    plugin("server_x.sh", WAIT)
    build(server, {"runtime_plugin_locations": [str(plugins)]})
    settled(server, 1)
    first = status(server)["supervisor_pid"]
    os.kill(first, signal.SIGKILL)
    server.wait_for(lambda: status(server).get("supervisor_pid") not in (None, first))
    settled(server, 1)


def test_nothing_is_left(server: Engine, plugins: Path, plugin: Callable[..., Path]) -> None:
    """After ``close``, only the server is left."""
    plugin("server_x.sh", "setsid sleep 1000 &\nexec sleep 1000\n")
    build(server, {"runtime_plugin_locations": [str(plugins)]})
    settled(server, 1)
    server.do("module.close()")
    wait_until(lambda: list(marked(str(plugins.parent))) == [server.pid])
