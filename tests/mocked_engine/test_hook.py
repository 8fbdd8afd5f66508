"""The hook into vLLM's connector factory, over the shapes of vLLM's and LMCache's versions."""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import logging
import os
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from engine_shapes import (
    FACTORIES,
    LAUNCHERS,
    Engine,
    KVConnectorRole,
    StandInLauncher,
    TransferConfig,
    lmcache_settings,
    parallel_config,
    write_lmcache,
    write_vllm,
)

from lmcache_plugin_adapter.hosts.vllm import connector_takeover as takeover
from lmcache_plugin_adapter.hosts.vllm import hook as vllm_plugin

if TYPE_CHECKING:
    from pathlib import Path

DYNAMIC = {
    "kv_connector": "LMCacheConnectorV1Dynamic",
    "kv_connector_module_path": "lmcache.integration.vllm.vllm_v1_adapter",
}
EXPLICIT = {
    "kv_connector": "LMCacheAdapterConnector",
    "kv_connector_module_path": "lmcache_plugin_adapter.connector",
}
MULTI = {
    "kv_connector": "MultiConnector",
    "kv_connector_extra_config": {
        "connectors": [{"kv_connector": "NixlConnector"}, {"kv_connector": "LMCacheConnectorV1"}]
    },
}
MakeEngine = Callable[..., Engine]


def _forget(*packages: str) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in packages:
            del sys.modules[name]
    for name in ("connector", "hosts.vllm.connector"):
        sys.modules.pop(f"lmcache_plugin_adapter.{name}", None)
    importlib.invalidate_caches()


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> type[StandInLauncher]:
    """Put a launcher in place of the real one that starts nothing."""
    monkeypatch.setattr(StandInLauncher, "made", [], raising=False)
    monkeypatch.setattr(StandInLauncher, "fails", None, raising=False)
    module = types.ModuleType("lmcache_plugin_adapter.engine.launcher")
    module.RuntimePluginLauncher = StandInLauncher  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return StandInLauncher


@pytest.fixture
def make_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: type[StandInLauncher]
) -> Iterator[MakeEngine]:
    """Return a function that writes the trees, and runs the entry point as vLLM would."""
    finders = list(sys.meta_path)

    def make(
        factory: str = "0.22",
        launcher: str = "0.3.15",
        config: str | None = None,
        entry_point: bool = True,
    ) -> Engine:
        write_vllm(tmp_path, factory)
        write_lmcache(tmp_path, launcher)
        monkeypatch.setenv("FAKE_LMCACHE_CONFIG", config or lmcache_settings(["/plugins"]))
        monkeypatch.syspath_prepend(str(tmp_path))
        _forget("vllm", "lmcache")
        if entry_point:
            vllm_plugin.register()
        return Engine()

    yield make
    sys.meta_path[:] = finders
    _forget("vllm", "lmcache")


@pytest.fixture(params=FACTORIES)
def factory(request: pytest.FixtureRequest) -> str:
    """Each shape of vLLM's factory."""
    return str(request.param)


