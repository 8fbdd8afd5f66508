"""Wrap, hold, fail open, configuration: against the real code of vLLM and LMCache."""

from __future__ import annotations

import inspect
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from lmcache_plugin_adapter.hosts import upstream_names as upstream
from lmcache_plugin_adapter.hosts.vllm import lmcache_launcher as builtin_launcher

if TYPE_CHECKING:
    from pathlib import Path

MULTI = {
    "kv_connector": "MultiConnector",
    "kv_connector_extra_config": {
        "connectors": [{"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}]
    },
}
DYNAMIC = {
    "kv_connector": "LMCacheConnectorV1Dynamic",
    "kv_connector_module_path": "lmcache.integration.vllm.lmcache_connector_v1",
}
EXPLICIT = {
    "kv_connector": "LMCacheAdapterConnector",
    "kv_connector_module_path": "lmcache_plugin_adapter.connector",
}


def lmcache_version() -> tuple[int, ...]:
    """The LMCache on trial."""
    return tuple(int(part) for part in upstream.installed_version("lmcache").split(".")[:3])


# Before, an engine that fails, as every one does without a GPU, ends the worker.
degrades = pytest.mark.skipif(
    lmcache_version() < (0, 3, 15), reason="this LMCache's worker needs a GPU"
)
ROLES = ["SCHEDULER", pytest.param("WORKER", marks=degrades)]


def wait_for_lines(path: Path, number: int) -> list[str]:
    """Return the lines of a file once it has ``number`` of them."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and len(lines := path.read_text().splitlines()) >= number:
            return lines
        time.sleep(0.05)
    raise AssertionError(f"{path} has no {number} lines")


def test_every_upstream_name_is_there() -> None:
    """Those that are not are the ones this version is known not to have."""
    missing = [one.upstream for one in upstream.check_upstream() if not one.found]
    assert [name.name for name in missing if name.loss != "none"] == []


def test_versions_are_supported() -> None:
    """The table and the ring agree."""
    for project in upstream.SUPPORTED:
        assert upstream.is_supported(project, upstream.installed_version(project))


def test_lmcaches_launcher_looks_as_known() -> None:
    """Constructor, attributes and methods."""
    launcher_class = builtin_launcher.find_launcher()
    assert launcher_class is not None
    parameters = list(inspect.signature(launcher_class).parameters)
    assert parameters == ["config", "role", "worker_count", "worker_id"]
    launcher = launcher_class(None, "worker", 1, 0)
    assert launcher.plugin_processes == []
    assert list(inspect.signature(launcher.launch_plugins).parameters) in ([], ["args", "kwargs"])
    assert callable(launcher.stop_plugins)


@pytest.mark.parametrize("role", ROLES)
def test_ours_starts_and_lmcaches_does_not(
    create: Any, configure: Any, ours: Any, plugin_ran: tuple[str, Path], role: str
) -> None:
    """On a worker without a GPU LMCache's engine fails, and ours starts all the same."""
    directory, mark = plugin_ran
    configure(runtime_plugin_locations=[directory], plugin_locations=[directory])
    connector = create(role)
    (started,) = ours.made
    assert (started.role.name, started.count) == (role, 1)
    assert started.worker_id == (-1 if role == "SCHEDULER" else 0)
    assert started.config.runtime_plugin_locations == [directory]
    values = json.loads(started.config.to_json())
    assert [directory] in (values.get("runtime_plugin_locations"), values.get("plugin_locations"))
    connector.shutdown()
    assert started.stops == [False]
    assert not mark.exists()


def test_lmcaches_starts_when_ours_cannot(
    create: Any, configure: Any, ours: Any, plugin_ran: tuple[str, Path]
) -> None:
    """It runs the plugin."""
    directory, mark = plugin_ran
    configure(runtime_plugin_locations=[directory], plugin_locations=[directory])
    ours.fails = OSError("no processes left")
    create()
    assert len(wait_for_lines(mark, 1)) == 1


def test_disabled_leaves_everything_to_lmcache(
    create: Any, configure: Any, ours: Any, plugin_ran: tuple[str, Path]
) -> None:
    """It runs the plugin, once."""
    directory, mark = plugin_ran
    settings = {"runtime_plugins": {"enabled": False}}
    configure(
        runtime_plugin_locations=[directory], plugin_locations=[directory], extra_config=settings
    )
    connector = create()
    assert len(wait_for_lines(mark, 1)) == 1
    assert ours.made == []
    assert "shutdown" not in vars(connector)


def test_no_locations_no_launcher(create: Any, configure: Any, ours: Any) -> None:
    """Nothing is asked for."""
    configure()
    create()
    assert ours.made == []


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
def test_other_ways_to_the_same_connector(
    create: Any,
    configure: Any,
    ours: Any,
    plugin_ran: tuple[str, Path],
    transfer: dict[str, Any],
    role: str,
) -> None:
    """Once, and stopped with the connector."""
    directory, mark = plugin_ran
    configure(runtime_plugin_locations=[directory], plugin_locations=[directory])
    connector = create(role, **transfer)
    (started,) = ours.made
    assert started.launched == 1
    closed = []
    if transfer is DYNAMIC:  # the only one that closes LMCache too, which without workers hangs
        connector._lmcache_engine.shutdown = lambda: closed.append(list(started.stops))
    connector.shutdown()
    assert started.stops == [False]
    assert closed == ([[False]] if transfer is DYNAMIC else [])  # after the plugins were told
    assert not mark.exists()


def test_explicit_class_without_the_entry_point(
    create: Any, configure: Any, ours: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where VLLM_PLUGINS keeps the hook out."""
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

    wrapped = vars(KVConnectorFactory)["create_connector"].__func__
    monkeypatch.setattr(KVConnectorFactory, "create_connector", classmethod(wrapped.__wrapped__))
    configure(runtime_plugin_locations=["/plugins"], plugin_locations=["/plugins"])
    create()
    assert ours.made == []
    create(**EXPLICIT)
    assert [one.launched for one in ours.made] == [1]


class TestConfiguration:
    """The locations and settings that LMCache ends up with are the ones ours gets."""

    def test_environment(
        self, create: Any, configure: Any, ours: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The variable, in its name of this version, replaces what the file says."""
        old = lmcache_version() < (0, 3, 11)
        variable = "LMCACHE_PLUGIN_LOCATIONS" if old else "LMCACHE_RUNTIME_PLUGIN_LOCATIONS"
        monkeypatch.setenv(variable, "/from-environment")
        configure(runtime_plugin_locations=["/a"], plugin_locations=["/a"])
        create()
        assert ours.made[0].config.runtime_plugin_locations == ["/from-environment"]

    def test_environment_without_a_file(
        self, create: Any, configure: Any, ours: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The older name is understood in every version."""
        configure()
        monkeypatch.delenv("LMCACHE_CONFIG_FILE")
        monkeypatch.setenv("LMCACHE_PLUGIN_LOCATIONS", "/a,/b")
        create()
        assert ours.made[0].config.runtime_plugin_locations == ["/a,/b"]  # split by the supervisor

    def test_older_name_in_the_file(self, create: Any, configure: Any, ours: Any) -> None:
        """``plugin_locations``."""
        configure(plugin_locations=["/old"])
        create()
        assert ours.made[0].config.runtime_plugin_locations == ["/old"]

    def test_settings_from_the_environment(
        self, create: Any, configure: Any, ours: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``LMCACHE_EXTRA_CONFIG`` switches the adapter off where no file can be changed."""
        configure(runtime_plugin_locations=["/a"], plugin_locations=["/a"])
        monkeypatch.setenv("LMCACHE_EXTRA_CONFIG", '{"runtime_plugins": {"enabled": false}}')
        create()
        assert ours.made == []

    def test_locations_in_our_settings_only(self, create: Any, configure: Any, ours: Any) -> None:
        """Enough to start."""
        configure(extra_config={"runtime_plugins": {"locations": ["/x"]}})
        create()
        assert len(ours.made) == 1

    def test_keys_of_the_connector(self, create: Any, configure: Any, ours: Any) -> None:
        """``lmcache.*`` keys of vLLM's ``kv_connector_extra_config`` come last."""
        name = "plugin_locations" if lmcache_version() < (0, 3, 11) else "runtime_plugin_locations"
        configure()
        extra = {
            f"lmcache.{name}": ["/from-vllm"],
            "lmcache.extra_config": {"runtime_plugins": {"data_parallel": "all"}},
        }
        create(kv_connector_extra_config=extra)
        config = ours.made[0].config
        assert config.runtime_plugin_locations == ["/from-vllm"]
        assert config.extra_config == {"runtime_plugins": {"data_parallel": "all"}}


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    """Tells these versions and that all names are there."""
    from lmcache_plugin_adapter.cli.doctor import doctor

    doctor(as_json=True)
    findings = json.loads(capsys.readouterr().out)["findings"]
    levels = {one["subject"]: one["level"] for one in findings}
    assert levels["vllm"] == levels["lmcache"] == levels["upstream names"] == "ok"
    assert "vllm name" not in levels
    assert "lmcache name" not in levels
