# SPDX-License-Identifier: Apache-2.0
"""A plugin's main function: what goes wrong is said, and the exit code says it too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = {"LMCACHE_RUNTIME_PLUGIN_ROLE": "WORKER", "LMCACHE_RUNTIME_PLUGIN_NAME": "worker_x"}


def run(body: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a main function in a process of its own."""
    program = (
        "import os, signal, sys\nfrom lmcache_plugin_adapter import kit\n"
        f"def main(ctx, stop):\n    {body}\nsys.exit(kit.run(main))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        env=ENGINE if env is None else env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("body", "code"), [("return 3", 3), ("return 0", 0), ("pass", 0)])
def test_what_it_returns_is_the_exit_code(body: str, code: int) -> None:
    """None is 0."""
    result = run(body)
    assert (result.returncode, result.stdout, result.stderr) == (code, "", "")


def test_it_gets_the_context_and_the_stop() -> None:
    """Of one another."""
    result = run("print(ctx.name, stop.is_set(), stop.remaining())")
    assert result.stdout == "worker_x False 5.0\n"


def test_without_an_engine_it_says_how_to_try_it() -> None:
    """To people, who typed its name: without a mark."""
    result = run("pass", env={})
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        "error: not started by LMCache: LMCACHE_RUNTIME_PLUGIN_ROLE is not set; "
        "try it with 'lmcache-plugins run -c'\n"
    )


def test_settings_that_cannot_be_worked_with_end_it_for_good() -> None:
    """Code 125."""
    result = run("raise kit.SettingsError('no target is named')")
    assert (result.returncode, result.stdout) == (125, "<3>No target is named\n")


def test_a_configuration_that_cannot_be_read_ends_it_for_good() -> None:
    """It will not get better by itself."""
    env = {**ENGINE, "LMCACHE_RUNTIME_PLUGIN_CONFIG": "{"}
    result = run("ctx.config", env)
    assert result.returncode == 125
    assert result.stdout.startswith("<3>Cannot read LMCACHE_RUNTIME_PLUGIN_CONFIG: ")


def test_a_module_that_is_missing_ends_it_for_good() -> None:
    """It will not be there after a restart either: one line says what to install, and where."""
    result = run("import nowhere_to_be_found")
    assert (result.returncode, result.stderr) == (125, "")
    assert result.stdout == (
        "<3>Cannot run the plugin: it needs 'nowhere_to_be_found'; install it, or the extra of its "
        f"package that brings it: {sys.executable} -m pip install nowhere_to_be_found\n"
    )


def test_another_exception_is_one_line_and_a_traceback_for_debugging() -> None:
    """Code 1: a failure, to be tried again."""
    result = run("int('x')")
    assert result.returncode == 1
    first, *others = result.stdout.splitlines()
    assert first == (
        "<3>Failed: ValueError: invalid literal for int() with base 10: 'x' (main, line 4)"
    )
    assert others[0] == "<7>Traceback (most recent call last):"
    assert all(line.startswith("<7>") for line in others)


def test_work_that_was_broken_off_is_no_failure() -> None:
    """Even where nothing guards it."""
    result = run("raise kit.Stopped")
    assert (result.returncode, result.stdout) == (0, "")


def test_an_exit_is_an_exit() -> None:
    """Nothing catches it."""
    assert run("sys.exit(7)").returncode == 7
