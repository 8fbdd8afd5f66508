# SPDX-License-Identifier: Apache-2.0
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
    assert set(metadata.get_all("Provides-Extra", [])) == {"docs", "gallery", "kit", "test", "vllm"}
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


def test_the_lowest_versions_of_the_dependencies_work(wheel: Path, tmp_path: Path) -> None:
    """The bounds in pyproject.toml are versions with which the commands and their help work."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(
            archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA")))
        )
    required = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    lowest = [re.sub(r"\s*>=\s*", "==", text) for text in required]
    assert all(re.fullmatch(r"[\w.-]+==[\d.]+", text) for text in lowest), required
    packages = tmp_path / "packages"
    install = ["-m", "pip", "install", "--quiet", "--no-compile", "--target", str(packages)]
    subprocess.run([sys.executable, *install, wheel, *lowest], check=True, timeout=100)
    (tmp_path / "all_x.sh").write_text("echo hello\n")
    (tmp_path / "lmcache.yaml").write_text("runtime_plugin_locations: [all_x.sh]\n")
    run_directory = tmp_path / "run"
    run_directory.mkdir(mode=0o700)
    env = environment(
        LMCACHE_CONFIG_FILE="lmcache.yaml",
        LMCACHE_PLUGINS_RUNTIME_DIR=str(run_directory),
        PYTHONPATH=str(packages),
        TERMINAL_WIDTH="100",
    )

    def output(*words: str) -> str:
        program = [sys.executable, "-S", "-m", "lmcache_plugin_adapter", *words]
        done = subprocess.run(
            program, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), (words, done)
        return done.stdout

    assert "Stop plugins: SIGTERM" in output("--help")
    text = output("status", "--help")
    assert "Plugins, as status shows them" in text
    assert "None]" not in text
    assert "1 plugin, 0 errors" in output("check", "--strict")
    assert "o supervisor runs" in output("status")
