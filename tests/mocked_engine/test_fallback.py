# SPDX-License-Identifier: Apache-2.0
"""Where the adapter starts no plugins, LMCache's own launcher does, and the log says why."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from engine_shapes import Engine, lmcache_settings
from vllm_config_shapes import parallel_config

if TYPE_CHECKING:
    from mocked_launcher import MockedLaunchers

MakeEngine = Callable[..., Engine]


def test_lmcaches_starts_when_ours_cannot(
    make_engine: MakeEngine,
    launchers: MockedLaunchers,
    factory: str,
    lmcache: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The engine gets its connector, and one line gives the reason."""
    engine = make_engine(factory, lmcache)
    launchers.errors["launch_or_raise"] = OSError("no processes left")
    connector = engine.create()
    assert connector is not None
    assert len(engine.started_by_lmcache) == 1
    (line,) = caplog.messages
    assert "no processes left" in line
    assert "LMCache's own launcher starts them" in line


@pytest.mark.usefixtures("failing_lmcache")
def test_no_launcher_to_fall_back_on_is_logged(
    make_engine: MakeEngine, launchers: MockedLaunchers, caplog: pytest.LogCaptureFixture
) -> None:
    """LMCache makes no launcher where its engine failed, so no plugins run."""
    engine = make_engine()
    launchers.errors["launch_or_raise"] = OSError("no processes left")
    engine.create()
    assert "none run in this process" in caplog.text


def test_a_builtin_launcher_that_fails_too_is_logged(
    make_engine: MakeEngine,
    launchers: MockedLaunchers,
    mocker: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The engine gets its connector all the same."""
    engine = make_engine()
    launchers.errors["launch_or_raise"] = OSError("no processes left")
    mocker.patch(
        "lmcache_plugin_adapter.hosts.vllm.lmcache_launcher.start_builtin",
        autospec=True,
        side_effect=OSError("none left for LMCache either"),
    )
    assert engine.create() is not None
    assert engine.started_by_lmcache == []
    assert "none left for LMCache either" in caplog.messages[-1]


def test_disabled_leaves_everything_to_lmcache(
    make_engine: MakeEngine, launchers: MockedLaunchers, factory: str, lmcache: str
) -> None:
    """With ``enabled: false``, LMCache starts them inside the constructor, as it does alone."""
    engine = make_engine(factory, lmcache, lmcache_settings(["/plugins"], enabled=False))
    connector = engine.create()
    assert launchers.made == []
    assert len(engine.started_by_lmcache) == 1
    assert "shutdown" not in vars(connector)


def test_an_unknown_launcher_of_lmcache_keeps_ours_from_starting(
    make_engine: MakeEngine, launchers: MockedLaunchers, caplog: pytest.LogCaptureFixture
) -> None:
    """LMCache's launcher is not held and starts the plugins; ours would start them again."""
    engine = make_engine(lmcache="none")
    engine.create()
    assert launchers.made == []
    assert len(engine.started_by_lmcache) == 1
    (line,) = caplog.messages
    assert "left to LMCache" in line


def test_settings_that_cannot_be_read_are_left_to_lmcache(
    make_engine: MakeEngine,
    launchers: MockedLaunchers,
    mocker: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An unexpected error of LMCache's configuration is logged once."""

    def fail(config: object) -> object:
        raise OSError("no extra_config today")

    engine = make_engine()
    utils = importlib.import_module("lmcache.integration.vllm.utils")
    unreadable = property(fail, lambda config, value: None)
    mocker.patch.object(utils.LMCacheEngineConfig, "extra_config", unreadable, create=True)
    engine.create()
    assert launchers.made == []
    assert len(engine.started_by_lmcache) == 1
    (line,) = caplog.messages
    assert "no extra_config today" in line


@pytest.mark.parametrize("field", ["rank", "tensor_parallel_size", "pipeline_parallel_size"])
def test_a_parallel_config_without_a_field_is_left_to_lmcache(
    make_engine: MakeEngine,
    launchers: MockedLaunchers,
    caplog: pytest.LogCaptureFixture,
    field: str,
) -> None:
    """The line names the field."""
    engine = make_engine()
    engine.parallel = parallel_config(**{field: None})
    engine.create()
    assert launchers.made == []
    assert len(engine.started_by_lmcache) == 1
    (line,) = caplog.messages
    assert field in line


def test_a_failing_constructor_raises_as_before(
    make_engine: MakeEngine, launchers: MockedLaunchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to LMCache 0.3.13, a failing engine ends vLLM; the next creation is not affected."""
    monkeypatch.setenv("FAKE_LMCACHE_FAILS", "1")
    engine = make_engine(lmcache="0.3.11")
    with pytest.raises(OSError, match="engine"):
        engine.create()
    assert launchers.made == []
    monkeypatch.delenv("FAKE_LMCACHE_FAILS")
    engine.create()
    assert len(launchers.made) == 1
