# SPDX-License-Identifier: Apache-2.0
"""What the tests of the kit share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lmcache_plugin_adapter import kit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def stop() -> Iterator[kit.Stop]:
    """A stop that gives the signals back afterwards."""
    stop = kit.Stop(a_context())
    yield stop
    stop.close()


@pytest.fixture
def context() -> Callable[..., kit.Context]:
    """Make a context: ``context({"interval": 5})`` with settings of its own."""
    return a_context


def a_context(settings: object = None, **fields: Any) -> kit.Context:
    """Return the context of ``worker_x`` on worker 0, with settings of its own."""
    own = {"plugins": {"worker_x": {"settings": settings}}}
    given = {
        "role": "WORKER",
        "worker_id": 0,
        "worker_count": 1,
        "name": "worker_x",
        "config": {"extra_config": {"runtime_plugins": own}},
    }
    return kit.Context(**{**given, **fields})
