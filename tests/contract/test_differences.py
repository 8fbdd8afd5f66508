# SPDX-License-Identifier: Apache-2.0
"""LMCache's own filter of file names against the rule that ``check`` compares with."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from lmcache_plugin_adapter.cli.check.lmcache_rule import lmcache_runs
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.hosts.vllm import lmcache_launcher

NAMES = [
    f"{stem}{extension}"
    for stem in (
        *("worker_1", "worker_1_x", "WORKER_0_x", "all_0", "all_0_x", "worker_00_x", "worker"),
        *("scheduler_0", "scheduler_0_x", "scheduler", "scheduler_x", "utils", "foo_plugin"),
        *("all", "all_x", "worker_x_1", "server_x", "woker_x", "a_b_c"),
    )
    for extension in (".py", ".sh")
]
PROCESSES = [ProcessIdentity(Role.SCHEDULER, -1, 2)]
PROCESSES += [ProcessIdentity(Role.WORKER, rank, 2) for rank in (0, 1)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("identity", PROCESSES, ids=lambda one: one.label)
def test_the_rule_is_lmcaches(tmp_path: Path, name: str, identity: ProcessIdentity) -> None:
    """LMCache starts the file exactly if the rule says so."""
    launcher_class = lmcache_launcher.find_launcher()
    assert launcher_class is not None
    assert identity.role is not None
    launcher = launcher_class(None, identity.role.value, 2, identity.worker_id)
    if not hasattr(launcher, "_should_skip_plugin"):
        pytest.skip("this LMCache decides elsewhere")
    assert len(inspect.signature(launcher._should_skip_plugin).parameters) == 2
    parts = Path(name).stem.lower().split("_")
    starts = not launcher._should_skip_plugin(tmp_path / name, parts)
    assert starts is lmcache_runs(name, identity)


@pytest.mark.parametrize("number", [0, 1])
def test_a_scheduler_with_an_engine(tmp_path: Path, number: int) -> None:
    """With ``enable_scheduler_bypass_lookup`` its id is 0."""
    launcher_class = lmcache_launcher.find_launcher()
    assert launcher_class is not None
    launcher = launcher_class(None, "scheduler", 1, 0)
    if not hasattr(launcher, "_should_skip_plugin"):
        pytest.skip("this LMCache decides elsewhere")
    name = f"scheduler_{number}_x.py"
    starts = not launcher._should_skip_plugin(tmp_path / name, ["scheduler", str(number), "x"])
    identity = ProcessIdentity(Role.SCHEDULER, -1, 1)
    assert starts is lmcache_runs(name, identity, has_engine=True)
