# SPDX-License-Identifier: Apache-2.0
"""The hook into SGLang: plugins of each rank that uses LMCache, in real processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Engine, gone
from sglang_shapes import RANK, write_sglang

NAMES = "ROLE|WORKER_ID|WORKER_COUNT|DP_RANK|DP_SIZE"
SHOW = f"""\
env | sed -nE 's/^LMCACHE_RUNTIME_PLUGIN_({NAMES})=/\\1=/p' | sort | tr '\\n' ' '
echo up
exec sleep 600
"""

Rank = Callable[..., Engine]


@pytest.fixture
def rank(
    engine: Callable[..., Engine],
    plugin: Callable[..., Path],
    plugins: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Rank:
    """Return a function that starts a rank's process; its cache is ``cache`` there."""
    write_sglang(tmp_path / "tree")
    plugin("all_x.sh", SHOW)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "tree"), prepend=os.pathsep)

    def start(
        values: dict[str, Any] | None = None,
        settings: Any = None,
        create: bool = True,
        **where: Any,
    ) -> Engine:
        config = {
            "runtime_plugin_locations": [str(plugins)],
            "extra_config": {"runtime_plugins": settings or {}},
            **(values or {}),
        }
        (tmp_path / "lmcache.yaml").write_text(json.dumps(config))
        one = engine(launch=False, prelude=RANK)
        one.do("load_plugins()")
        if create:
            one.do(f"cache = rank({str(tmp_path / 'lmcache.yaml')!r}, **{where!r})")
            assert one.do("cache.log") == ["created"]
        return one

    return start


def told(one: Engine, number: int) -> list[str]:
    """Return what so many plugins were told."""
    one.wait_for(lambda: one.log().count("] ") and len(one.texts("all_x")) >= number, 30)
    return sorted(text.removesuffix(" up") for text in one.texts("all_x"))


def test_a_single_rank_is_scheduler_and_worker(rank: Rank) -> None:
    """Both sets run, and stop with the cache's shutdown, which is SGLang's as before."""
    one = rank()
    assert told(one, 2) == [
        "DP_RANK=0 DP_SIZE=1 ROLE=SCHEDULER WORKER_COUNT=1 WORKER_ID=-1",
        "DP_RANK=0 DP_SIZE=1 ROLE=WORKER WORKER_COUNT=1 WORKER_ID=0",
    ]
    pids = [
        one.do(f"cache._lmcache_plugin_adapter_launchers[{n}].status(20)")["plugins"][0]["pid"]
        for n in (0, 1)
    ]
    one.do("cache.shutdown()")
    one.wait_for(lambda: all(gone(pid) for pid in pids), 30)
    assert one.do("cache.log") == ["created", "shutdown"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"tp_size": 2, "tp_rank": 1, "pp_size": 2, "pp_rank": 1}, "COUNT=4 WORKER_ID=3"),
        ({"tp_size": 2, "tp_rank": 0, "pp_size": 2, "pp_rank": 1}, "COUNT=4 WORKER_ID=2"),
        (
            {"tp_size": 4, "tp_rank": 3, "dp_rank": 1, "num_dp_ranks": 2, "attn_dp_size": 2},
            "COUNT=4 WORKER_ID=3",
        ),
    ],
)
def test_another_rank_is_a_worker_only(rank: Rank, where: dict[str, int], expected: str) -> None:
    """Its id is pp rank times tp size, plus tp rank."""
    (text,) = told(rank(**where), 1)
    assert text.endswith(expected)
    assert "ROLE=WORKER" in text


def test_replicas(rank: Rank) -> None:
    """The first one's plugins run; with ``data_parallel: all`` those of each."""
    where = {"tp_size": 2, "tp_rank": 1, "dp_rank": 1, "num_dp_ranks": 3}
    one = rank(**where)
    assert "cache" in one.do("list(globals())")
    assert one.do("hasattr(cache, '_lmcache_plugin_adapter_launchers')") is False
    two = rank(settings={"data_parallel": "all"}, **where)
    (text,) = told(two, 1)
    assert text.startswith("DP_RANK=1 DP_SIZE=3")


@pytest.mark.parametrize(
    "values",
    [
        {"runtime_plugin_locations": None},
        {"extra_config": {"runtime_plugins": {"enabled": False}}},
        {"extra_config": None, "runtime_plugin_locations": []},
    ],
)
def test_off_unless_locations_are_set(rank: Rank, values: dict[str, Any]) -> None:
    """Nothing starts, and the cache works."""
    one = rank(values)
    assert one.do("hasattr(cache, '_lmcache_plugin_adapter_launchers')") is False
    one.do("cache.shutdown()")
    assert one.do("cache.log") == ["created", "shutdown"]


def test_processes_without_the_cache_import_nothing(rank: Rank) -> None:
    """As SGLang's tokenizer and detokenizer, and each rank without ``--enable-lmcache``."""
    one = rank(create=False)
    loaded = one.do("[name for name in __import__('sys').modules if 'lmcache' in name]")
    assert not [name for name in loaded if not name.startswith("lmcache_plugin_adapter")]
    assert "lmcache_plugin_adapter.hosts.sglang.plugins" not in loaded


def test_what_goes_wrong_never_reaches_sglang(rank: Rank, tmp_path: Path) -> None:
    """One line; the cache is there and can be shut down."""
    one = rank(create=False)
    one.do("cache = rank('/nowhere/lmcache.yaml')")
    assert one.do("cache.log") == ["created"]
    one.wait_log("Runtime plugins of this rank do not run: .*nowhere", 20)
    one.do("cache.shutdown()")


def test_a_stop_that_fails_is_reported_as_such(rank: Rank) -> None:
    """The plugins run on, and SGLang's shutdown does too."""
    one = rank()
    assert len(told(one, 2)) == 2
    one.do("cache._lmcache_plugin_adapter_launchers.append(None)")
    one.do("cache.shutdown()")
    one.wait_log("Cannot stop the runtime plugins of this rank; they stop when it exits: ", 20)
    assert one.do("cache.log") == ["created", "shutdown"]
    assert "do not run" not in one.log()


def test_log_logging_uses_a_logger_of_sglang(rank: Rank, tmp_path: Path) -> None:
    """So that SGLang's logging configuration applies to plugins' lines."""
    one = rank(settings={"log": "logging"}, create=False)
    one.do(
        "import logging\n"
        "handler = logging.StreamHandler()\n"
        "handler.setFormatter(logging.Formatter('via %(name)s %(message)s'))\n"
        "sglang = logging.getLogger('sglang')\n"
        "sglang.setLevel('INFO')\n"
        "sglang.addHandler(handler)\n"
        f"cache = rank({str(tmp_path / 'lmcache.yaml')!r}, tp_size=2, tp_rank=1)"
    )
    one.wait_log(r"via sglang\.lmcache_plugins \[all_x\] .*up", 30)


def test_loading_twice_registers_once(rank: Rank) -> None:
    """SGLang calls it in each process; others may again."""
    one = rank()
    one.do("load_plugins(); load_plugins()")
    assert len(told(one, 2)) == 2
    assert (
        one.do(
            "len(__import__('sglang.srt.plugins.hook_registry', fromlist='x').HookRegistry.hooks)"
        )
        == 2
    )
