# SPDX-License-Identifier: Apache-2.0
"""Hook, takeover, fallback and configuration with the real code of vLLM and LMCache."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import pytest
from harness import wait_until
from vllm_config_shapes import DYNAMIC, EXPLICIT, in_multi_connector

from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.hosts import upstream_names
from lmcache_plugin_adapter.hosts.vllm.lmcache_launcher import find_launcher

if TYPE_CHECKING:
    from pathlib import Path

    from mocked_launcher import MockedLaunchers

MULTI = in_multi_connector("LMCacheConnectorV1")


def lmcache_version() -> tuple[int, ...]:
    """Return the version of LMCache that the ring tests."""
    return tuple(int(part) for part in upstream_names.installed_version("lmcache").split(".")[:3])


# Up to 0.3.13, an engine that fails to start ends the worker; without a GPU, each one fails.
degrades = pytest.mark.skipif(
    lmcache_version() < (0, 3, 15), reason="this LMCache's worker needs a GPU"
)
ROLES = ["SCHEDULER", pytest.param("WORKER", marks=degrades)]


def lines_of(path: Path, number: int) -> list[str]:
    """Return the lines of a file once it has ``number`` of them."""
    wait_until(path.exists, 20, f"{path} exists")
    return wait_until(
        lambda: len(lines := path.read_text().splitlines()) >= number and lines,
        20,
        f"{path} has {number} lines",
    )


def test_every_upstream_name_is_there() -> None:
    """Only names that this version is known to lack are missing."""
    missing = [one.upstream for one in upstream_names.check_upstream() if not one.found]
    assert [name.name for name in missing if name.loss != "none"] == []


def test_versions_are_supported() -> None:
    """The table of supported versions has the versions that the ring tests."""
    for project in upstream_names.SUPPORTED:
        assert upstream_names.is_supported(project, upstream_names.installed_version(project))


def test_lmcaches_launcher_looks_as_known() -> None:
    """Constructor, attributes and methods are the ones that the adapter uses."""
    launcher_class = find_launcher()
    assert launcher_class is not None
    parameters = list(inspect.signature(launcher_class).parameters)
    assert parameters == ["config", "role", "worker_count", "worker_id"]
    launcher = launcher_class(None, "worker", 1, 0)
    assert launcher.plugin_processes == []
    assert list(inspect.signature(launcher.launch_plugins).parameters) in ([], ["args", "kwargs"])
    assert callable(launcher.stop_plugins)


@pytest.mark.parametrize("role", ROLES)
def test_ours_starts_and_lmcaches_does_not(
    create: Any, configure: Any, launchers: MockedLaunchers, plugin_ran: tuple[str, Path], role: str
) -> None:
    """On a worker without a GPU, LMCache's engine fails, and ours starts all the same."""
    directory, mark = plugin_ran
    configure(runtime_plugin_locations=[directory], plugin_locations=[directory])
    connector = create(role)
    (started,) = launchers.made
    assert started.identity == ProcessIdentity(Role[role], -1 if role == "SCHEDULER" else 0, 1)
    assert started.config.runtime_plugin_locations == [directory]
    values = json.loads(started.config.to_json())
    assert [directory] in (values.get("runtime_plugin_locations"), values.get("plugin_locations"))
    connector.shutdown()
    started.stop_plugins.assert_called_once_with(wait=False)
    assert not mark.exists()


def test_lmcaches_starts_when_ours_cannot(
    create: Any, configure: Any, launchers: MockedLaunchers, plugin_ran: tuple[str, Path]
) -> None:
    """LMCache's launcher runs the plugin."""
    directory, mark = plugin_ran
    configure(runtime_plugin_locations=[directory], plugin_locations=[directory])
    launchers.errors["launch_or_raise"] = OSError("no processes left")
    create()
    assert len(lines_of(mark, 1)) == 1


def test_disabled_leaves_everything_to_lmcache(
    create: Any, configure: Any, launchers: MockedLaunchers, plugin_ran: tuple[str, Path]
) -> None:
    """LMCache's launcher runs the plugin, once."""
    directory, mark = plugin_ran
    settings = {"runtime_plugins": {"enabled": False}}
    configure(
        runtime_plugin_locations=[directory], plugin_locations=[directory], extra_config=settings
    )
    connector = create()
    assert len(lines_of(mark, 1)) == 1
    assert launchers.made == []
    assert "shutdown" not in vars(connector)


def test_no_locations_no_launcher(create: Any, configure: Any, launchers: MockedLaunchers) -> None:
    """Without locations, nothing starts."""
    configure()
    create()
    assert launchers.made == []


