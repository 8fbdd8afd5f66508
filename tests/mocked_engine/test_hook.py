# SPDX-License-Identifier: Apache-2.0
"""The entry point and its hook into vLLM's connector factory, over the shapes of both projects."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from engine_shapes import FACTORIES, Engine, KVConnectorRole
from vllm_config_shapes import DYNAMIC, EXPLICIT, VllmConfig, in_multi_connector

from lmcache_plugin_adapter.hosts.vllm import hook

if TYPE_CHECKING:
    from pathlib import Path

    from mocked_launcher import MockedLaunchers

MakeEngine = Callable[..., Engine]
FACTORY_FILE = f"{hook.FACTORY_MODULE.replace('.', '/')}.py"


class TestWhichConnectors:
    """The hook acts on LMCache's in-process connectors, under any name, and on no others."""

    @pytest.mark.parametrize("name", ["NixlConnector", "LMCacheMPConnector"])
    def test_other_connectors_are_left_alone(
        self, make_engine: MakeEngine, launchers: MockedLaunchers, factory: str, name: str
    ) -> None:
        """Another connector starts no plugins and imports no module of LMCache."""
        engine = make_engine(factory)
        connector = engine.create(kv_connector=name)
        assert launchers.made == []
        assert "shutdown" not in vars(connector)
        assert not [name for name in sys.modules if name.partition(".")[0] == "lmcache"]

    def test_multi_connector(
        self,
        make_engine: MakeEngine,
        launchers: MockedLaunchers,
        factory: str,
        lmcache: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Plugins start once, whether it builds its children by the factory or by their class."""
        engine = make_engine(factory, lmcache)
        connector = engine.create(**in_multi_connector("NixlConnector", "LMCacheConnectorV1"))
        (started,) = launchers.made
        assert engine.started_by_lmcache == []
        assert caplog.messages == []
        connector.shutdown()
        started.stop_plugins.assert_called_once_with(wait=False)
        assert connector.log == ["shutdown"]

    @pytest.mark.usefixtures("failing_lmcache")
    def test_multi_connector_with_a_failed_lmcache_engine(
        self, make_engine: MakeEngine, launchers: MockedLaunchers, factory: str
    ) -> None:
        """The configuration then comes from the child connector."""
        engine = make_engine(factory)
        engine.create(**in_multi_connector("NixlConnector", "LMCacheConnectorV1"))
        assert len(launchers.made) == 1

    def test_multi_connector_without_lmcache_is_left_alone(
        self, make_engine: MakeEngine, launchers: MockedLaunchers
    ) -> None:
        """No module of LMCache is imported."""
        make_engine().create(**in_multi_connector("NixlConnector"))
        assert launchers.made == []
        assert "lmcache" not in sys.modules

    @pytest.mark.parametrize("factory", FACTORIES[1:])
    def test_dynamic_connector_by_module_path(
        self, make_engine: MakeEngine, launchers: MockedLaunchers, factory: str, lmcache: str
    ) -> None:
        """Plugins start for LMCache's own connector class, and its own ``shutdown`` still runs."""
        engine = make_engine(factory, lmcache)
        connector = engine.create(**DYNAMIC)
        (started,) = launchers.made
        assert engine.started_by_lmcache == []
        connector.shutdown()
        started.stop_plugins.assert_called_once_with(wait=False)
        assert connector.log == ["shutdown"]

    def test_native_integration(
        self, make_engine: MakeEngine, launchers: MockedLaunchers, factory: str
    ) -> None:
        """Plugins start once where vLLM uses its own copy of LMCache's adapter."""
        engine = make_engine(factory)
        engine.create(kv_connector_extra_config={"use_native": True})
        assert len(launchers.made) == 1
        assert engine.started_by_lmcache == []

    @pytest.mark.parametrize("entry_point", [True, False])
    @pytest.mark.parametrize("factory", FACTORIES[1:])
    def test_explicit_connector_class(
        self,
        make_engine: MakeEngine,
        launchers: MockedLaunchers,
        factory: str,
        lmcache: str,
        entry_point: bool,
    ) -> None:
        """Plugins start once, with and without the entry point (``VLLM_PLUGINS`` excludes it)."""
        engine = make_engine(factory, lmcache, entry_point=entry_point)
        connector = engine.create(**EXPLICIT)
        (started,) = launchers.made
        started.launch_or_raise.assert_called_once_with()
        assert engine.started_by_lmcache == []
        connector.shutdown()
        started.stop_plugins.assert_called_once_with(wait=False)
        assert connector.log == ["shutdown"]
        assert type(connector).__mro__[1].__name__ == "LMCacheConnectorV1"


class TestEntryPoint:
    """vLLM runs the entry point in each of its processes."""

    def test_twice_wraps_once(self, make_engine: MakeEngine, factory: str) -> None:
        """In one process, vLLM may load its plugins several times."""
        engine = make_engine(factory)
        name = "create_connector_v1" if factory == "0.9" else "create_connector"
        wrapped = vars(engine.factory)[name]
        hook.register()
        hook.register()
        assert vars(engine.factory)[name] is wrapped
        assert not hasattr(wrapped.__func__.__wrapped__, "__wrapped__")

    def test_twice_before_the_factory_is_imported(
        self, make_engine: MakeEngine, launchers: MockedLaunchers
    ) -> None:
        """One finder is on the path."""
        engine = make_engine()
        hook.register()
        finders = [one for one in sys.meta_path if isinstance(one, hook._FactoryFinder)]
        assert len(finders) == 1
        engine.create()
        assert len(launchers.made) == 1

    def test_after_the_factory_was_imported(
        self, make_engine: MakeEngine, launchers: MockedLaunchers, factory: str
    ) -> None:
        """In vLLM's workers, the executor imports the factory before the entry point runs."""
        engine = make_engine(factory, entry_point=False)
        assert engine.factory
        hook.register()
        engine.create()
        assert len(launchers.made) == 1

    def test_the_factory_module_is_as_vllm_made_it(self, make_engine: MakeEngine) -> None:
        """Its loader is the ordinary one, with nothing left on it; its source is readable."""
        module = sys.modules[make_engine().factory.__module__]
        assert "exec_module" not in vars(module.__loader__)
        assert "KVConnectorFactory" in inspect.getsource(module)

    @pytest.mark.parametrize(
        "text", ["", "KVConnectorFactory = None", "class KVConnectorFactory: pass"]
    )
    @pytest.mark.parametrize("installed", [True, False])
    def test_an_unknown_factory_is_logged_and_left_alone(
        self,
        make_engine: MakeEngine,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        text: str,
        installed: bool,
        mocker: Any,
    ) -> None:
        """One line is logged, and only where LMCache is installed."""
        make_engine(entry_point=False)
        (tmp_path / FACTORY_FILE).write_text(text)
        if not installed:
            mocker.patch("importlib.util.find_spec", autospec=True, return_value=None)
        hook.register()
        importlib.import_module(hook.FACTORY_MODULE)
        assert len(caplog.messages) == installed
        if installed:
            assert "LMCache's own launcher starts the plugins" in caplog.text

    def test_a_factory_that_fails_to_import_fails_as_before(
        self, make_engine: MakeEngine, tmp_path: Path
    ) -> None:
        """The factory's own error reaches vLLM, each time."""
        make_engine(entry_point=False)
        (tmp_path / FACTORY_FILE).write_text("raise ImportError('torch is broken')")
        hook.register()
        for _ in range(2):
            with pytest.raises(ImportError, match="torch is broken"):
                importlib.import_module(hook.FACTORY_MODULE)

    @pytest.mark.parametrize("arguments", [(), (None,), (object(),)])
    def test_unexpected_arguments_reach_vllm(
        self, make_engine: MakeEngine, arguments: tuple[object, ...]
    ) -> None:
        """The error is vLLM's own and says what is wrong with them."""
        with pytest.raises((TypeError, AttributeError)):
            make_engine("0.10").factory.create_connector(*arguments)

    def test_positional_arguments(
        self, make_engine: MakeEngine, launchers: MockedLaunchers
    ) -> None:
        """``MultiConnector`` of vLLM 0.10 passes positional arguments."""
        make_engine("0.10").factory.create_connector(VllmConfig(), KVConnectorRole.SCHEDULER)
        assert launchers.made[0].identity.worker_id == -1
        assert launchers.made[0].plugin_logger == "vllm.lmcache_plugins"
