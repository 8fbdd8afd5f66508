"""The pytest fixture ``run_plugin``: run a plugin under the real supervisor of a stand-in engine.

Runs in the author's tests. It imports pytest, ``contract`` and ``hosts.standin``. pytest loads it
as a plugin, so tests need no import::

    def test_it_says_hello(run_plugin):
        plugin = run_plugin("worker_hello.py", role="worker")
        assert plugin.wait_for("hello").level == "info"
        assert plugin.stop() == 0
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .trial import Trial

__all__ = ["RunPlugin", "run_plugin"]

RunPlugin: TypeAlias = "Callable[..., Trial]"
"""The type of the fixture, for annotations."""


@pytest.fixture
def run_plugin(tmp_path: Path) -> Iterator[RunPlugin]:
    """Run plugins like an engine; they and their engines stop with the test.

    Call it as :class:`.trial.Trial`, without ``directory``.
    """
    from .trial import Trial  # late: pytest loads this file for all tests

    with contextlib.ExitStack() as trials:
        count = itertools.count()

        def run(plugin: str | Path, **options: Any) -> Trial:
            trial = Trial(plugin, directory=tmp_path / f"engine-{next(count)}", **options)
            trials.callback(trial.stop)
            return trial.begin()

        yield run
