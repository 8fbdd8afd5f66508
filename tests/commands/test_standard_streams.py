# SPDX-License-Identifier: Apache-2.0
"""Commands whose output cannot be written: one line and exit 1, never a traceback."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cli_under_test import COMMAND, ROOT, environment

UP = "echo up; exec sleep 60"

COMMANDS = {
    "status": ("status",),
    "status --json": ("status", "--json"),
    "status --watch": ("status", "--watch"),
    "status --check": ("status", "--check"),
    "logs": ("logs",),
    "logs -f": ("logs", "-f"),
    "check": ("check", "-c", "{config}"),
    "check --json": ("check", "-c", "{config}", "--json"),
    "doctor": ("doctor",),
    "doctor --json": ("doctor", "--json"),
    "reload": ("reload",),
    "stop": ("stop", "--all", "--wait"),
    "--help": ("--help",),
    "--version": ("--version",),
}


@pytest.fixture
def shell(plugin, engine, plugins, tmp_path):
    """Run a command beside an engine, with a shell's redirection."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    config = tmp_path / "lmcache.yaml"
    config.write_text(f"runtime_plugin_locations: ['{plugins}']\n")

    def run(
        words: tuple[str, ...], redirection: str, program: tuple[str, ...] = COMMAND
    ) -> subprocess.CompletedProcess[str]:
        command = [*program, *(word.format(config=config) for word in words)]
        return subprocess.run(
            ["bash", "-c", f'set -o pipefail; "$@" {redirection}', "bash", *command],
            env=environment(LMCACHE_PLUGINS_RUNTIME_DIR=str(Path(one.control).parents[1])),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_stdout_cannot_be_written(shell, redirection) -> None:
    """The reason is one line on stderr."""
    reason = "No space left on device" if "full" in redirection else "Bad file descriptor"
    for name, command in COMMANDS.items():
        done = shell(command, redirection)
        assert done.returncode == 1, name
        assert done.stdout == ""
        lines = [line for line in done.stderr.splitlines() if "stdout" in line]
        assert lines == [f"error: cannot write to stdout: {reason}"], name
        assert "Traceback" not in done.stderr


def test_reader_has_gone(shell) -> None:
    """It ends quietly."""
    for name, command in COMMANDS.items():
        done = shell(command, "| true")
        assert "stdout" not in done.stderr, name
        assert "Traceback" not in done.stderr, name


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_other_streams(shell, redirection) -> None:
    """They are not needed, and no file or socket takes their place."""
    done = shell(("status",), redirection)
    assert done.returncode == 0
    assert "all_x" in done.stdout
    assert shell(("stop", "none"), redirection).returncode == 2


def test_few_open_files(shell) -> None:
    """Whatever the limit of open files is: an answer, or one line."""
    for limit in range(7, 13):
        limited = ("bash", "-c", f'ulimit -n {limit}; exec "$@"', "bash", *COMMAND, "status")
        done = shell(limited, "", program=())
        assert "Traceback" not in done.stderr, limit
        assert "all_x" in done.stdout or done.stderr.startswith("error: "), limit
        assert done.returncode == (0 if "all_x" in done.stdout else 1), limit
