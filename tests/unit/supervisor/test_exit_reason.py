# SPDX-License-Identifier: Apache-2.0
"""Plugins are told why they are to end: the engine closes, fails, dies, or it is only them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Engine, wait_until

Start = Callable[..., Engine]
Write = Callable[..., Path]

TELLING = """
trap 'cat "$LMCACHE_RUNTIME_PLUGIN_ENDING_FILE" > "$WORD" 2>/dev/null || echo none > "$WORD"
      kill $!; exit' TERM
echo ready
sleep 60 & wait $!
"""

ENDS = {
    "returns": ("", "closing"),
    "sys.exit": ("import sys; sys.exit(3)", "closing"),
    "Ctrl-C": ("raise KeyboardInterrupt", "closing"),
    "stop_plugins": ("launcher.stop_plugins()", "closing"),
    "stop_plugins, gone at once": (
        "import os; launcher.stop_plugins(wait=False); os._exit(0)",
        "closing",
    ),
    "exception": ("raise SystemError('in the main thread')", "failed"),
    "stop_plugins on the way of an exception": (
        "try:\n    raise SystemError\nfinally:\n    launcher.stop_plugins(wait=False)",
        "failed",
    ),
    "os._exit": ("import os; os._exit(0)", "died"),
    "SIGKILL": ("import os; os.kill(os.getpid(), 9)", "died"),
    "SIGTERM": ("import os; os.kill(os.getpid(), 15)", "died"),
    "exec": ("import os; os.execv('/bin/sleep', ['sleep', '60'])", "replaced"),
}


@pytest.fixture
def word(tmp_path: Path) -> Path:
    """Where the plugin writes what it was told."""
    return tmp_path / "word"


@pytest.fixture
def begin(plugin: Write, engine: Start, word: Path) -> Callable[[], Engine]:
    """Start an engine with a plugin that is ready to be told."""

    def start() -> Engine:
        plugin("all_x.sh", TELLING)
        one = engine(env={"WORD": str(word)})
        one.wait_log("ready")
        return one

    return start


def said(word: Path) -> str:
    """Return the word, once there is one."""
    return wait_until(lambda: word.exists() and word.read_text(), 10, "a word").strip()


@pytest.mark.parametrize("end", ENDS)
def test_the_word_tells_how_the_engine_ends(
    begin: Callable[[], Engine], word: Path, end: str
) -> None:
    """It is there when SIGTERM comes."""
    python, expected = ENDS[end]
    one = begin()
    if python:
        one.interrupt(python)
    else:
        one.close()
    assert said(word) == expected
    if end == "exec":
        one.kill()


def test_a_child_of_multiprocessing_that_returns_closes(
    begin: Callable[[], Engine], plugin: Write, engine: Start, word: Path, tmp_path: Path
) -> None:
    """As vLLM's engine processes do: no exit handlers of the interpreter run in them."""
    plugin("all_x.sh", TELLING)
    one = engine(env={"WORD": str(word)}, launch=False)
    source = (
        "import multiprocessing\n"
        "context = multiprocessing.get_context('fork')\n"
        "leave = context.Event()\n"
        "def engine():\n"
        "    RuntimePluginLauncher(config, 'worker', 1, 0).launch_plugins()\n"
        "    leave.wait()\n"
        "child = context.Process(target=engine)\n"
        "child.start()"
    )
    # As an expression: the test's engine runs statements while it handles an error.
    one.do(f"exec({source!r}, globals())")
    one.wait_log("ready")
    one.do("leave.set()")
    assert said(word) == "closing"
    one.do("child.join()")


def test_an_error_at_a_prompt_is_none_of_the_engine(
    begin: Callable[[], Engine], word: Path
) -> None:
    """In a notebook an earlier cell may have failed: that did not end the engine."""
    one = begin()
    one.do("import sys; sys.ps1 = '> '; sys.last_value = ValueError('of an earlier cell')")
    one.close()
    assert said(word) == "closing"


def test_a_supervisor_that_is_told_to_stop_says_so(begin: Callable[[], Engine], word: Path) -> None:
    """As systemd does with all processes of a unit."""
    one = begin()
    os.kill(one.supervisor(), signal.SIGTERM)
    assert said(word) == "told"


def test_a_plugin_that_is_stopped_alone_finds_nothing(
    begin: Callable[[], Engine], word: Path
) -> None:
    """The engine goes on."""
    one = begin()
    assert one.ask("stop", names=["all_x"])["ok"]
    assert said(word) == "none"