@pytest.fixture(params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> str:
    """Each shape of LMCache's launcher."""
    return str(request.param)


class TestNeverTwiceNeverNone:
    """Either our launcher or LMCache's starts the plugins, never both, never neither."""

    @pytest.mark.parametrize("role", ["SCHEDULER", "WORKER"])
    def test_ours_starts_and_lmcaches_does_not(
        self,
        make_engine: MakeEngine,
        ours: type[StandInLauncher],
        factory: str,
        launcher: str,
        role: str,
    ) -> None:
        """In every shape of both projects."""
        engine = make_engine(factory, launcher)
        engine.parallel = parallel_config(rank=1, tensor_parallel_size=2)
        engine.create(role)
        assert engine.started_by_lmcache == []
        (started,) = ours.made
        assert (started.launched, started.role.name, started.count) == (1, role, 2)
        assert started.worker_id == (1 if role == "WORKER" else -1)
        assert started.config.runtime_plugin_locations == ["/plugins"]
        assert "/plugins" in started.config.to_json()

    def test_lmcaches_starts_when_ours_cannot(
        self,
        make_engine: MakeEngine,
        ours: type[StandInLauncher],
        factory: str,
        launcher: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """One line says why."""
        engine = make_engine(factory, launcher)
        ours.fails = OSError("no processes left")
        connector = engine.create()
        assert connector is not None
        assert len(engine.started_by_lmcache) == 1
        (line,) = caplog.messages
        assert "no processes left" in line
        assert "LMCache's own launcher starts them" in line

    def test_a_start_without_lmcaches_launcher_to_fall_back_on_is_said(
        self,
        make_engine: MakeEngine,
        ours: type[StandInLauncher],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """LMCache makes no launcher where its engine failed."""
        monkeypatch.setenv("FAKE_LMCACHE_FAILS", "1")
        engine = make_engine()
        ours.fails = OSError("no processes left")
        engine.create()
        assert "none run in this process" in caplog.text

    def test_disabled_leaves_everything_to_lmcache(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], factory: str, launcher: str
    ) -> None:
        """``enabled: false``: started inside the constructor, when LMCache wants it."""
        engine = make_engine(factory, launcher, lmcache_settings(["/plugins"], enabled=False))
        connector = engine.create()
        assert ours.made == []
        assert len(engine.started_by_lmcache) == 1
        assert "shutdown" not in vars(connector)

    def test_an_unknown_launcher_of_lmcache_keeps_ours_from_starting(
        self,
        make_engine: MakeEngine,
        ours: type[StandInLauncher],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """LMCache's starts the plugins, unheld; ours would start them again."""
        engine = make_engine(launcher="none")
        engine.create()
        assert ours.made == []
        assert len(engine.started_by_lmcache) == 1
        (line,) = caplog.messages
        assert "left to LMCache" in line

    def test_a_configuration_that_raises_is_left_to_lmcache(
        self,
        make_engine: MakeEngine,
        ours: type[StandInLauncher],
        mocker: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """And said once."""
        engine = make_engine()
        mocker.patch(
            "lmcache_plugin_adapter.hosts.vllm.connector_takeover.why_engine_runs_nothing",
            side_effect=OSError("no"),
        )
        engine.create()
        assert ours.made == []
        assert len(engine.started_by_lmcache) == 1
        assert len(caplog.messages) == 1

    @pytest.mark.parametrize("field", ["rank", "tensor_parallel_size", "pipeline_parallel_size"])
    def test_a_parallel_config_without_fields_is_left_to_lmcache(
        self,
        make_engine: MakeEngine,
        ours: type[StandInLauncher],
        caplog: pytest.LogCaptureFixture,
        field: str,
    ) -> None:
        """The line names the field."""
        engine = make_engine()
        engine.parallel = parallel_config(**{field: None})
        engine.create()
        assert ours.made == []
        assert len(engine.started_by_lmcache) == 1
        (line,) = caplog.messages
        assert field in line

    def test_two_roles_in_one_process(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], factory: str
    ) -> None:
        """As with vLLM's uniproc executor."""
        engine = make_engine(factory)
        engine.create("WORKER")
        engine.create("SCHEDULER")
        assert [(one.role.name, one.worker_id) for one in ours.made] == [
            ("WORKER", 0),
            ("SCHEDULER", -1),
        ]
        assert engine.started_by_lmcache == []

    def test_a_held_launcher_stays_held(
        self, make_engine: MakeEngine, ours: type[StandInLauncher]
    ) -> None:
        """LMCache may start its services again later."""
        engine = make_engine()
        connector = engine.create()
        connector._lmcache_engine.launcher.launch_plugins()
        assert engine.started_by_lmcache == []
        assert len(ours.made) == 1

    def test_other_users_of_lmcaches_launcher_are_not_held(self, make_engine: MakeEngine) -> None:
        """A launcher made apart from a connector, as by LMCache's multiprocess server."""
        engine = make_engine()
        engine.create()
        module = importlib.import_module("lmcache.v1.plugin.runtime_plugin_launcher")
        config = types.SimpleNamespace(runtime_plugin_locations=["/other"])
        module.RuntimePluginLauncher(config, None, 1, 0).launch_plugins()
        assert len(engine.started_by_lmcache) == 1

    def test_a_creation_in_another_thread_holds_only_its_own(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], mocker: Any
    ) -> None:
        """Two connectors at once, each with its launcher."""
        engine = make_engine()
        engine.create()
        meeting = threading.Barrier(2, timeout=10)
        adapter = importlib.import_module("lmcache.integration.vllm.vllm_v1_adapter")
        mocker.patch.object(
            adapter, "apply_extra_config", side_effect=lambda *_: meeting.wait() and None
        )
        threads = [threading.Thread(target=engine.create, args=(role,)) for role in _ROLES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ours.made) == 3
        assert engine.started_by_lmcache == []

    def test_a_failing_constructor_raises_as_before(
        self,
        make_engine: MakeEngine,
        ours: type[StandInLauncher],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Up to LMCache 0.3.13 a failing engine ends vLLM; the next creation is unharmed."""
        monkeypatch.setenv("FAKE_LMCACHE_FAILS", "1")
        engine = make_engine(launcher="0.3.11")
        with pytest.raises(OSError, match="engine"):
            engine.create()
        assert ours.made == []
        monkeypatch.delenv("FAKE_LMCACHE_FAILS")
        engine.create()
        assert len(ours.made) == 1


_ROLES = ("SCHEDULER", "WORKER")


class TestWhichConnectors:
    """LMCache's in-process connectors, however they are named, and no others."""

    @pytest.mark.parametrize("name", ["NixlConnector", "LMCacheMPConnector"])
    def test_other_connectors_are_left_alone(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], factory: str, name: str
    ) -> None:
        """No module of LMCache is imported for them."""
        engine = make_engine(factory)
        connector = engine.create(kv_connector=name)
        assert ours.made == []
        assert "shutdown" not in vars(connector)
        assert not [name for name in sys.modules if name.partition(".")[0] == "lmcache"]

    def test_multi_connector(
        self,
        make_engine: MakeEngine,
        ours: type[StandInLauncher],
        factory: str,
        launcher: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Once, whether it builds its children by the factory or by class, and nothing is said."""
        engine = make_engine(factory, launcher)
        connector = engine.create(**MULTI)
        assert len(ours.made) == 1
        assert engine.started_by_lmcache == []
        assert caplog.messages == []
        connector.shutdown()
        assert ours.made[0].stops == [False]
        assert connector.log == ["shutdown"]

    def test_multi_connector_with_a_failed_lmcache_engine(
        self,
        make_engine: MakeEngine,
        ours: type[StandInLauncher],
        monkeypatch: pytest.MonkeyPatch,
        factory: str,
    ) -> None:
        """The configuration then comes from the child connector."""
        monkeypatch.setenv("FAKE_LMCACHE_FAILS", "1")
        engine = make_engine(factory)
        engine.create(**MULTI)
        assert len(ours.made) == 1

    def test_multi_connector_without_lmcache_is_left_alone(
        self, make_engine: MakeEngine, ours: type[StandInLauncher]
    ) -> None:
        """Nothing of LMCache is imported."""
        children = {"connectors": [{"kv_connector": "NixlConnector"}]}
        make_engine().create(kv_connector="MultiConnector", kv_connector_extra_config=children)
        assert ours.made == []
        assert "lmcache" not in sys.modules

    @pytest.mark.parametrize("factory", FACTORIES[1:])
    def test_dynamic_connector_by_module_path(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], factory: str, launcher: str
    ) -> None:
        """LMCache's own connector class; its own ``shutdown`` still runs."""
        engine = make_engine(factory, launcher)
        connector = engine.create(**DYNAMIC)
        assert len(ours.made) == 1
        assert engine.started_by_lmcache == []
        connector.shutdown()
        assert ours.made[0].stops == [False]
        assert connector.log == ["shutdown"]

    def test_native_integration(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], factory: str
    ) -> None:
        """The copy in vLLM of the adapter starts LMCache's launcher in its constructor."""
        engine = make_engine(factory)
        engine.create(kv_connector_extra_config={"use_native": True})
        assert len(ours.made) == 1
        assert engine.started_by_lmcache == []

    @pytest.mark.parametrize("entry_point", [True, False])
    @pytest.mark.parametrize("factory", FACTORIES[1:])
    def test_explicit_connector_class(
        self,
        make_engine: MakeEngine,
        ours: type[StandInLauncher],
        factory: str,
        launcher: str,
        entry_point: bool,
    ) -> None:
        """Once, with the entry point active as well and where VLLM_PLUGINS keeps it out."""
        engine = make_engine(factory, launcher, entry_point=entry_point)
        connector = engine.create(**EXPLICIT)
        (started,) = ours.made
        assert started.launched == 1
        assert engine.started_by_lmcache == []
        connector.shutdown()
        assert started.stops == [False]
        assert connector.log == ["shutdown"]
        assert type(connector).__mro__[1].__name__ == "LMCacheConnectorV1"

    def test_a_failed_engine_still_gets_its_plugins(
        self,
        make_engine: MakeEngine,
        ours: type[StandInLauncher],
        monkeypatch: pytest.MonkeyPatch,
        factory: str,
    ) -> None:
        """That is when an alert plugin is needed; LMCache starts none."""
        monkeypatch.setenv("FAKE_LMCACHE_FAILS", "1")
        engine = make_engine(factory)
        engine.create()
        assert [one.launched for one in ours.made] == [1]


class TestConfiguration:
    """The configuration as LMCache ends up with it."""

    @pytest.mark.parametrize("factory", FACTORIES)
    def test_keys_from_the_connectors_extra_config(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], factory: str, launcher: str
    ) -> None:
        """``lmcache.*`` keys replace what the YAML says, settings of ours included."""
        engine = make_engine(factory, launcher, lmcache_settings(None, enabled=False))
        extra = {
            "lmcache.locations": ["/from-vllm"],
            "lmcache.extra_config": {"runtime_plugins": {"enabled": True}},
        }
        engine.create(kv_connector_extra_config=extra)
        (started,) = ours.made
        assert started.config.runtime_plugin_locations == ["/from-vllm"]
        assert engine.started_by_lmcache == []

    def test_no_locations_no_launcher(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], launcher: str
    ) -> None:
        """Neither in the old nor in the new place."""
        engine = make_engine(launcher=launcher, config=lmcache_settings(None))
        connector = engine.create()
        assert ours.made == []
        assert engine.started_by_lmcache == []
        assert "shutdown" not in vars(connector)

    def test_locations_in_our_settings_only(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], launcher: str
    ) -> None:
        """``extra_config.runtime_plugins.locations`` is enough."""
        make_engine(launcher=launcher, config=lmcache_settings(None, locations=["/x"])).create()
        assert len(ours.made) == 1

    @pytest.mark.parametrize("extra", ["text", ["list"], 3, {"runtime_plugins": "text"}])
    def test_malformed_settings_start_all_the_same(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], extra: object
    ) -> None:
        """What is wrong in them, the supervisor says."""
        config = json.dumps({"locations": ["/plugins"], "extra_config": extra})
        engine = make_engine(config=config)
        engine.create()
        assert len(ours.made) == 1
        assert engine.started_by_lmcache == []


