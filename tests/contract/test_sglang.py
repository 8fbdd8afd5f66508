# SPDX-License-Identifier: Apache-2.0
"""The hook into SGLang against the plugin and hook modules of a real wheel.

The wheel is unpacked without its dependencies: what creates LMCache's cache needs a GPU, so a
stand-in takes its place, whose arguments are compared with SGLang's source.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sglang_shapes import CACHE, PLUGINS, RANK, write_sglang

ROOT = Path(__file__).parents[2]
WHEEL = next(Path(os.environ.get("RING_HOME", "/nowhere")).glob("sglang-*"), Path("/nowhere"))

pytestmark = pytest.mark.skipif(not WHEEL.is_dir(), reason="no wheel of SGLang is unpacked")

PROGRAM = """\
import json, os, sys, time
cache = None
if sys.argv[2:]:
    load_plugins()
    cache = rank(sys.argv[1], tp_size=2, tp_rank=0)
    print("created", flush=True)
    sys.stdin.readline()
    cache.shutdown()
    print(json.dumps(cache.log), flush=True)
    sys.stdin.readline()
"""


def definition(file: str, *names: str) -> Any:
    """Return a class, or a method of it, in one of the wheel's sources."""
    node: Any = ast.parse((WHEEL / file).read_text())
    for name in names:
        node = next(one for one in node.body if getattr(one, "name", None) == name)
    return node


def keywords(function: Any) -> list[str]:
    """Return the names of a function's keyword-only arguments."""
    return [argument.arg for argument in function.args.kwonlyargs]


def test_the_cache_takes_what_the_stand_in_takes(tmp_path: Path) -> None:
    """And its registry passes what the hook reads by keyword."""
    write_sglang(tmp_path)
    stand_in = ast.parse((tmp_path / CACHE).read_text())
    (cache,) = [one for one in stand_in.body if getattr(one, "name", "").startswith("LMCache")]
    (ours,) = [one for one in cache.body if one.name == "__init__"]  # type: ignore[attr-defined]
    theirs = definition(CACHE, "LMCacheUnifiedRadixCache", "__init__")
    assert keywords(theirs) == keywords(ours)
    assert [one.arg for one in theirs.args.args] == [one.arg for one in ours.args.args]
    assert definition(CACHE, "LMCacheUnifiedRadixCache", "shutdown").args.kwonlyargs == []
    registry = ast.parse((WHEEL / "sglang/srt/mem_cache/registry.py").read_text())
    (call,) = [
        node
        for node in ast.walk(registry)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "LMCacheUnifiedRadixCache"
    ]
    assert sorted(str(one.arg) for one in call.keywords) == sorted(keywords(theirs))
    assert len(call.args) == 1


@pytest.mark.parametrize(
    ("file", "owner", "names"),
    [
        ("sglang/srt/runtime_context.py", "", ["get_parallel"]),
        ("sglang/srt/mem_cache/cache_init_params.py", "CacheInitParams", ["pp_rank", "pp_size"]),
        ("sglang/srt/managers/scheduler.py", "", ["run_scheduler_process"]),
    ],
)
def test_other_names_are_there(file: str, owner: str, names: list[str]) -> None:
    """Those that the hook reads."""
    body = definition(file, *filter(None, [owner])).body
    found = {
        getattr(one, "name", None) or getattr(getattr(one, "target", None), "id", None)
        for one in body
    }
    assert set(names) <= found


def test_plugins_are_loaded_first_in_a_rank() -> None:
    """Before anything imports the cache."""
    function = definition("sglang/srt/managers/scheduler.py", "run_scheduler_process")
    first = next(one for one in function.body if not isinstance(one.value, ast.Constant))
    assert first.value.func.id == "load_plugins"


def start(tmp_path: Path, *, allowed: str | None = None, create: bool = True) -> Any:
    """Start a rank's process whose plugin modules are the wheel's."""
    tree = tmp_path / "tree"
    write_sglang(tree, hooks=False)
    shutil.copytree(WHEEL / PLUGINS, tree / PLUGINS, dirs_exist_ok=True)
    shutil.copy(WHEEL / "sglang/srt/environ.py", tree / "sglang/srt/environ.py")
    info = tree / "lmcache_plugin_adapter-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-hook\nVersion: 0\n")
    group = '[project.entry-points."sglang.srt.plugins"]\n'
    line = (ROOT / "pyproject.toml").read_text().partition(group)[2].splitlines()[0]
    (info / "entry_points.txt").write_text(f"[sglang.srt.plugins]\n{line.replace(chr(34), '')}\n")
    (tmp_path / "plugins").mkdir()
    for name in ("worker_0_x.sh", "scheduler_x.sh"):
        (tmp_path / "plugins" / name).write_text(
            f"trap 'touch {tmp_path}/{name}.end; exit' TERM\n"
            f"touch {tmp_path}/{name}.up\nsleep 600 & wait\n"
        )
    config = tmp_path / "lmcache.yaml"
    config.write_text(json.dumps({"runtime_plugin_locations": [str(tmp_path / "plugins")]}))
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tree), str(ROOT)]),
        "LMCACHE_PLUGINS_RUNTIME_DIR": str(tmp_path / "run"),
    }
    environ.pop("SGLANG_PLUGINS", None)
    if allowed is not None:
        environ["SGLANG_PLUGINS"] = allowed
    return subprocess.Popen(
        [sys.executable, "-c", RANK + PROGRAM, str(config), *(["create"] if create else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
        text=True,
    )


def wait_for(*paths: Path) -> None:
    """Wait until files are there."""
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, paths
        time.sleep(0.05)


def test_plugins_run_with_the_cache(tmp_path: Path) -> None:
    """Found by the entry point, hooked by SGLang's registry, ended with the cache's shutdown."""
    names = ("worker_0_x.sh", "scheduler_x.sh")
    with start(tmp_path) as rank:
        assert rank.stdout.readline() == "created\n"
        wait_for(*(tmp_path / f"{name}.up" for name in names))
        rank.stdin.write("go on\n")
        rank.stdin.flush()
        assert json.loads(rank.stdout.readline()) == ["created", "shutdown"]
        wait_for(*(tmp_path / f"{name}.end" for name in names))
        rank.stdin.close()
        assert rank.wait(30) == 0


def test_sglangs_allow_list_keeps_us_out(tmp_path: Path) -> None:
    """``SGLANG_PLUGINS`` names the entry points that are loaded."""
    with start(tmp_path, allowed="another") as rank:
        assert rank.stdout.readline() == "created\n"
        rank.stdin.write("go on\n")
        rank.stdin.flush()
        assert json.loads(rank.stdout.readline()) == ["created", "shutdown"]
        rank.stdin.close()
        assert rank.wait(30) == 0
    assert not list(tmp_path.glob("*.up"))
