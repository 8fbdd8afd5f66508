# SPDX-License-Identifier: Apache-2.0
"""Importing the kit costs a plugin next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lmcache_plugin_adapter import kit

ROOT = Path(__file__).parents[2]

STANDARD_LIBRARY = {
    # What an interpreter without site-packages has not loaded anyway: 'os' and 'signal'
    # with what they load (from 3.14 on, also 'abc' and 'errno'); and 'select', a module in C.
    *("__future__", "_collections_abc", "_stat", "genericpath", "os", "os.path", "posixpath"),
    *("stat", "_collections", "_functools", "_operator", "collections", "enum", "functools"),
    *("itertools", "keyword", "operator", "reprlib", "select", "signal", "types", "_types"),
    *("_abc", "abc", "errno"),
}
OWN = {
    "lmcache_plugin_adapter",
    "lmcache_plugin_adapter.contract",
    "lmcache_plugin_adapter.contract.plugin_states",
    "lmcache_plugin_adapter.contract.variables",
    "lmcache_plugin_adapter.contract.version",
    "lmcache_plugin_adapter.kit",
    *(
        f"lmcache_plugin_adapter.kit.{name}"
        for name in [
            *("chance", "context", "errors", "notifying"),
            *("periodic", "printing", "running", "stopping"),
        ]
    ),
}

SECONDS = """
import sys, time
sys.path.append(sys.argv[1])
import signal, select  # every plugin that ends well has them
begun = time.process_time()
from lmcache_plugin_adapter import kit
print(time.process_time() - begun)
"""
MODULES = """
import sys
sys.path.append(sys.argv[1])
before = set(sys.modules)
import lmcache_plugin_adapter.kit
print(*(set(sys.modules) - before))
"""
NAMES = """
import sys
sys.path.append(sys.argv[1])
from lmcache_plugin_adapter import kit
names = [name for name in kit.__all__ if name not in sys.argv[2:]]
print(*(getattr(kit, name).__name__ for name in names), hasattr(kit, "no_such_name"))
"""


NEED_MSGSPEC = ("Duration", "Size")
"""Types of fields of a ``msgspec.Struct``."""


def run(program: str, cache: Path) -> list[str]:
    """Run a program in an interpreter without site-packages; return the words that it prints."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-S", "-c", program, str(ROOT), *NEED_MSGSPEC]
    result = subprocess.run(command, capture_output=True, check=True, env=environment, text=True)
    return result.stdout.split()


def test_only_these_modules_are_loaded(tmp_path: Path) -> None:
    """And no others of this package: nothing of the supervisor, nothing from elsewhere."""
    loaded = set(run(MODULES, tmp_path))
    assert loaded <= STANDARD_LIBRARY | OWN
    assert loaded >= OWN


def test_it_takes_a_few_milliseconds(tmp_path: Path) -> None:
    """Of processor time, once it is compiled; the best of some, as the machine is busy."""
    run(SECONDS, tmp_path)
    best = min(float(run(SECONDS, tmp_path)[0]) for _ in range(7))
    assert best < 0.008


def test_what_is_not_loaded_is_there_when_it_is_used(tmp_path: Path) -> None:
    """Every name that is promised, and no other."""
    names = run(NAMES, tmp_path)
    assert names == [*(name for name in kit.__all__ if name not in NEED_MSGSPEC), "False"]
    for name in NEED_MSGSPEC:
        assert getattr(kit, name)