class TestDataParallel:
    """The node's first replica runs plugins, or all do."""

    @pytest.mark.parametrize(
        ("policy", "replica", "runs"),
        [("local-rank-0", 0, 1), ("local-rank-0", 1, 0), ("all", 0, 1), ("all", 1, 1)],
    )
    @pytest.mark.parametrize("native", [False, True])
    def test_policy(
        self,
        make_engine: MakeEngine,
        ours: type[StandInLauncher],
        policy: str,
        replica: int,
        runs: int,
        native: bool,
    ) -> None:
        """Replicas of a dense model, which call themselves 0 of 1; never LMCache's launcher.

        vLLM's native integration would start LMCache's in each of them.
        """
        engine = make_engine(config=lmcache_settings(["/plugins"], data_parallel=policy))
        engine.parallel = parallel_config(
            data_parallel_rank_local=replica, data_parallel_index=replica
        )
        engine.create(kv_connector_extra_config={"use_native": native})
        assert [(one.dp_rank, one.launched) for one in ours.made] == [(replica, 1)] * runs
        assert engine.started_by_lmcache == []

    def test_where_they_run_is_said(
        self, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        """With the setting that changes it."""
        caplog.set_level(logging.INFO)
        engine = make_engine()
        engine.parallel = parallel_config(data_parallel_rank_local=3)
        engine.create()
        (line,) = caplog.messages
        assert "not in replica 3" in line
        assert "extra_config.runtime_plugins.data_parallel" in line


class TestShutdown:
    """The connector's ``shutdown`` stops the plugins first and waits for nothing."""

    def test_stops_then_does_what_vllm_does(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], factory: str
    ) -> None:
        """Version 0.9 of vLLM has no ``shutdown`` to call, and is not given one."""
        connector = make_engine(factory).create()
        if factory == "0.9":
            assert not hasattr(connector, "shutdown")
            return
        connector.shutdown()
        assert ours.made[0].stops == [False]
        assert connector.log == ["shutdown"]

    def test_our_errors_do_not_keep_vllms_shutdown_from_running(
        self,
        make_engine: MakeEngine,
        ours: type[StandInLauncher],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """They are said."""
        connector = make_engine().create()
        ours.fails = OSError("broken")
        connector.shutdown()
        assert connector.log == ["shutdown"]
        assert "broken" in caplog.text

    @pytest.mark.parametrize("exit_type", [SystemExit, KeyboardInterrupt])
    def test_an_exit_asked_for_by_a_signal_passes(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], exit_type: type[BaseException]
    ) -> None:
        """Workers of vLLM end by a SystemExit raised in a signal handler."""
        connector = make_engine().create()
        ours.fails = exit_type()  # type: ignore[assignment]
        with pytest.raises(exit_type):
            connector.shutdown()

    def test_vllms_own_errors_pass(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], mocker: Any
    ) -> None:
        """They are not ours to swallow."""
        engine = make_engine()
        base = importlib.import_module("vllm.distributed.kv_transfer.kv_connector.base")
        mocker.patch.object(base.KVConnectorBase, "shutdown", side_effect=OSError("vllm"))
        connector = engine.create()
        with pytest.raises(OSError, match="vllm"):
            connector.shutdown()
        assert ours.made[0].stops == [False]

    def test_a_connector_that_takes_no_attribute(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], caplog: Any
    ) -> None:
        """Then the plugins end with the process, and that is said."""

        class Slotted:
            __slots__ = ()

            def shutdown(self) -> None: ...

        takeover._stop_on_shutdown(Slotted(), object())  # type: ignore[arg-type]
        assert "end with this process" in caplog.text

    def test_the_connector_can_be_collected(
        self, make_engine: MakeEngine, ours: type[StandInLauncher]
    ) -> None:
        """Nothing of ours keeps it alive."""
        connector = make_engine().create()
        gone = weakref.ref(connector)
        del connector
        gc.collect()
        assert gone() is None