@pytest.mark.parametrize(
    ("transfer", "role"),
    [
        (MULTI, "SCHEDULER"),
        pytest.param(MULTI, "WORKER", marks=degrades),
        pytest.param(DYNAMIC, "SCHEDULER", marks=degrades),  # until 0.3.13 it takes 2 arguments
        pytest.param(DYNAMIC, "WORKER", marks=degrades),
        (EXPLICIT, "SCHEDULER"),
        pytest.param(EXPLICIT, "WORKER", marks=degrades),
    ],
    ids=lambda value: value["kv_connector"] if isinstance(value, dict) else value,
)
def test_other_connectors_with_lmcache(
    create: Any,
    configure: Any,
    launchers: MockedLaunchers,
    plugin_ran: tuple[str, Path],
    mocker: Any,
    transfer: dict[str, Any],
    role: str,
) -> None:
    """Plugins start once, and stop with the connector."""
    directory, mark = plugin_ran
    configure(runtime_plugin_locations=[directory], plugin_locations=[directory])
    connector = create(role, **transfer)
    (started,) = launchers.made
    started.launch_or_raise.assert_called_once_with()
    ended = []
    started.stop_plugins.side_effect = lambda wait: ended.append(f"plugins, wait={wait}")
    if transfer is DYNAMIC:  # only this one closes LMCache, too, which hangs without workers
        mocker.patch.object(
            connector._lmcache_engine,
            "shutdown",
            autospec=True,
            side_effect=lambda: ended.append("LMCache"),
        )
    connector.shutdown()
    assert ended == ["plugins, wait=False", *(["LMCache"] if transfer is DYNAMIC else [])]
    assert not mark.exists()


def test_explicit_class_without_the_entry_point(
    create: Any, configure: Any, launchers: MockedLaunchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connector class works where ``VLLM_PLUGINS`` excludes the hook."""
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

    wrapped = vars(KVConnectorFactory)["create_connector"].__func__
    monkeypatch.setattr(KVConnectorFactory, "create_connector", classmethod(wrapped.__wrapped__))
    configure(runtime_plugin_locations=["/plugins"], plugin_locations=["/plugins"])
    create()
    assert launchers.made == []
    create(**EXPLICIT)
    (started,) = launchers.made
    started.launch_or_raise.assert_called_once_with()


class TestConfiguration:
    """The launcher gets the locations and settings that LMCache ends up with."""

    def test_environment(
        self,
        create: Any,
        configure: Any,
        launchers: MockedLaunchers,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The variable, under this version's name, replaces the file's locations."""
        old = lmcache_version() < (0, 3, 11)
        variable = "LMCACHE_PLUGIN_LOCATIONS" if old else "LMCACHE_RUNTIME_PLUGIN_LOCATIONS"
        monkeypatch.setenv(variable, "/from-environment")
        configure(runtime_plugin_locations=["/a"], plugin_locations=["/a"])
        create()
        assert launchers.made[0].config.runtime_plugin_locations == ["/from-environment"]

    def test_environment_without_a_file(
        self,
        create: Any,
        configure: Any,
        launchers: MockedLaunchers,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Every version reads the older name."""
        configure()
        monkeypatch.delenv("LMCACHE_CONFIG_FILE")
        monkeypatch.setenv("LMCACHE_PLUGIN_LOCATIONS", "/a,/b")
        create()
        assert launchers.made[0].config.runtime_plugin_locations == [
            "/a,/b"
        ]  # split by the supervisor

    def test_older_name_in_the_file(
        self, create: Any, configure: Any, launchers: MockedLaunchers
    ) -> None:
        """``plugin_locations`` in the file gives the locations, too."""
        configure(plugin_locations=["/old"])
        create()
        assert launchers.made[0].config.runtime_plugin_locations == ["/old"]

    def test_settings_from_the_environment(
        self,
        create: Any,
        configure: Any,
        launchers: MockedLaunchers,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """``LMCACHE_EXTRA_CONFIG`` switches the adapter off where no file can be changed."""
        configure(runtime_plugin_locations=["/a"], plugin_locations=["/a"])
        monkeypatch.setenv("LMCACHE_EXTRA_CONFIG", '{"runtime_plugins": {"enabled": false}}')
        create()
        assert launchers.made == []

    def test_locations_in_our_settings_only(
        self, create: Any, configure: Any, launchers: MockedLaunchers
    ) -> None:
        """``extra_config.runtime_plugins.locations`` is enough."""
        configure(extra_config={"runtime_plugins": {"locations": ["/x"]}})
        create()
        assert len(launchers.made) == 1

    def test_keys_of_the_connector(
        self, create: Any, configure: Any, launchers: MockedLaunchers
    ) -> None:
        """``lmcache.*`` keys of vLLM's ``kv_connector_extra_config`` replace all others."""
        name = "plugin_locations" if lmcache_version() < (0, 3, 11) else "runtime_plugin_locations"
        configure()
        extra = {
            f"lmcache.{name}": ["/from-vllm"],
            "lmcache.extra_config": {"runtime_plugins": {"data_parallel": "all"}},
        }
        create(kv_connector_extra_config=extra)
        config = launchers.made[0].config
        assert config.runtime_plugin_locations == ["/from-vllm"]
        assert config.extra_config == {"runtime_plugins": {"data_parallel": "all"}}
