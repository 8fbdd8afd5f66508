# SPDX-License-Identifier: Apache-2.0
"""A version of vLLM or LMCache that lacks a name: it works or falls back, and one line names it."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from engine_shapes import (
    Engine,
    KVConnectorRole,
    TransferConfig,
    parallel_config,
)
from hooked_engine import hooked_engine
from mocked_launcher import MockedLaunchers

if TYPE_CHECKING:
    from pathlib import Path

KV = "vllm/distributed/kv_transfer/kv_connector"
CHILDREN = {"connectors": [{"kv_connector": "LMCacheConnectorV1"}]}


@pytest.fixture
def engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launchers: MockedLaunchers
) -> Iterator[Callable[..., Engine]]:
    """Return a function that starts an engine of the newest shapes."""
    with hooked_engine(tmp_path, monkeypatch) as start:
        yield start


def renamed(tmp_path: Path, file: str, name: str, other: str) -> Callable[[], None]:
    """Return a change that renames something in a file of the trees."""

    def change() -> None:
        path = tmp_path / file
        text = path.read_text()
        assert name in text
        path.write_text(text.replace(name, other))

    return change


@pytest.mark.parametrize(
    ("file", "name", "other", "named"),
    [
        (f"{KV}/factory.py", "create_connector", "make", "KVConnectorFactory.create_connector"),
        (f"{KV}/factory.py", "KVConnectorFactory", "Factory", "KVConnectorFactory"),
        (
            "lmcache/integration/vllm/utils.py",
            "runtime_plugin_locations",
            "plugins",
            "runtime_plugin_locations",
        ),
        ("lmcache/v1/plugin/runtime_plugin_launcher.py", "self.config", "self._c", "'config'"),
    ],
)
def test_without_it_lmcaches_launcher_starts_the_plugins(
    launchers: MockedLaunchers,
    engine: Callable[..., Engine],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    file: str,
    name: str,
    other: str,
    named: str,
) -> None:
    """Never both launchers, never neither."""
    one = engine(change=renamed(tmp_path, file, name, other))
    if file.endswith("factory.py"):
        import vllm.distributed.kv_transfer.kv_connector.factory as module

        factory: Any = next(value for key, value in vars(module).items() if "Factory" in key)
        create = getattr(factory, "make", None) or factory.create_connector
        create(config_of_vllm(), KVConnectorRole.WORKER, object())
    else:
        if name == "runtime_plugin_locations":  # the launcher of that version reads the new name
            module_path = tmp_path / "lmcache/v1/plugin/runtime_plugin_launcher.py"
            module_path.write_text(module_path.read_text().replace(name, other))
        one.create()
    assert launchers.made == []
    assert len(one.started_by_lmcache) == 1
    (line,) = caplog.messages
    assert named in line
    assert "LMCache's own launcher" in line


def config_of_vllm() -> Any:
    """Return a configuration for LMCache's connector."""
    return types.SimpleNamespace(
        kv_transfer_config=TransferConfig(), parallel_config=parallel_config()
    )


def test_another_factory_module_is_reported_when_lmcache_is_loaded(
    engine: Callable[..., Engine], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that the hook waits for is never imported."""
    engine(change=lambda: (tmp_path / KV / "factory.py").rename(tmp_path / KV / "creation.py"))
    import vllm.distributed.kv_transfer.kv_connector.creation as module

    create = module.KVConnectorFactory.create_connector
    create(config_of_vllm(), KVConnectorRole.WORKER, object())
    (line,) = caplog.messages
    assert "kv_connector.factory" in line
    assert "LMCache's own launcher starts" in line


def test_another_launcher_of_lmcache_is_named(
    launchers: MockedLaunchers, engine: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    """Ours would start each plugin a second time."""
    one = engine(launcher="none")
    one.create()
    assert launchers.made == []
    (line,) = caplog.messages
    assert "RuntimePluginLauncher.launch_plugins" in line


@pytest.mark.parametrize("multi", [False, True])
def test_without_the_names_of_the_engine_it_works_while_lmcache_does(
    launchers: MockedLaunchers,
    engine: Callable[..., Engine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    multi: bool,
) -> None:
    """Where LMCache has failed, one line says what is missing."""
    file, name = (
        ("multi.py", "_connectors") if multi else ("lmcache_connector.py", "_lmcache_engine")
    )
    transfer = (
        {"kv_connector": "MultiConnector", "kv_connector_extra_config": CHILDREN} if multi else {}
    )
    one = engine(change=renamed(tmp_path, f"{KV}/v1/{file}", f"self.{name}", "self._other"))
    one.create(**transfer)
    assert [one.launch_or_raise.call_count for one in launchers.made] == [1]
    assert caplog.messages == []
    monkeypatch.setenv("FAKE_LMCACHE_FAILS", "1")
    one.create(**transfer)
    (line,) = caplog.messages
    assert name.strip("_") in line


def test_without_a_shutdown_plugins_end_with_the_process(
    launchers: MockedLaunchers,
    engine: Callable[..., Engine],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And start all the same."""
    one = engine(change=renamed(tmp_path, f"{KV}/base.py", "def shutdown", "def close"))
    one.create()
    assert [one.launch_or_raise.call_count for one in launchers.made] == [1]
    (line,) = caplog.messages
    assert "'shutdown'" in line


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        (("data_parallel_rank", "data_parallel_index"), "'data_parallel_rank'"),
        (("data_parallel_rank_local",), "'data_parallel_rank_local'"),
    ],
)
def test_without_a_replicas_number_plugins_start(
    launchers: MockedLaunchers,
    engine: Callable[..., Engine],
    caplog: pytest.LogCaptureFixture,
    gone: tuple[str, ...],
    named: str,
) -> None:
    """The line says how replicas are counted then."""
    one = engine(launcher="0.3.4")  # its launcher does not read the number either
    one.parallel = parallel_config()
    for field in gone:
        delattr(one.parallel, field)
    one.create()
    assert [one.launch_or_raise.call_count for one in launchers.made] == [1]
    (line,) = caplog.messages
    assert named in line


def test_without_extra_config_settings_have_their_defaults(
    launchers: MockedLaunchers,
    engine: Callable[..., Engine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The plugins start."""
    monkeypatch.setenv("FAKE_LMCACHE_CONFIG", json.dumps({"locations": ["/plugins"]}))
    file = "lmcache/integration/vllm/utils.py"
    one = engine(change=renamed(tmp_path, file, "self.extra_config", "self.more_config"))
    one.create()
    assert [one.launch_or_raise.call_count for one in launchers.made] == [1]
    (line,) = caplog.messages
    assert "'extra_config'" in line
