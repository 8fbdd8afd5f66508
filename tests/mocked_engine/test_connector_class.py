# SPDX-License-Identifier: Apache-2.0
"""Connectors of others that are LMCache's by their class, whatever their name says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from engine_shapes import FACTORIES, Engine
from hooked_engine import hooked_engine
from mocked_launcher import MockedLaunchers

if TYPE_CHECKING:
    from pathlib import Path

V1 = "vllm.distributed.kv_transfer.kv_connector.v1"
CLASSES = f"""
from {V1}.lmcache_connector import LMCacheConnectorV1
from {V1}.mp import LMCacheMPConnector
from {V1}.nixl import NixlConnector
from lmcache.integration.vllm.lmcache_connector_v1 import LMCacheConnectorV1Dynamic

class Tiered(LMCacheConnectorV1):
    pass

class TieredAgain(Tiered):
    pass

class Dynamic(LMCacheConnectorV1Dynamic):
    pass

class Remote(LMCacheMPConnector):
    pass

class Other(NixlConnector):
    pass

def not_a_class(*arguments):
    return NixlConnector(*arguments)
"""
# LMCache up to 0.3.15 and vLLM 0.9 know no connectors by module path.
BY_PATH = FACTORIES[1:]


@pytest.fixture
def engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launchers: MockedLaunchers
) -> Iterator[Callable[..., Engine]]:
    """Return a function that starts an engine with a package of connectors beside it."""
    (tmp_path / "acme.py").write_text(CLASSES)
    with hooked_engine(tmp_path, monkeypatch, "acme") as start:
        yield start


def _by_path(name: str) -> dict[str, str]:
    return {"kv_connector": name, "kv_connector_module_path": "acme"}


@pytest.mark.parametrize("factory", BY_PATH)
@pytest.mark.parametrize("name", ["Tiered", "TieredAgain", "Dynamic"])
def test_a_subclass_is_recognised(
    launchers: MockedLaunchers, engine: Callable[[str], Engine], factory: str, name: str
) -> None:
    """Ours starts, LMCache's does not, and the connector's shutdown stops the plugins."""
    one = engine(factory)
    connector = one.create(**_by_path(name))
    (started,) = launchers.made
    started.launch_or_raise.assert_called_once_with()
    assert one.started_by_lmcache == []
    connector.shutdown()
    started.stop_plugins.assert_called_once_with(wait=False)


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_registered_subclass_is_recognised(
    launchers: MockedLaunchers, engine: Callable[[str], Engine], factory: str
) -> None:
    """As a vLLM plugin of others registers it."""
    one = engine(factory)
    one.factory.register_connector("AcmeConnector", "acme", "Tiered")
    one.create(kv_connector="AcmeConnector")
    assert [one.launch_or_raise.call_count for one in launchers.made] == [1]
    assert one.started_by_lmcache == []


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_subclass_inside_a_multi_connector_is_recognised(
    launchers: MockedLaunchers, engine: Callable[[str], Engine], factory: str
) -> None:
    """Its configuration is a mapping in the parent's."""
    one = engine(factory)
    one.factory.register_connector("AcmeConnector", "acme", "Tiered")
    children = {"connectors": [{"kv_connector": "AcmeConnector"}]}
    one.create(kv_connector="MultiConnector", kv_connector_extra_config=children)
    assert [one.launch_or_raise.call_count for one in launchers.made] == [1]
    assert one.started_by_lmcache == []


@pytest.mark.parametrize("factory", BY_PATH)
@pytest.mark.parametrize("name", ["Remote", "Other", "not_a_class"])
def test_others_are_left_alone(
    launchers: MockedLaunchers, engine: Callable[[str], Engine], factory: str, name: str
) -> None:
    """The multiprocess connector's subclass, another connector's, and no class at all."""
    one = engine(factory)
    connector = one.create(**_by_path(name))
    assert launchers.made == []
    assert "shutdown" not in vars(connector)


@pytest.mark.parametrize("factory", BY_PATH)
@pytest.mark.parametrize(
    ("text", "error"),
    [("raise RuntimeError('no GPU')", "no GPU"), ("raise SystemExit(3)", "3"), ("", "Tiered")],
)
def test_a_module_that_fails_fails_as_in_vllm(
    launchers: MockedLaunchers,
    engine: Callable[[str], Engine],
    tmp_path: Path,
    factory: str,
    text: str,
    error: str,
) -> None:
    """With vLLM's own error."""
    one = engine(factory)
    (tmp_path / "acme.py").write_text(text)
    with pytest.raises(BaseException, match=error):
        one.create(**_by_path("Tiered"))
    assert launchers.made == []
