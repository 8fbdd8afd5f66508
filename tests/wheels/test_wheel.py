"""The wheel that users install: its content, its metadata, and that it works on its own."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from cli_under_test import ROOT, Running, environment

import lmcache_plugin_adapter

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = ROOT / "lmcache_plugin_adapter"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with pip, which needs a package index for the build backend."""
    directory = tmp_path_factory.mktemp("wheel")
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory), str(ROOT)]
    subprocess.run([sys.executable, *build], check=True, timeout=100)
    (path,) = directory.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """It has the marker for type checkers, and no tests."""
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


def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """It works with only its own dependencies, away from the checkout."""
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
