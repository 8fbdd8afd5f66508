# SPDX-License-Identifier: Apache-2.0
"""A connector's ``shutdown`` stops the plugins first and does not wait for them."""

from __future__ import annotations

import gc
import importlib
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from engine_shapes import Engine

from lmcache_plugin_adapter.engine.launcher import RuntimePluginLauncher
from lmcache_plugin_adapter.hosts.vllm import connector_takeover

if TYPE_CHECKING:
    from mocked_launcher import MockedLaunchers

MakeEngine = Callable[..., Engine]


def test_shutdown_stops_the_plugins_and_then_runs_vllms(
    make_engine: MakeEngine, launchers: MockedLaunchers, factory: str
) -> None:
    """In vLLM 0.9, a connector has no ``shutdown`` and gets none."""
    connector = make_engine(factory).create()
    if factory == "0.9":
        assert not hasattr(connector, "shutdown")
        return
    (started,) = launchers.made
    started.stop_plugins.side_effect = lambda wait: connector.log.append(f"stop, wait={wait}")
    connector.shutdown()
    assert connector.log == ["stop, wait=False", "shutdown"]


def test_our_errors_do_not_keep_vllms_shutdown_from_running(
    make_engine: MakeEngine, launchers: MockedLaunchers, caplog: pytest.LogCaptureFixture
) -> None:
    """They are logged."""
    connector = make_engine().create()
    launchers.made[0].stop_plugins.side_effect = OSError("broken")
    connector.shutdown()
    assert connector.log == ["shutdown"]
    assert "broken" in caplog.text


@pytest.mark.parametrize("exit_type", [SystemExit, KeyboardInterrupt])
def test_an_exit_raised_by_a_signal_handler_passes(
    make_engine: MakeEngine, launchers: MockedLaunchers, exit_type: type[BaseException]
) -> None:
    """A worker of vLLM exits by a ``SystemExit`` that a signal handler raises."""
    connector = make_engine().create()
    launchers.made[0].stop_plugins.side_effect = exit_type()
    with pytest.raises(exit_type):
        connector.shutdown()


def test_vllms_own_errors_pass(
    make_engine: MakeEngine, launchers: MockedLaunchers, mocker: Any
) -> None:
    """The errors of its own ``shutdown`` reach vLLM."""
    engine = make_engine()
    base = importlib.import_module("vllm.distributed.kv_transfer.kv_connector.base")
    mocker.patch.object(
        base.KVConnectorBase, "shutdown", autospec=True, side_effect=OSError("vllm")
    )
    connector = engine.create()
    with pytest.raises(OSError, match="vllm"):
        connector.shutdown()
    launchers.made[0].stop_plugins.assert_called_once_with(wait=False)


def test_a_connector_that_takes_no_attribute(mocker: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The plugins then end with the process, and the log says so."""

    class Slotted:
        __slots__ = ()

        def shutdown(self) -> None: ...

    launcher = mocker.create_autospec(RuntimePluginLauncher, instance=True)
    connector_takeover._stop_on_shutdown(Slotted(), launcher)
    assert "end with this process" in caplog.text


def test_the_connector_can_be_collected(make_engine: MakeEngine) -> None:
    """The adapter keeps no connector alive."""
    connector = make_engine().create()
    collected = weakref.ref(connector)
    del connector
    gc.collect()
    assert collected() is None
