"""Plugins as a module of LMCache's multiprocess server, whose objects are mocked."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from typing import TYPE_CHECKING, Any

import pytest
from harness import alive, marked, wait_until
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lmcache_plugin_adapter.contract.identity import Role
from lmcache_plugin_adapter.engine.launcher import LaunchError
from lmcache_plugin_adapter.hosts.lmcache_server import module as server_module
from lmcache_plugin_adapter.hosts.lmcache_server.config import plain, read_server_config
from lmcache_plugin_adapter.hosts.lmcache_server.module import build_server_modules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness import Engine

# What LMCache's server is for a module: its objects as in LMCache 0.5.6.
SERVER = """
import dataclasses, sys, types

@dataclasses.dataclass
class RuntimePluginConfig:
    locations: list = dataclasses.field(default_factory=list)
    extra_config: dict = dataclasses.field(default_factory=dict)

@dataclasses.dataclass
class MPServerConfig:
    host: str = "localhost"
    port: int = 5555
    runtime_plugin_config: RuntimePluginConfig = dataclasses.field(
        default_factory=RuntimePluginConfig
    )

@dataclasses.dataclass
class HTTPFrontendConfig:
    http_port: int = 8080

def make(given, locations=(), parameters=None, modules=(), http=True):
    mp_config = MPServerConfig(
        runtime_plugin_config=RuntimePluginConfig(list(locations), parameters or {})
    )
    if http:
        module = types.ModuleType("lmcache.v1.multiprocess.http_server")
        module._configs = {
            "mp": mp_config, "storage_manager": {"a": 1}, "observability": {"b": 2},
            "http": HTTPFrontendConfig(), "coordinator": None,
        }
        sys.modules[module.__name__] = module
    return types.SimpleNamespace(
        server_context="the context", mp_config=mp_config, coordinator_config=None,
        modules=tuple(modules), config=given,
    )

def build(given, **options):
    from lmcache_plugin_adapter.server_module import build_server_modules
    return build_server_modules(make(given, **options))
"""
SHOW = 'echo "$LMCACHE_RUNTIME_PLUGIN_ROLE|$LMCACHE_RUNTIME_PLUGIN_WORKER_ID"\n'
WAIT = SHOW + "trap 'echo goodbye; exit 0' TERM\nwhile :; do sleep 1 & wait $!; done\n"


@pytest.fixture
def server(engine: Callable[..., Engine]) -> Engine:
    """A process that is to LMCache's server what the other tests' engine is to vLLM."""
    return engine(launch=False, prelude=SERVER)


def build(server: Engine, given: object, options: str = "") -> None:
    """Have the server make our module."""
    # Through a file, as its stdin is read line by line.
    server.do(f"module = build({given!r}{', ' + options if options else ''})")


def asked(server: Engine) -> dict[str, Any]:
    """Return what our module adds to ``/status``."""
    answer: dict[str, Any] = server.do("module.report_status()")
    assert list(answer) == ["runtime_plugins"]
    return answer["runtime_plugins"]  # type: ignore[no-any-return]


def status(server: Engine) -> dict[str, Any]:
    """Return what it adds once the supervisor answers in time, or there is none."""
    found: list[dict[str, Any]] = []

    def known() -> bool:
        found.append(asked(server))
        return found[-1]["state"] != "unknown"

    server.wait_for(known, what="a supervisor that answers")
    return found[-1]


def states(server: Engine) -> dict[str, str]:
    """Return each plugin's state as ``/status`` has it."""
    return {one["name"]: one["state"] for one in status(server)["plugins"]}


def settled(server: Engine, number: int) -> dict[str, str]:
    """Wait until so many plugins are known, and return their states."""
    server.wait_for(lambda: len(states(server)) == number)
    return states(server)


def all_roles(plugin: Callable[..., Path], text: str = WAIT) -> None:
    """Put a plugin of every kind of name there."""
    for name in ("server_a", "server_0_b", "server", "all_a", "worker_a", "worker_0_a"):
        plugin(f"{name}.sh", text)
    for name in ("server_1_a", "all_0_a", "scheduler_a", "helper_file"):
        plugin(f"{name}.sh", text)


OURS = {"server_a", "server_0_b", "server", "all_a"}


