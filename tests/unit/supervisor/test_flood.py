# SPDX-License-Identifier: Apache-2.0
"""What a plugin that floods prints besides: what the limit passes arrives, the rest is counted."""

from __future__ import annotations

import json
import re
import sys

from harness import connect, wait_until

READ = f"""#!{sys.executable}
import fcntl, os, struct, termios, time
def write(data):
    while data:
        data = data[os.write(1, data):]
def await_read():
    while struct.unpack('i', fcntl.ioctl(1, termios.FIONREAD, b'0000'))[0]:
        time.sleep(0.01)
def lines(word, count):
    return b''.join(b'%s %05d %s\\n' % (word, n, b'x' * 85) for n in range(count))
"""
"""Begins a plugin that knows when all that it wrote has been read."""

TIGHT = {"lines": 1, "per": 100, "burst": 10}


def test_error_at_the_start_of_a_flood_passes(plugin, engine) -> None:
    """A fatal error and its many details in one write, while the limit holds back."""
    plugin(
        "all_x.py",
        READ + "write(lines(b'flood', 5000)); await_read()\n"
        "write(b'<3>first\\n' + lines(b'detail', 1500)); await_read()\n"
        "write(b'<'); await_read()\n"
        "write(b'3>second\\n' + lines(b'detail', 1500)); await_read()\n"
        "write(lines(b'detail', 1500) + b'<2>third\\n' + lines(b'detail', 1500))\n"
        "time.sleep(60)",
    )
    one = engine({"rate_limit": TIGHT})
    wait_until(lambda: one.status().get("lines") == 11_003, 20, "all is read")
    one.wait_log(r"CRITICAL: \[all_x\] third ")
    errors = [text for level, _, text in one.records("all_x") if level in ("ERROR", "CRITICAL")]
    assert errors == ["first", "second", "third"]


def test_burst_after_a_flood_passes(plugin, engine) -> None:
    """What the limit passes again is logged, though it comes as a whole pipe full."""
    plugin(
        "all_x.py",
        READ + "write(lines(b'flood', 5000)); await_read()\n"
        "time.sleep(2)\n"  # the limit passes 1,000 lines again
        "write(lines(b'burst', 900))\n"
        "time.sleep(60)",
    )
    one = engine({"rate_limit": {"lines": 1000, "per": 1, "burst": 1000}})
    one.wait_log(r"\] burst 00899 ")
    passed = [text[:11] for text in one.texts("all_x") if text.startswith("burst")]
    assert passed == [f"burst {number:05}" for number in range(900)]


def test_remembered_lines_of_a_flood_have_no_gap(plugin, engine) -> None:
    """``logs`` has the last lines, as many as there is memory for, whatever was not looked at."""
    plugin("all_x.py", READ + "write(lines(b'flood', 50_000))\ntime.sleep(60)")
    one = engine({"rate_limit": TIGHT, "log_buffer_bytes": 100_000})
    wait_until(lambda: one.status().get("lines") == 50_000, 20, "all is read")
    with connect(one.control) as connection, connection.makefile() as answer:
        connection.sendall(
            json.dumps({"op": "logs", "all": True, "lines": 50_000}).encode() + b"\n"
        )
        kept = [int(number) for number in re.findall(r"flood (\d{5})", answer.read())]
    assert len(kept) > 500
    assert kept == list(range(50_000 - len(kept), 50_000))