class TestEntryPoint:
    """What vLLM runs in each process."""

    def test_twice_wraps_once(self, make_engine: MakeEngine, factory: str) -> None:
        """Here vLLM may load plugins several times."""
        engine = make_engine(factory)
        name = "create_connector_v1" if factory == "0.9" else "create_connector"
        wrapped = vars(engine.factory)[name]
        vllm_plugin.register()
        vllm_plugin.register()
        assert vars(engine.factory)[name] is wrapped
        assert not hasattr(wrapped.__func__.__wrapped__, "__wrapped__")

    def test_twice_before_the_factory_is_imported(
        self, make_engine: MakeEngine, ours: type[StandInLauncher]
    ) -> None:
        """One finder on the path."""
        engine = make_engine()
        vllm_plugin.register()
        finders = [one for one in sys.meta_path if isinstance(one, vllm_plugin._FactoryFinder)]
        assert len(finders) == 1
        engine.create()
        assert len(ours.made) == 1

    def test_after_the_factory_was_imported(
        self, make_engine: MakeEngine, ours: type[StandInLauncher], factory: str
    ) -> None:
        """As in vLLM's workers, where the executor imported it before."""
        engine = make_engine(factory, entry_point=False)
        assert engine.factory
        vllm_plugin.register()
        engine.create()
        assert len(ours.made) == 1

    def test_the_factory_module_is_as_vllm_made_it(self, make_engine: MakeEngine) -> None:
        """Its loader is the ordinary one, with nothing left on it; its source is readable."""
        module = sys.modules[make_engine().factory.__module__]
        assert "exec_module" not in vars(module.__loader__)
        assert "KVConnectorFactory" in inspect.getsource(module)

    @pytest.mark.parametrize(
        "text", ["", "KVConnectorFactory = None", "class KVConnectorFactory: pass"]
    )
    @pytest.mark.parametrize("installed", [True, False])
    def test_an_unknown_factory_is_said_and_left_alone(
        self,
        make_engine: MakeEngine,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        text: str,
        installed: bool,
        mocker: Any,
    ) -> None:
        """One line, and only where LMCache is installed at all."""
        make_engine(entry_point=False)
        (tmp_path / "vllm/distributed/kv_transfer/kv_connector/factory.py").write_text(text)
        if not installed:
            mocker.patch("importlib.util.find_spec", return_value=None)
        vllm_plugin.register()
        importlib.import_module(vllm_plugin.FACTORY_MODULE)
        assert len(caplog.messages) == installed
        if installed:
            assert "LMCache's own launcher starts the plugins" in caplog.text

    def test_a_factory_that_fails_to_import_fails_as_before(
        self, make_engine: MakeEngine, tmp_path: Path
    ) -> None:
        """With its own error."""
        make_engine(entry_point=False)
        path = tmp_path / "vllm/distributed/kv_transfer/kv_connector/factory.py"
        path.write_text("raise ImportError('torch is broken')")
        vllm_plugin.register()
        for _ in range(2):
            with pytest.raises(ImportError, match="torch is broken"):
                importlib.import_module(vllm_plugin.FACTORY_MODULE)

    @pytest.mark.parametrize("arguments", [(), (None,), (object(),)])
    def test_unexpected_arguments_reach_vllm(
        self, make_engine: MakeEngine, arguments: tuple[object, ...]
    ) -> None:
        """Which then says what is wrong with them."""
        with pytest.raises((TypeError, AttributeError)):
            make_engine("0.10").factory.create_connector(*arguments)

    def test_positional_arguments(
        self, make_engine: MakeEngine, ours: type[StandInLauncher]
    ) -> None:
        """As ``MultiConnector`` of vLLM 0.10 gives them."""
        engine = make_engine("0.10")
        config = types.SimpleNamespace(
            kv_transfer_config=TransferConfig(), parallel_config=parallel_config()
        )
        engine.factory.create_connector(config, KVConnectorRole.SCHEDULER)
        assert ours.made[0].worker_id == -1

    def test_a_forked_child_is_not_in_its_parents_creation(
        self, make_engine: MakeEngine, mocker: Any
    ) -> None:
        """It inherits the mark, not the creation."""
        make_engine()
        with takeover.begin_takeover(types.SimpleNamespace(), "worker"):
            assert takeover._current() is not None
            mocker.patch.object(os, "getpid", return_value=1)
            assert takeover._current() is None
