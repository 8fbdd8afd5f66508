# SPDX-License-Identifier: Apache-2.0
"""An engine in the test's own process, with the hook in place and trees that a test changes."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING, Any

from engine_shapes import Engine, lmcache_settings, write_lmcache, write_vllm

from lmcache_plugin_adapter.hosts.vllm import hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest


def _forget(*packages: str) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in packages or name in (
            "lmcache_plugin_adapter.connector",
            "lmcache_plugin_adapter.hosts.vllm.connector",
            "lmcache_plugin_adapter.hosts.vllm.connector_takeover",
        ):
            del sys.modules[name]
    importlib.invalidate_caches()


@contextlib.contextmanager
def hooked_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *others: str
) -> Iterator[Callable[..., Engine]]:
    """Yield a function that writes the trees of vLLM and LMCache and starts an engine.

    Its arguments are the shapes of the two, and a function that changes the trees before the
    hook runs. ``others`` are packages of the test beside them.
    """
    finders = list(sys.meta_path)
    monkeypatch.setenv("FAKE_LMCACHE_CONFIG", lmcache_settings(["/plugins"]))
    monkeypatch.syspath_prepend(str(tmp_path))

    def start(
        factory: str = "0.22", launcher: str = "0.3.15", change: Callable[[], Any] | None = None
    ) -> Engine:
        write_vllm(tmp_path, factory)
        write_lmcache(tmp_path, launcher)
        if change is not None:
            change()
        _forget("vllm", "lmcache", *others)
        hook.register()
        return Engine()

    yield start
    sys.meta_path[:] = finders
    _forget("vllm", "lmcache", *others)
