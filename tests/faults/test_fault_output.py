# SPDX-License-Identifier: Apache-2.0
"""Whatever a plugin prints arrives, bounded, and blocks nobody."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from world import World


def resident(pid: int) -> float:
    """Return the peak of a process's memory, in MB."""
    match = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


BYTES = {
    "binary": (rb"bin \377\376 end", r"bin \xff\xfe end"),
    "half a UTF-8 character": (b"half \303", r"half \xc3"),
    "ANSI that clears the screen": (b"\033[2Jcleared", r"\x1b[2Jcleared"),
    "NUL": (b"nul \0 end", r"nul \x00 end"),
    "a carriage return that replaces a line": (b"shown\rreplaced", "[all_x] replaced"),
    "a bidirectional override": ("bidi \u202e end".encode(), r"bidi \u202e end"),
    "C1 controls": ("c1 \x9b2J end".encode(), r"c1 \u009b2J end"),
}


@pytest.mark.fault("G5", "prints {}: shown escaped, and the next line arrives")
@pytest.mark.parametrize("case", BYTES.values(), ids=BYTES)
def test_bytes(world: World, case: tuple[bytes, str]) -> None:
    """Neither the terminal nor the capture is harmed."""
    raw, shown = case
    raw = raw.replace(rb"\377\376", b"\xff\xfe")
    world.python("all_x.py", f"os.write(1, {raw!r} + b'\\nnext line\\n'); note('up'); stay()")
    engine, _ = world.up()
    world.wait_logged(engine, "next line")
    assert shown in engine.log(), "not escaped"


@pytest.mark.fault("G5", "floods 200,000 lines: all counted, nobody blocked")
def test_flood(world: World) -> None:
    """With the rate limit off, every line arrives."""
    world.python(
        "all_x.py",
        "note('up')\nfor n in range(400): os.write(1, (b'y' * 50 + b' line\\n') * 500)\n"
        "note('written'); stay()",
    )
    engine, _ = world.up(settings={"rate_limit": "off"})
    begun = time.monotonic()
    world.wait_noted("written", seconds=50)
    world.wait(
        lambda: engine.log_path.read_bytes().count(b" line ") == 200_000,
        "200,000 lines in the log",
        50,
    )
    world.measured(f"{time.monotonic() - begun:.1f} s")


@pytest.mark.fault("G5", "floods for ever: held back by the default limit, said, stops in time")
@pytest.mark.ours_only("LMCache's launcher has no limit")
def test_endless(world: World) -> None:
    """The log grows by a bound, not by the plugin's speed."""
    world.python("all_x.py", "note('up')\nwhile True: os.write(1, (b'y' * 99 + b'\\n') * 500)")
    begun = time.monotonic()
    engine, pids = world.up()
    time.sleep(2)
    since = time.monotonic()
    engine.do("launcher.stop_plugins()")
    world.expect_gone(pids, 1, since)
    seconds = time.monotonic() - begun
    world.wait_logged(engine, "suppressed")
    lines = engine.log().count("[all_x] yyy")
    assert lines < 10_000 + 1000 * (seconds + 1)
    world.measured(f"{lines:,} lines logged")


@pytest.mark.fault("G5", "1 GB without a newline: memory stays bounded, the plugin is not blocked")
def test_gigabyte(world: World) -> None:
    """The line is cut, and what was cut is counted."""
    world.python(
        "all_x.py",
        "note('up')\nchunk = b'x' * (1 << 20)\n"
        "for n in range(1024):\n    view = memoryview(chunk)\n"
        "    while view: view = view[os.write(1, view):]\n"
        "os.write(1, b'\\nafter\\n'); note('written'); stay()",
    )
    engine, _ = world.up()
    before = resident(engine.pid)
    supervisors = [world.supervisor_of(engine)] if world.launcher.ours else []
    world.wait_noted("written", seconds=60)
    world.wait_logged(engine, "] after")
    grown = resident(engine.pid) - before
    if supervisors:
        grown = max(grown, resident(supervisors[0]) - 12)
    world.measured(f"grown by {max(grown, 0):.0f} MB")
    assert grown < 24, f"memory grew by {grown:.0f} MB"
    if world.launcher.ours:
        world.wait_logged(engine, "1,073,7")


@pytest.mark.fault("G5", "closes stdout and lives: it is not taken for dead")
def test_closes(world: World) -> None:
    """An exit is an exit of the process, nothing else."""
    world.python("all_x.py", "os.close(1); os.close(2); note('up'); stay()")
    engine, pids = world.up()
    time.sleep(0.5)
    assert pids[0] in world.processes()
    assert "xited" not in engine.log()


@pytest.mark.fault("G6", "a grandchild holds the pipe: the exit is seen all the same")
def test_grandchild(world: World) -> None:
    """At once."""
    world.python(
        "all_x.py",
        "if not os.fork():\n    os.setsid(); note('up'); time.sleep(30)\nnote('up'); sys.exit(7)",
    )
    engine, _ = world.up(2, settings={"plugins": {"all_x": {"leftovers": "keep"}}})
    world.wait_logged(engine, "code 7")


@pytest.mark.fault("G5", "a line with a level of its own")
@pytest.mark.ours_only("LMCache's launcher logs all at INFO")
def test_level(world: World) -> None:
    """As systemd reads it."""
    world.python("all_x.py", "os.write(1, b'<3>bad\\n<4>odd\\n'); note('up'); stay()")
    engine, _ = world.up()
    world.wait_logged(engine, "ERROR: [all_x] bad")
    world.wait_logged(engine, "WARNING: [all_x] odd")


@pytest.mark.fault("G5", "prints its last line without a newline and exits")
def test_unfinished(world: World) -> None:
    """It is not lost."""
    world.python("all_x.py", "note('up'); os.write(1, b'unfinished')")
    engine, _ = world.up()
    world.wait_logged(engine, "unfinished")


@pytest.mark.fault("G7", "a file name with a newline and an escape sequence")
def test_name(world: World) -> None:
    """The log stays one record a line."""
    world.python("all_x\n\x1b[2J.py", "note('up'); print('hello'); stay()")
    engine, _ = world.up()
    world.wait_logged(engine, "hello")
    assert "\x1b[2J" not in engine.log(), "the escape sequence reached the log"
