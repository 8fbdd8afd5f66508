# SPDX-License-Identifier: Apache-2.0
"""An LMCache that creates our launcher itself, as docs/contributing/upstream proposes."""

from __future__ import annotations

import logging
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from engine_shapes import Engine
from hooked_engine import hooked_engine
from mocked_launcher import MockedLaunchers

from lmcache_plugin_adapter.engine.launcher import LaunchError, RuntimePluginLauncher
from lmcache_plugin_adapter.hosts.chosen_launcher import ChosenLauncher, create_launcher

if TYPE_CHECKING:
    from pathlib import Path

EXPLICIT = {
    "kv_connector": "LMCacheAdapterConnector",
    "kv_connector_module_path": "lmcache_plugin_adapter.connector",
}


@pytest.fixture
def engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launchers: MockedLaunchers
) -> Iterator[Callable[..., Engine]]:
    """Return a function that starts an engine beside such an LMCache."""
    with hooked_engine(tmp_path, monkeypatch) as start:
        yield lambda: start(change=(tmp_path / "lmcache/v1/plugin/launcher_factory.py").touch)


@pytest.mark.parametrize("transfer", [{}, EXPLICIT], ids=["entry point", "explicit class"])
def test_nothing_is_patched(
    launchers: MockedLaunchers, engine: Callable[..., Engine], transfer: dict[str, Any]
) -> None:
    """Neither vLLM's factory nor LMCache's launcher."""
    one = engine()
    create = one.factory.create_connector.__func__
    connector = one.create(**transfer)
    assert not hasattr(create, "__wrapped__")
    assert "shutdown" not in vars(connector)
    assert launchers.made == []
    (launcher,) = one.started_by_lmcache  # which would be ours
    assert type(launcher).launch_plugins.__module__ == type(launcher).__module__


def config(**settings: Any) -> Any:
    """Return a configuration of LMCache's."""
    return types.SimpleNamespace(
        runtime_plugin_locations=["/plugins"],
        extra_config={"runtime_plugins": settings},
        to_json=lambda: "{}",
    )


def test_disabled_leaves_the_plugins_to_lmcache() -> None:
    """It gets no launcher."""
    assert create_launcher(config(enabled=False), "worker", 1, 0) is None
    worker, server = (create_launcher(config(), role, 1, 0) for role in ("worker", None))
    assert isinstance(worker, ChosenLauncher)
    assert isinstance(server, ChosenLauncher)
    assert (worker.plugin_logger, server.plugin_logger) == (
        "vllm.lmcache_plugins",
        "lmcache_plugins",
    )


def test_lmcaches_own_starts_when_ours_cannot(
    engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """One line says why; LMCache's own is stopped as well."""
    one = engine()
    monkeypatch.setattr(
        RuntimePluginLauncher, "launch_or_raise", lambda _: (_ for _ in ()).throw(LaunchError("no"))
    )
    caplog.set_level(logging.WARNING)
    launcher = create_launcher(config(), "worker", 2, 1)
    assert launcher is not None
    assert launcher.launch_plugins() is False
    (builtin,) = one.started_by_lmcache
    assert (builtin.role, builtin.worker_count, builtin.worker_id) == ("worker", 2, 1)
    (line,) = caplog.messages
    assert "LMCache's own launcher starts them" in line
    launcher.stop_plugins()
