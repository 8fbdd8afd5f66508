# SPDX-License-Identifier: Apache-2.0
"""The adapter takes a connector's plugins over: each starts once, with the right settings."""

from __future__ import annotations

import importlib
import json
import logging
import os
import threading
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from engine_shapes import Engine, lmcache_settings
from vllm_config_shapes import VllmConfig, parallel_config

from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.hosts.vllm import connector_takeover

if TYPE_CHECKING:
    from mocked_launcher import MockedLaunchers

MakeEngine = Callable[..., Engine]
ROLES = ("SCHEDULER", "WORKER")


class TestOnce:
    """The adapter's launcher starts the plugins, and LMCache's does not."""

    @pytest.mark.parametrize("role", ROLES)
    def test_ours_starts_and_lmcaches_does_not(
        self,
        make_engine: MakeEngine,
        launchers: MockedLaunchers,
        factory: str,
        lmcache: str,
        role: str,
    ) -> None:
        """So it is in each shape of both projects, for each role."""
        engine = make_engine(factory, lmcache)
        engine.parallel = parallel_config(rank=1, tensor_parallel_size=2)
        engine.create(role)
        assert engine.started_by_lmcache == []
        (started,) = launchers.made
        started.launch_or_raise.assert_called_once_with()
        worker_id = 1 if role == "WORKER" else -1
        assert started.identity == ProcessIdentity(Role[role], worker_id, 2)
        assert started.config.runtime_plugin_locations == ["/plugins"]
        assert "/plugins" in started.config.to_json()

    @pytest.mark.usefixtures("failing_lmcache")
    def test_a_failed_engine_still_gets_its_plugins(
        self, make_engine: MakeEngine, launchers: MockedLaunchers, factory: str
    ) -> None:
        """An alert plugin is needed just then; LMCache starts none."""
        make_engine(factory).create()
        (started,) = launchers.made
        started.launch_or_raise.assert_called_once_with()

    def test_two_roles_in_one_process(
        self, make_engine: MakeEngine, launchers: MockedLaunchers, factory: str
    ) -> None:
        """With the uniproc executor, vLLM makes both connectors in one process."""
        engine = make_engine(factory)
        engine.create("WORKER")
        engine.create("SCHEDULER")
        assert [one.identity for one in launchers.made] == [
            ProcessIdentity(Role.WORKER, 0, 1),
            ProcessIdentity(Role.SCHEDULER, -1, 1),
        ]
        assert engine.started_by_lmcache == []

    def test_a_held_launcher_stays_held(
        self, make_engine: MakeEngine, launchers: MockedLaunchers
    ) -> None:
        """LMCache may start its services again later."""
        engine = make_engine()
        connector = engine.create()
        connector._lmcache_engine.launcher.launch_plugins()
        assert engine.started_by_lmcache == []
        assert len(launchers.made) == 1

    def test_other_launchers_of_lmcache_are_not_held(self, make_engine: MakeEngine) -> None:
        """LMCache's multiprocess server makes a launcher apart from any connector."""
        engine = make_engine()
        engine.create()
        module = importlib.import_module("lmcache.v1.plugin.runtime_plugin_launcher")
        config = types.SimpleNamespace(runtime_plugin_locations=["/other"])
        module.RuntimePluginLauncher(config, None, 1, 0).launch_plugins()
        assert len(engine.started_by_lmcache) == 1

    def test_a_creation_in_another_thread_holds_only_its_own(
        self, make_engine: MakeEngine, launchers: MockedLaunchers, mocker: Any
    ) -> None:
        """Two connectors that are created at once each have their launcher held."""
        engine = make_engine()
        engine.create()
        meeting = threading.Barrier(2, timeout=10)
        adapter = importlib.import_module("lmcache.integration.vllm.vllm_v1_adapter")
        mocker.patch.object(
            adapter,
            "apply_extra_config",
            autospec=True,
            side_effect=lambda *_: meeting.wait() and None,
        )
        threads = [threading.Thread(target=engine.create, args=(role,)) for role in ROLES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(launchers.made) == 3
        assert engine.started_by_lmcache == []

    def test_a_forked_child_is_not_in_its_parents_creation(
        self, make_engine: MakeEngine, mocker: Any
    ) -> None:
        """The child inherits the list of creations, not the creation."""
        make_engine()
        with connector_takeover.begin_takeover(VllmConfig(), "worker"):
            assert connector_takeover._current() is not None
            mocker.patch.object(os, "getpid", autospec=True, return_value=1)
            assert connector_takeover._current() is None


class TestConfiguration:
    """The launcher gets the configuration that LMCache ends up with."""

    def test_keys_from_the_connectors_extra_config(
        self, make_engine: MakeEngine, launchers: MockedLaunchers, factory: str, lmcache: str
    ) -> None:
        """``lmcache.*`` keys replace what the YAML says, the adapter's settings included."""
        engine = make_engine(factory, lmcache, lmcache_settings(None, enabled=False))
        extra = {
            "lmcache.locations": ["/from-vllm"],
            "lmcache.extra_config": {"runtime_plugins": {"enabled": True}},
        }
        engine.create(kv_connector_extra_config=extra)
        (started,) = launchers.made
        assert started.config.runtime_plugin_locations == ["/from-vllm"]
        assert engine.started_by_lmcache == []

    def test_no_locations_no_launcher(
        self, make_engine: MakeEngine, launchers: MockedLaunchers, lmcache: str
    ) -> None:
        """Without locations in either place, nothing starts."""
        engine = make_engine(lmcache=lmcache, config=lmcache_settings(None))
        connector = engine.create()
        assert launchers.made == []
        assert engine.started_by_lmcache == []
        assert "shutdown" not in vars(connector)

    def test_locations_in_our_settings_only(
        self, make_engine: MakeEngine, launchers: MockedLaunchers, lmcache: str
    ) -> None:
        """``extra_config.runtime_plugins.locations`` is enough."""
        make_engine(lmcache=lmcache, config=lmcache_settings(None, locations=["/x"])).create()
        assert len(launchers.made) == 1

    @pytest.mark.parametrize("extra", ["text", ["list"], 3, {"runtime_plugins": "text"}])
    def test_malformed_settings_do_not_keep_plugins_from_starting(
        self, make_engine: MakeEngine, launchers: MockedLaunchers, extra: object
    ) -> None:
        """The supervisor reports what is wrong in them."""
        engine = make_engine(config=json.dumps({"locations": ["/plugins"], "extra_config": extra}))
        engine.create()
        assert len(launchers.made) == 1
        assert engine.started_by_lmcache == []


class TestDataParallel:
    """Plugins run in the node's first replica, or in each one."""

    @pytest.mark.parametrize(
        ("policy", "replica", "runs"),
        [("local-rank-0", 0, 1), ("local-rank-0", 1, 0), ("all", 0, 1), ("all", 1, 1)],
    )
    @pytest.mark.parametrize("native", [False, True])
    def test_policy(
        self,
        make_engine: MakeEngine,
        launchers: MockedLaunchers,
        policy: str,
        replica: int,
        runs: int,
        native: bool,
    ) -> None:
        """Replicas of a dense model call themselves 0 of 1; LMCache's launcher starts in none.

        vLLM's native integration would start LMCache's in each of them.
        """
        engine = make_engine(config=lmcache_settings(["/plugins"], data_parallel=policy))
        engine.parallel = parallel_config(
            data_parallel_rank_local=replica, data_parallel_index=replica
        )
        engine.create(kv_connector_extra_config={"use_native": native})
        assert [one.identity.dp_rank for one in launchers.made] == [replica] * runs
        for one in launchers.made:
            one.launch_or_raise.assert_called_once_with()
        assert engine.started_by_lmcache == []

    def test_the_log_says_where_they_run(
        self, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The line names the setting that changes it."""
        caplog.set_level(logging.INFO)
        engine = make_engine()
        engine.parallel = parallel_config(data_parallel_rank_local=3)
        engine.create()
        (line,) = caplog.messages
        assert "not in replica 3" in line
        assert "extra_config.runtime_plugins.data_parallel" in line
