"""Importing the kit costs a plugin next to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[2]

STANDARD_LIBRARY = {
    # What an interpreter without site-packages has not loaded anyway: 'os' and 'signal'
    # with what they load; and 'select', a module in C.
    *("__future__", "_collections_abc", "_stat", "genericpath", "os", "os.path", "posixpath"),
    *("stat", "_collections", "_functools", "_operator", "collections", "enum", "functools"),
    *("itertools", "keyword", "operator", "reprlib", "select", "signal", "types", "_types"),
}
OWN = {
    "lmcache_plugin_adapter",
    "lmcache_plugin_adapter.kit",
    *(
        f"lmcache_plugin_adapter.kit.{name}"
        for name in ["chance", "context", "errors", "periodic", "printing", "running", "stopping"]
    ),
}

PROGRAM = """
import json, sys, time
sys.path.append(sys.argv[1])
import signal, select  # every plugin that ends well has them
before = set(sys.modules)
begun = time.process_time()
from lmcache_plugin_adapter import kit
seconds = time.process_time() - begun
print(json.dumps({"seconds": seconds, "modules": sorted(sys.modules)}))
"""
NAMES = """
import json, sys
sys.path.append(sys.argv[1])
before = set(sys.modules)
import lmcache_plugin_adapter.kit
print(json.dumps(sorted(set(sys.modules) - before)))
"""

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(program: str, *flags: str, cache: Path) -> Any:
    """Run a program in an interpreter without site-packages; return the JSON that it prints."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command: Sequence[str] = [sys.executable, *flags, "-S", "-c", program, str(ROOT)]
    result = subprocess.run(command, capture_output=True, check=True, env=environment)
    return json.loads(result.stdout)


def test_only_these_modules_are_loaded(tmp_path: Path) -> None:
    """And no others of this package: nothing of the supervisor, nothing from elsewhere."""
    loaded = set(run(NAMES, cache=tmp_path))
    assert loaded <= STANDARD_LIBRARY | OWN
    assert loaded >= OWN


def test_it_takes_a_few_milliseconds(tmp_path: Path) -> None:
    """Of processor time, once it is compiled; the best of some, as the machine is busy."""
    run(PROGRAM, cache=tmp_path)
    best = min(run(PROGRAM, cache=tmp_path)["seconds"] for _ in range(7))
    assert best < 0.008


def test_what_is_not_loaded_is_there_when_it_is_used(tmp_path: Path) -> None:
    """Every name that is promised, and no other."""
    program = (
        "import json, sys; sys.path.append(sys.argv[1]); from lmcache_plugin_adapter import kit;"
        "[getattr(kit, name) for name in kit.__all__];"
        "print(json.dumps(hasattr(kit, 'no_such_name')))"
    )
    assert run(program, cache=tmp_path) is False
