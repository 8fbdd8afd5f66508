# SPDX-License-Identifier: Apache-2.0
"""The package as it is installed: its version, what its modules import, how large they are."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cli_under_test import ROOT, command

import lmcache_plugin_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = ROOT / "lmcache_plugin_adapter"
ROOMS_MAY_IMPORT = {
    "cli": {"rich", "typer", "yaml"},
    "kit": {"httpx", "msgspec", "pytest"},
    "gallery": {
        "certifi",
        "cramjam",
        "google",
        "msgspec",
        "opentelemetry",
        "prometheus_client",
        "psutil",
        "pynvml",
    },
}
HOST = {"lmcache", "vllm"}


def test_the_command_prints_the_version() -> None:
    """The command prints the package's version."""
    result = command("--version")
    assert result.stdout == f"lmcache-plugins {lmcache_plugin_adapter.__version__}\n"
    assert result.returncode == 0


def imports(path: Path) -> Iterator[str]:
    """Yield the top-level names of all that a module imports at run time."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_only_the_tools_import_more_than_the_standard_library(path: Path) -> None:
    """Engine and supervisor load no other packages; only the hook loads the host's modules."""
    foreign = set(imports(path)) - sys.stdlib_module_names - {"lmcache_plugin_adapter"} - HOST
    room = path.parent.relative_to(PACKAGE).parts[:1]
    assert foreign <= ROOMS_MAY_IMPORT.get(room[0] if room else "", set())


def test_no_module_is_long() -> None:
    """Each module has one concern and at most 400 lines."""
    assert [p.name for p in PACKAGE.rglob("*.py") if len(p.read_text().splitlines()) > 400] == []


def test_the_command_starts_fast() -> None:
    """The command line loads no module that only some commands need."""
    code = "import sys, lmcache_plugin_adapter.cli.main; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"yaml", "rich.table", "lmcache_plugin_adapter.planner.plan"} & set(loaded)
