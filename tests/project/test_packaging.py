"""What people install: the wheel's content, its metadata, and that it works away from here."""

from __future__ import annotations

import ast
import email
import os
import re
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from cli_under_test import ROOT, Running, command, environment

import lmcache_plugin_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = ROOT / "lmcache_plugin_adapter"
ROOMS_MAY_IMPORT = {
    "cli": {"rich", "typer", "yaml"},
    "kit": {"httpx", "msgspec", "pytest"},
    "gallery": {
        "cramjam",
        "google",
        "httpx",
        "msgspec",
        "opentelemetry",
        "prometheus_client",
        "psutil",
        "pynvml",
    },
}
HOST = {"lmcache", "vllm"}


# One worker runs both tests of the wheel, so that it is built once.
wheel_group = pytest.mark.xdist_group("wheel")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as people and CI do. Needs a package index, for the build backend."""
    directory = tmp_path_factory.mktemp("wheel")
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory), str(ROOT)]
    subprocess.run([sys.executable, *build], check=True, timeout=100)
    (path,) = directory.glob("*.whl")
    return path


@wheel_group
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """With the marker for type checkers, without tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = email.message_from_bytes(
            archive.read(next(name for name in names if name.endswith("/METADATA")))
        )
        entry_points = archive.read(next(n for n in names if n.endswith("/entry_points.txt")))
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lmcache_plugin_adapter"}
    assert "lmcache_plugin_adapter/py.typed" in names
    assert {name for name in names if name.endswith(".py")} == {
        str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py")
    }
    assert metadata["Name"] == "lmcache-plugin-adapter"
    assert metadata["Version"] == lmcache_plugin_adapter.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    core = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert {re.split(r"[^\w.-]", text)[0] for text in core} == {"PyYAML", "rich", "typer"}
    assert set(metadata.get_all("Provides-Extra", [])) == {"gallery", "test", "vllm"}
    assert b"lmcache-plugins=lmcache_plugin_adapter.cli.main:main" in entry_points.replace(
        b" ", b""
    )


@wheel_group
def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """With what it asks for and nothing of this environment, away from the checkout."""
    empty = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", empty], check=True, timeout=60)
    (packages,) = empty.glob("lib/python*/site-packages")
    install = ["-m", "pip", "install", "--quiet", "--no-compile", "--target", str(packages)]
    subprocess.run([sys.executable, *install, wheel], check=True, timeout=100)
    assert os.access(packages / "bin" / "lmcache-plugins", os.X_OK)
    (tmp_path / "all_x.sh").write_text("echo hello\n")
    (tmp_path / "lmcache.yaml").write_text("runtime_plugin_locations: [all_x.sh]\n")
    program = (str(empty / "bin" / "python"), "-m", "lmcache_plugin_adapter")
    env = {"LMCACHE_CONFIG_FILE": "lmcache.yaml", "PYTHONPATH": ""}
    subprocess.run(
        [*program, "check", "--strict"], env=environment(**env), cwd=tmp_path, check=True
    )
    with Running(tmp_path, cwd=tmp_path, env=env, program=program) as running:
        running.until_logged("[all_x] hello", times=2)
        assert running.stop() == 0


def test_the_version_is_said() -> None:
    """By the command, too."""
    result = command("--version")
    assert result.stdout == f"lmcache-plugins {lmcache_plugin_adapter.__version__}\n"
    assert result.returncode == 0


def imports(path: Path) -> Iterator[str]:
    """Yield the top-level names of what a module imports when it runs."""
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
    """Engine and supervisor must cost nothing; the host's own modules are the hook's affair."""
    foreign = set(imports(path)) - sys.stdlib_module_names - {"lmcache_plugin_adapter"} - HOST
    room = path.parent.relative_to(PACKAGE).parts[:1]
    assert foreign <= ROOMS_MAY_IMPORT.get(room[0] if room else "", set())


def test_no_module_is_long() -> None:
    """One concern each, readable in one go."""
    assert [p.name for p in PACKAGE.rglob("*.py") if len(p.read_text().splitlines()) > 400] == []


def test_the_command_starts_fast() -> None:
    """What one command needs does not slow the others down."""
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
