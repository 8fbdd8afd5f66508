# SPDX-License-Identifier: Apache-2.0
"""A stranger on the machine: no file of theirs runs as the engine's user."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

STRANGER = 12345

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")


@pytest.fixture
def sticky() -> Iterator[Path]:
    """Return a directory like /tmp."""
    path = Path(tempfile.mkdtemp(prefix="sticky-"))
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path)


def plugin_in(directory: Path, name: str, text: str) -> Path:
    """Write a plugin as its only file."""
    path = directory / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("first_line", "runs"),
    [
        ("", False),
        ("#!/usr/bin/env python3\n", False),
        ("#!/usr/bin/env -S python3 -I\n", True),
        ("#!/usr/bin/env -S python3 -u\n", False),
    ],
)
def test_python_plugin_in_a_sticky_directory(engine, sticky, first_line, runs) -> None:
    """Python imports from the directory of its script, where everyone can put a module."""
    text = f"{first_line}import json, time\nprint('up', flush=True)\ntime.sleep(60)\n"
    path = plugin_in(sticky, "all_x.py", text)
    (sticky / "json.py").write_text("print('of a stranger', flush=True)\n")
    one = engine(locations=[str(path)])
    if runs:
        one.wait_log(r"\[all_x\] up ", 30)
    else:
        one.wait_log("Refused: .*move the plugin into a directory of its own", 30)
    assert "of a stranger" not in one.log()


def test_shell_plugin_in_a_sticky_directory_runs(engine, sticky) -> None:
    """A shell imports nothing from there."""
    one = engine(locations=[str(plugin_in(sticky, "all_x.sh", "echo up; exec sleep 60\n"))])
    one.wait_log(r"\[all_x\] up ", 30)


def test_link_out_of_a_sticky_directory_is_judged_at_its_end(engine, sticky, tmp_path) -> None:
    """Python imports from where the link leads; both ends are checked."""
    path = plugin_in(sticky, "all_x.py", "print('up', flush=True)\n")
    (tmp_path / "all_x.py").symlink_to(path)
    one = engine(locations=[str(tmp_path / "all_x.py")])
    one.wait_log("Refused: .*move the plugin into a directory of its own", 30)


@needs_root
def test_directory_of_somebody_else_is_refused(engine, tmp_path) -> None:
    """Its owner can swap the file, which then runs as root."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    path = plugin_in(directory, "all_x.sh", "echo up\n")
    os.chown(directory, STRANGER, STRANGER)
    one = engine(locations=[str(path)])
    one.wait_log(f"Refused: directory '{directory}' belongs to user {STRANGER}: chown", 30)
    assert "] up " not in one.log()


@needs_root
def test_directory_that_changes_hands_is_refused_at_the_next_start(engine, tmp_path) -> None:
    """Each start is checked, not only the first."""
    directory = tmp_path / "ours"
    directory.mkdir()
    path = plugin_in(directory, "all_x.sh", "echo up; exec sleep 60\n")
    one = engine(locations=[str(path)])
    one.wait_log(r"\[all_x\] up ", 30)
    os.chown(directory, STRANGER, STRANGER)
    one.ask("restart", names=["all_x"])
    one.wait_log(f"Refused: directory '{directory}' belongs to user {STRANGER}: chown", 30)
    one.wait_log("Cannot run .*others could change what it runs", 30)
    assert one.log().count("] up ") == 1
    os.chown(directory, 0, 0)
    one.ask("start", names=["all_x"])
    one.wait_for(lambda: one.log().count("] up ") == 2, 30)


def test_file_that_opens_up_is_refused_at_the_next_start(engine, tmp_path) -> None:
    """A crash of the plugin starts it again."""
    directory = tmp_path / "ours"
    directory.mkdir()
    path = plugin_in(directory, "all_x.sh", "echo up; exec sleep 60\n")
    one = engine(locations=[str(path)])
    one.wait_log(r"\[all_x\] up ", 30)
    path.chmod(0o777)
    os.kill(one.plugin_pid("all_x"), 9)
    one.wait_log("Refused: .*can be written by everyone: chmod", 30)
    assert one.log().count("] up ") == 1


def test_open_interpreter_is_refused(engine, plugin, tmp_path) -> None:
    """Whoever can write the interpreter can write the plugin."""
    (tmp_path / "bin").mkdir()
    interpreter = tmp_path / "bin" / "shell"
    shutil.copy("/bin/sh", interpreter)
    interpreter.chmod(0o777)
    plugin("all_x", f"#!{interpreter}\necho up\n")
    one = engine()
    one.wait_log(f"Refused: '{interpreter}' can be written by everyone: chmod", 30)


def test_open_directory_is_left_out_of_path(engine, plugin, sticky) -> None:
    """A program of a stranger is not found in it, by name."""
    plugin_in(sticky, "lister", "#!/bin/sh\necho of a stranger\n")
    plugin("all_x.sh", 'lister || echo "path: $PATH"\nexec sleep 60\n')
    one = engine(env={"PATH": f"{sticky}:{os.environ['PATH']}"})
    one.wait_log(r"\] path: ", 30)
    assert "of a stranger" not in one.log()
    one.wait_log(f"Plugins do not get '{sticky}' in PATH: .*can be written by everyone: chmod", 30)


def test_open_log_directory_is_not_used(engine, plugin, sticky) -> None:
    """What the plugin prints goes to the engine's log instead, and a warning says so."""
    plugin("all_x.sh", "echo up; exec sleep 60\n")
    one = engine({"log": {"directory": str(sticky)}})
    one.wait_log("its output goes to the engine's log, as its log directory .*chmod", 30)
    one.wait_log(r"\[all_x\] up ", 30)
    assert list(sticky.iterdir()) == []