def test_only_plugins_for_a_server_run_and_status_has_them(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """Role SERVER, id 0 of 1; and ``close`` stops them with a goodbye."""
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
    """That is what LMCache's launcher does in this mode."""
    all_roles(plugin)
    settings = {"filter_by_role": False}
    build(server, {"runtime_plugin_locations": [str(plugins)], "runtime_plugins": settings})
    assert set(settled(server, 10).values()) == {"running"}
    for name in ("worker_0_a", "scheduler_a", "helper_file", "server_1_a"):
        server.wait_log(rf"\[{name}\] \|0 ")


def test_plugins_find_lmcaches_objects_and_their_own_parameters(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """One key for each object, and ``runtime_plugin_extra_config``."""
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
    """What ``--runtime-plugin-locations`` names is taken over, and said."""
    plugin("server_x.sh", WAIT)
    server.do(f"context = make({{}}, locations=[{str(plugins)!r}])")
    server.do("from lmcache_plugin_adapter.server_module import build_server_modules")
    server.do("module = build_server_modules(context)")
    assert server.do("context.mp_config.runtime_plugin_config.locations") == []
    assert settled(server, 1) == {"server_x": "running"}


def test_disabled_leaves_everything_to_lmcache(server: Engine, plugins: Path) -> None:
    """Its own locations stay where they are."""
    server.do("from lmcache_plugin_adapter.server_module import build_server_modules")
    server.do(
        f"context = make({{'runtime_plugins': {{'enabled': False}}}}, locations=['{plugins}'])"
    )
    server.do("module = build_server_modules(context)")
    assert server.do("context.mp_config.runtime_plugin_config.locations") == [str(plugins)]
    assert status(server)["state"] == "off"
    assert "enabled' is false" in status(server)["reason"]
    assert "enabled' is false" in server.log()


def test_where_ours_cannot_start_lmcaches_launcher_does(server: Engine, plugins: Path) -> None:
    """One clear line; the server goes on."""
    server.do("from lmcache_plugin_adapter.server_module import build_server_modules")
    server.do("sys.executable = '/nowhere/python'")
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
    """Also where nobody calls ``close``."""
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
    """2 s at most; the plugin has the rest of its time all the same."""
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
    """The server's event loop waits with it."""
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
        # Somebody asks for days: what is not answered must not block the asker.
        server.do("[module._launcher.status(0.0001) for _ in range(1000)] and None")
    finally:
        os.kill(supervisor, signal.SIGCONT)
    server.wait_for(lambda: status(server)["state"] == "running")


def test_names_of_any_bytes_are_in_status_as_text(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """The server encodes its answer strictly, and would fail as a whole."""
    (plugins / os.fsdecode(b"server_\xff.sh")).write_text(WAIT)
    build(server, {"runtime_plugin_locations": [str(plugins)]})
    settled(server, 1)
    server.do("import json")
    encoded = "json.dumps(module.report_status(), ensure_ascii=False).encode().decode()"
    server.wait_for(lambda: r"server_\\xff" in server.do(encoded))


def test_named_twice_runs_once(server: Engine, plugins: Path, plugin: Callable[..., Path]) -> None:
    """The second one says so and keeps out of ``/status``."""
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
    """And ``/status`` tells of the new one."""
    plugin("server_x.sh", WAIT)
    build(server, {"runtime_plugin_locations": [str(plugins)]})
    settled(server, 1)
    first = status(server)["supervisor_pid"]
    os.kill(first, signal.SIGKILL)
    server.wait_for(lambda: status(server).get("supervisor_pid") not in (None, first))
    settled(server, 1)


# --- without processes ------------------------------------------------------


class Stub:
    """A launcher that starts nothing."""

    made: list[Stub] = []  # noqa: RUF012
    fails: Exception | None = None

    def __init__(self, config: Any, role: object, worker_count: int, worker_id: int) -> None:
        self.config = config
        self.who = (role, worker_count, worker_id)
        Stub.made.append(self)

    @classmethod
    def for_identity(cls, config: Any, identity: Any) -> Stub:
        """Take an identity, as hosts of today do."""
        return cls(config, identity.role, identity.worker_count, identity.worker_id)

    def launch_or_raise(self) -> None:
        """Do what the test wants of it."""
        json.loads(self.config.to_json())
        if Stub.fails is not None:
            raise Stub.fails

    def status(self, timeout: float) -> None:
        """Fail, as nothing should."""
        raise RuntimeError("broken")

    def stop_plugins(self, **_: object) -> None:
        """Fail, as nothing should."""
        raise RuntimeError("broken")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[Stub]:
    """Our launcher, replaced."""
    monkeypatch.setattr(Stub, "made", [])
    monkeypatch.setattr(Stub, "fails", None)
    monkeypatch.setattr("lmcache_plugin_adapter.engine.launcher.RuntimePluginLauncher", Stub)
    return Stub


def context(given: object, **more: Any) -> Any:
    """Return a factory's context."""
    scope: dict[str, Any] = {}
    exec(SERVER.replace("if http:", "if False:"), scope)
    return scope["make"](given, **more)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["runtime_plugin_locations", "runtime_plugins", "extra_config", "foo", "runtime_plugin"]
)


@given(JSON | st.dictionaries(KEYS, JSON), JSON, st.lists(JSON, max_size=2))
@hypothesis_settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_is_given_the_server_serves_on(
    stub: type[Stub], config: Any, parameters: Any, locations: list[Any]
) -> None:
    """No exception, whatever the command line holds."""
    module = build_server_modules(context(config, locations=locations, parameters=parameters))
    assert "runtime_plugins" in module.report_status()
    module.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["/a"], "Cannot use 'config' of --server-module: found a list, accepted is an object"),
        ("/a", "found text"),
        ({}, "no 'runtime_plugin_locations' is given"),
        ({"runtime_plugin_locations": []}, "no 'runtime_plugin_locations' is given"),
        ({"runtime_plugin_location": ["/a"]}, "did you mean 'runtime_plugin_locations'?"),
        ({"runtime_plugin": {}}, "did you mean 'runtime_plugins'?"),
        ({"extra_config": 7}, "Cannot use 'extra_config' of 'config' of --server-module"),
        ({"extra_config": {"runtime_plugins": {}}, "runtime_plugins": {}}, "settings twice"),
    ],
)
def test_a_mistake_is_one_clear_line(
    stub: type[Stub], caplog: pytest.LogCaptureFixture, given: object, said: str
) -> None:
    """In the server's log; what is wrong in the settings, the supervisor says."""
    build_server_modules(context(given))
    (line,) = [one.getMessage() for one in caplog.records if said in one.getMessage()]
    assert "\n" not in line


