# SPDX-License-Identifier: Apache-2.0
"""The pytest fixture ``run_plugin``: run a plugin under the real supervisor of a stand-in engine.

Runs in the author's tests. It imports pytest, ``contract``, the planner's file names
and ``hosts.standin``. pytest loads it
as a plugin, so tests need no import::

    def test_it_says_hello(run_plugin):
        plugin = run_plugin("worker_hello.py")
        assert plugin.wait_for("hello").level == "info"
        assert plugin.stop() == 0
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .trial import Trial

__all__ = ["RunPlugin", "run_plugin"]


class RunPlugin(Protocol):
    """The type of the fixture, for annotations; :class:`.trial.Trial` explains the arguments."""

    def __call__(
        self,
        plugin: str | Path,
        *,
        role: str | None = None,
        worker_id: int = -1,
        worker_count: int = 1,
        config: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        env: Mapping[str, str | None] | None = None,
        stop_grace: float = 5,
        restart: str = "never",
        name: str | None = None,
    ) -> Trial:
        """Run a plugin; return when it has started."""


@pytest.fixture
def run_plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunPlugin]:
    """Run plugins like an engine; they and their engines stop with the test.

    Call it as :class:`.trial.Trial`, without ``directory``.
    """
    from .trial import Trial  # late: pytest loads this file for all tests

    with contextlib.ExitStack() as trials:
        # Not in tmp_path, which is the author's.
        directory = tmp_path_factory.mktemp("engines")
        count = itertools.count()

        def run(plugin: str | Path, **options: Any) -> Trial:
            trial = Trial(plugin, directory=directory / f"engine-{next(count)}", **options)
            trials.callback(trial.stop)
            return trial.begin()

        yield run
