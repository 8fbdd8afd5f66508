# SPDX-License-Identifier: Apache-2.0
"""The factory of the server module, with a launcher that starts nothing."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import subprocess
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from lmcache_server_shapes import make

from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.engine.launcher import LaunchError
from lmcache_plugin_adapter.hosts.lmcache_server.config import plain, read_server_config
from lmcache_plugin_adapter.hosts.lmcache_server.module import build_server_modules

if TYPE_CHECKING:
    from mocked_launcher import MockedLaunchers


def context(given: object, **more: Any) -> Any:
    """Return a factory's argument in a process without LMCache's HTTP front end."""
    return make(given, http=False, **more)


BROKEN: dict[str, BaseException] = {
    name: RuntimeError("broken") for name in ("status", "stop_plugins")
}
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
    launchers: MockedLaunchers, config: Any, parameters: Any, locations: list[Any]
) -> None:
    """Any command line gives a module, a status and a configuration in JSON, and no exception."""
    launchers.made.clear()
    launchers.errors = BROKEN
    module = build_server_modules(context(config, locations=locations, parameters=parameters))
    assert "runtime_plugins" in module.report_status()
    module.close()
    for launcher in launchers.made:
        json.loads(launcher.config.to_json())


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
    launchers: MockedLaunchers, caplog: pytest.LogCaptureFixture, given: object, said: str
) -> None:
    """The server logs it; the supervisor reports what is wrong in the settings."""
    build_server_modules(context(given))
    (line,) = [one.getMessage() for one in caplog.records if said in one.getMessage()]
    assert "\n" not in line


def test_a_server_of_another_shape_serves_on(caplog: pytest.LogCaptureFixture) -> None:
    """A later LMCache may pass another argument."""
    module = build_server_modules(types.SimpleNamespace(config={}))
    assert module.context is None
    assert module.report_status()["runtime_plugins"]["state"] == "off"
    assert "the server serves on" in caplog.text
    module.close()


def test_what_fails_in_our_launcher_reaches_nobody(
    launchers: MockedLaunchers, caplog: pytest.LogCaptureFixture
) -> None:
    """The server sees no error at the start, in ``/status`` or at the end."""
    launchers.errors = BROKEN
    module = build_server_modules(context({"runtime_plugin_locations": ["/a"]}))
    assert module.report_status()["runtime_plugins"]["reason"] == "RuntimeError('broken')"
    module.close()
    assert "they end with the server" in caplog.text
    launchers.errors = {"launch_or_raise": LaunchError("no\nluck")}
    module = build_server_modules(context({"runtime_plugin_locations": ["/a"]}))
    assert module.report_status()["runtime_plugins"]["reason"] == "no luck"


def test_the_role_goes_with_the_filter(launchers: MockedLaunchers) -> None:
    """Without the filter, the role is None; the id is 0 of 1 in both cases."""
    for settings, role in (({}, Role.SERVER), ({"filter_by_role": False}, None)):
        given = {"runtime_plugin_locations": ["/a"], "runtime_plugins": settings}
        build_server_modules(context(given))
        assert launchers.made[-1].identity == ProcessIdentity(role, 0, 1)


def test_a_block_of_lmcache_yaml_may_be_copied() -> None:
    """The keys of ``extra_config`` may stand beside it; both come before LMCache's option."""
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
    """LMCache's launcher adds no key without parameters, either."""
    config = read_server_config({"runtime_plugins": {}}, {}, source="x")
    assert "runtime_plugin_extra_config" not in json.loads(config.to_json())


def test_values_as_lmcache_turns_them_into_json() -> None:
    """Dataclasses and tuples keep their content; any other value becomes its text."""

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
    """The import loads nothing that could fail."""
    imported = build_server_modules.__module__
    code = (
        "import sys, logging; had = set(sys.modules); import {}; print(*(set(sys.modules) - had))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code.format(imported)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    others = {name for name in loaded if not re.match("typing|_", name)}
    assert {name for name in others if not imported.startswith(name)} <= {
        "lmcache_plugin_adapter.contract",
        "lmcache_plugin_adapter.contract.version",
    }