def test_a_server_of_another_shape_serves_on(caplog: pytest.LogCaptureFixture) -> None:
    """A later LMCache may hand over something else."""
    module = build_server_modules(types.SimpleNamespace(config={}))
    assert module.context is None
    assert module.report_status()["runtime_plugins"]["state"] == "off"
    assert "the server serves on" in caplog.text
    module.close()


def test_what_fails_in_our_launcher_reaches_nobody(
    stub: type[Stub], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither at the start, nor in ``/status``, nor at the end."""
    module = build_server_modules(context({"runtime_plugin_locations": ["/a"]}))
    assert module.report_status()["runtime_plugins"]["reason"] == "RuntimeError('broken')"
    module.close()
    assert "they end with the server" in caplog.text
    stub.fails = LaunchError("no\nluck")
    module = build_server_modules(context({"runtime_plugin_locations": ["/a"]}))
    assert module.report_status()["runtime_plugins"]["reason"] == "no luck"


def test_the_role_goes_with_the_filter(stub: type[Stub]) -> None:
    """Id 0 of 1 in any case."""
    for settings, role in (({}, Role.SERVER), ({"filter_by_role": False}, None)):
        given = {"runtime_plugin_locations": ["/a"], "runtime_plugins": settings}
        build_server_modules(context(given))
        assert stub.made[-1].who == (role, 1, 0)


def test_a_block_of_lmcache_yaml_may_be_copied() -> None:
    """``extra_config`` counts as if its content stood beside it; LMCache's option comes below."""
    config = read_server_config(
        {"extra_config": {"foo": 1, "runtime_plugins": {"restart": "never"}}, "foo": 2},
        {},
        source="x",
        lmcache_locations=["/a"],
        lmcache_parameters={"foo": 3, "bar": 4, "runtime_plugin_locations": "/b"},
    )
    assert config.runtime_plugin_locations == ["/a", "/b"]
    assert config.extra_config == {"foo": 2, "bar": 4, "runtime_plugins": {"restart": "never"}}
    assert json.loads(config.to_json())["runtime_plugin_extra_config"] == {"foo": 2, "bar": 4}
    assert config.problems == ()


def test_no_parameters_no_key() -> None:
    """As LMCache has it."""
    config = read_server_config({"runtime_plugins": {}}, {}, source="x")
    assert "runtime_plugin_extra_config" not in json.loads(config.to_json())


def test_values_as_lmcache_turns_them_into_json() -> None:
    """Dataclasses, tuples, and the text of everything else."""

    class Mode(enum.Enum):
        FAST = 1

    @dataclasses.dataclass
    class Inner:
        items: tuple[int, ...] = (1, 2)

    @dataclasses.dataclass
    class Outer:
        inner: Inner = dataclasses.field(default_factory=Inner)
        mode: Mode = Mode.FAST
        lock: object = dataclasses.field(default_factory=lambda: {3})

    assert plain(Outer()) == {"inner": {"items": [1, 2]}, "mode": str(Mode.FAST), "lock": "{3}"}


def test_importing_the_module_costs_the_server_nothing() -> None:
    """It must not fail there, so it does nothing there."""
    code = (
        "import sys, logging; had = set(sys.modules); import {}; print(*(set(sys.modules) - had))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code.format(server_module.__name__)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    others = {name for name in loaded if not re.match("typing|_", name)}
    assert {name for name in others if not server_module.__name__.startswith(name)} <= {
        "lmcache_plugin_adapter.contract",
        "lmcache_plugin_adapter.contract.version",
    }


def test_nothing_is_left(server: Engine, plugins: Path, plugin: Callable[..., Path]) -> None:
    """After ``close`` the server is alone."""
    plugin("server_x.sh", "setsid sleep 1000 &\nexec sleep 1000\n")
    build(server, {"runtime_plugin_locations": [str(plugins)]})
    settled(server, 1)
    server.do("module.close()")
    wait_until(lambda: list(marked(str(plugins.parent))) == [server.pid])
