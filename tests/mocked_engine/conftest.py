# SPDX-License-Identifier: Apache-2.0
"""Set-up of the mocked engine: a vLLM and an LMCache of some version's shape, and our launcher."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_shapes import (
    FACTORIES,
    LAUNCHERS,
    Engine,
    lmcache_settings,
    write_lmcache,
    write_vllm,
)
from mocked_launcher import MockedLaunchers

from lmcache_plugin_adapter.hosts.vllm import hook

MakeEngine = Callable[..., Engine]


def _forget_modules() -> None:
    """Have vLLM, LMCache and the modules that import them imported anew."""
    for name in list(sys.modules):
        if name.partition(".")[0] in ("vllm", "lmcache"):
            del sys.modules[name]
    for name in ("connector", "hosts.vllm.connector"):
        sys.modules.pop(f"lmcache_plugin_adapter.{name}", None)
    importlib.invalidate_caches()


@pytest.fixture
def make_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launchers: MockedLaunchers
) -> Iterator[MakeEngine]:
    """Return a function that writes both trees and runs the entry point as vLLM does."""
    finders = list(sys.meta_path)

    def make(
        factory: str = FACTORIES[-1],
        lmcache: str = LAUNCHERS[-1],
        config: str | None = None,
        entry_point: bool = True,
    ) -> Engine:
        write_vllm(tmp_path, factory)
        write_lmcache(tmp_path, lmcache)
        monkeypatch.setenv("FAKE_LMCACHE_CONFIG", config or lmcache_settings(["/plugins"]))
        monkeypatch.syspath_prepend(str(tmp_path))
        _forget_modules()
        if entry_point:
            hook.register()
        return Engine()

    yield make
    sys.meta_path[:] = finders
    _forget_modules()


@pytest.fixture
def failing_lmcache(monkeypatch: pytest.MonkeyPatch) -> None:
    """LMCache's engine fails to start, as on a machine without a GPU."""
    monkeypatch.setenv("FAKE_LMCACHE_FAILS", "1")


@pytest.fixture(params=FACTORIES)
def factory(request: pytest.FixtureRequest) -> str:
    """Each shape of vLLM's factory."""
    return str(request.param)


@pytest.fixture(params=LAUNCHERS)
def lmcache(request: pytest.FixtureRequest) -> str:
    """Each shape of LMCache's launcher."""
    return str(request.param)
