# SPDX-License-Identifier: Apache-2.0
"""What plugins print arrives in the engine's log, whatever they print, and blocks nobody."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from pathlib import Path

import pytest
from harness import gone, wait_until


def test_lines_carry_name_and_level(plugin, engine) -> None:
    """One record a line, with the plugin's name; the level as systemd reads it."""
    plugin("all_x.sh", 'echo plain; echo "<3>bad"; echo "<4>odd" >&2; echo "<7>detail"; echo; exit')
    one = engine()
    one.wait_log(r"\[all_x\] Exited with code 0")
    ours = [r for r in one.records("all_x") if not r[2].startswith(("Started", "Exited"))]
    assert [(level, text) for level, _, text in ours] == [
        ("INFO", "plain"),
        ("ERROR", "bad"),
        ("WARNING", "odd"),
        ("DEBUG", "detail"),
        ("INFO", ""),
    ]


def test_record_has_lmcache_s_format(plugin, engine) -> None:
    """Time, level, message, and in parentheses file, pid and the process it belongs to."""
    plugin("worker_x.sh", "echo hello; exec sleep 60")
    one = engine(worker_id=3, worker_count=4)
    match = one.wait_log(
        r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] LMCache INFO: \[worker_x\] hello "
        r"\(worker_x\.sh:(\d+):lmcache_plugin_adapter\.worker\.3\)$"
    )
    assert int(match[1]) == one.plugin_pid("worker_x")
    assert "\x1b" not in one.log()


def test_threshold_follows_lmcache(plugin, engine) -> None:
    """Where LMCACHE_LOG_LEVEL is set, it holds for plugins as well."""
    plugin("all_x.sh", 'echo "<7>detail"; echo "<4>odd"; echo plain; echo "<3>done"')
    one = engine(env={"LMCACHE_LOG_LEVEL": "WARNING"})
    one.wait_log("done")
    assert [text for _, _, text in one.records("all_x")] == ["odd", "done"]


def test_colour_only_on_a_terminal(plugin, engine) -> None:
    """A terminal gets LMCache's colours; NO_COLOR turns them off."""
    plugin("all_x.sh", "echo hello; exec sleep 60")

    def first_line(**env) -> bytes:
        master, slave = os.openpty()
        started = engine(stderr=slave, env={"TERM": "xterm", **env})
        os.close(slave)
        data = b""
        while b"hello" not in data or not data.endswith(b"\n"):
            data += os.read(master, 4096)
        started.close()
        os.close(master)
        return next(line for line in data.splitlines() if b"hello" in line)

    assert first_line(NO_COLOR=None).startswith(b"\x1b[32;20m[")
    assert first_line(NO_COLOR="1").startswith(b"[")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (r"printf 'a\377b\n'", r"a\xffb"),
        (r"printf 'half \303\n'", r"half \xc3"),
        (r"printf '\033[2Jclear\n'", r"\x1b[2Jclear"),
        (r"printf 'nul\0nul\n'", r"nul\x00nul"),
        (r"printf 'crlf\r\n'", "crlf"),
        (r"printf 'back\rward\n'", "ward"),
        (r"printf 'unfinished'", "unfinished"),
    ],
)
def test_hostile_bytes_are_shown_and_end_nothing(plugin, engine, program, expected) -> None:
    """Any bytes become one readable record, and what follows still arrives."""
    plugin("all_x.sh", f"{program}; sleep 0.05; echo; echo after; exec sleep 60")
    one = engine()
    one.wait_log(r"\[all_x\] after ")
    assert one.texts("all_x")[0] == expected


def test_a_progress_bar_is_a_record_a_second_and_its_end(plugin, engine, tmp_path) -> None:
    """As tqdm and others draw it, with a carriage return before or after each text."""
    plugin(
        "all_x.sh",
        "printf 'loading\\r'; while [ ! -e loaded ]; do sleep 0.05; done; printf 'loaded\\n'\n"
        "i=0; while [ ! -e end ]; do i=$((i+1)); printf '\\r%d %%' $i; sleep 0.05; done\n"
        "printf '\\r%d in all\\n' $i; exec sleep 60",
    )
    one = engine()
    one.wait_for(lambda: one.texts("all_x") == ["loading"], 20)
    (tmp_path / "loaded").touch()
    one.wait_for(lambda: len(one.texts("all_x")) >= 4, 20)
    (tmp_path / "end").touch()
    one.wait_log(r"in all ", 20)
    first, second, *bar, last = one.texts("all_x")
    assert (first, second) == ("loading", "loaded")
    shown = [int(text.removesuffix(" %")) for text in bar]
    assert shown == sorted(set(shown))
    assert len(shown) < int(last.removesuffix(" in all"))


def test_long_line_is_cut_and_counted(plugin, engine) -> None:
    """50 MB without a newline: the beginning, a count, and a supervisor that stays small."""
    plugin("all_x.sh", "head -c 50000000 /dev/zero | tr '\\0' x; echo; echo after; exec sleep 60")
    one = engine()
    one.wait_log(r"\[all_x\] after ", 60)
    text = one.texts("all_x")[0]
    assert re.fullmatch(r"x{3072} \[cut: 49,996,928 more bytes\]", text)
    status = Path(f"/proc/{one.supervisor()}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+)", status)[1]) < 40_000


def test_everything_arrives_without_a_limit(plugin, engine) -> None:
    """200,000 lines, no rate limit, a log that keeps up: every line, in order."""
    plugin("all_x.sh", "seq -f 'line %.0f' 200000; exec sleep 60")
    one = engine({"rate_limit": "off"})
    one.wait_log(r"\[all_x\] line 200000 ", 60)
    assert one.texts("all_x") == [f"line {number}" for number in range(1, 200_001)]


def test_flood_is_limited_and_counted(plugin, engine) -> None:
    """Over the limit, lines are held back; what passed and what was held add up."""
    plugin("all_x.sh", "seq -f 'line %.0f' 200000; exec sleep 60")
    one = engine({"rate_limit": {"lines": 10, "per": 1, "burst": 100}})
    wait_until(
        lambda: one.status().get("lines") == 200_000,
        60,
        "all lines are read",
    )
    # At once, not only once the log reports them.
    assert one.status()["lines_dropped"] >= 199_000 - 10 * 60
    supervisor = one.supervisor()
    one.close()
    wait_until(lambda: gone(supervisor))  # it says at its end what was held back last
    held = sum(
        int(n.replace(",", "")) for n in re.findall(r"([\d,]+) lines? suppressed", one.log())
    )
    passed = len(one.texts("all_x"))
    assert 100 <= passed < 1000
    assert passed + held == 200_000


def test_errors_pass_through_a_flood(plugin, engine) -> None:
    """Lines marked as errors are exempt from the limit up to the burst."""
    plugin("all_x.sh", "seq 5000; echo '<3>the error'; exec sleep 60")
    one = engine({"rate_limit": {"lines": 1, "per": 10, "burst": 10}})
    one.wait_log(r"LMCache ERROR: \[all_x\] the error")


def test_log_that_nobody_reads_blocks_neither_plugin_nor_stop(plugin, engine, tmp_path) -> None:
    """The engine's stderr is a full pipe: the plugin goes on, the stop is as prompt as ever."""
    plugin("all_x.sh", f"seq 500000; touch {tmp_path}/done; exec sleep 60")
    read_end, write_end = os.pipe()
    try:
        one = engine({"rate_limit": False}, stderr=write_end)
        wait_until((tmp_path / "done").exists, 60, "the plugin printed all")
        assert one.status()["lines_dropped"] > 0
        one.do("launcher.stop_plugins()")
    finally:
        os.close(read_end)
        os.close(write_end)


def test_records_of_several_writers_never_mix(plugin, engine) -> None:
    """On a pipe, many plugins of two engines at once: every line read is one whole record."""
    for number in range(5):
        plugin(f"all_{chr(97 + number)}.sh", "seq -f '%.0f xxxxxxxxxxxxxxxxxxxxxxxxx' 3000")
    read_end, write_end = os.pipe()
    received: list[bytes] = []

    def read() -> None:
        while data := os.read(read_end, 65536):
            received.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        engines = [
            engine({"rate_limit": False, "restart": "never"}, stderr=write_end) for _ in "12"
        ]
        wait_until(lambda: b"".join(received).count(b"Exited with code 0") == 10, 60)
        for one in engines:
            one.close()
    finally:
        os.close(write_end)
        reader.join(20)
        os.close(read_end)
    lines = b"".join(received).splitlines()
    assert all(re.match(rb"\[[\d\-: ,]+\] LMCache [A-Z]+: \[.*\)$", line) for line in lines)
    for name in (b"[all_a] ", b"[all_e] "):
        assert sum(name in line and b" xxx" in line for line in lines) == 6000


def test_own_log_files_with_rotation(plugin, engine, tmp_path) -> None:
    """``log``: a directory gives each plugin a file of its own, rotated, unlimited."""
    plugin("all_x.sh", "seq -f 'line %.0f' 3000; exec sleep 60")
    logs = tmp_path / "logs"
    one = engine({"log": {"directory": str(logs), "max_bytes": 65536, "files": 3}})
    last = logs / "all_x.worker-0.log"

    # Its lines are counted before the writer has them; while it is rotated, there is no file.
    def has_all() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return "line 3000 " in last.read_text()
        return False

    wait_until(has_all)
    assert one.status()["lines"] == 3000
    one.close()
    names = sorted(path.name for path in logs.iterdir())
    assert names == [f"all_x.worker-0.log{end}" for end in ("", ".1", ".2")]
    assert all(path.stat().st_size <= 65536 for path in logs.iterdir())
    assert "line 3000 " in last.read_text().splitlines()[-1]
    assert one.texts("all_x") == []
    one.wait_for(lambda: any("Started" in text for _, _, text in one.records("all_x")))


def test_grandchild_that_holds_the_pipe_does_not_hide_the_exit(plugin, engine) -> None:
    """The exit is seen and said while something else still holds the plugin's output."""
    plugin("all_x.sh", "(trap '' TERM; exec sleep 30) & exit 7")
    one = engine({"restart": "never", "stop_grace": 0.2})
    one.wait_log(r"\[all_x\] Exited with code 7")


def test_what_is_printed_during_the_grace_period_is_logged(plugin, engine) -> None:
    """A goodbye arrives, also after the engine was SIGKILLed."""
    plugin("all_x.sh", "trap 'echo goodbye; exit' TERM; echo up; while :; do sleep 0.1; done")
    one = engine()
    one.wait_log(r"\] up ")
    one.kill()
    one.wait_log(r"\[all_x\] goodbye ")


def test_closed_output_is_not_an_exit(plugin, engine) -> None:
    """A plugin that closes stdout and stderr lives on."""
    plugin("all_x.sh", "exec >&- 2>&-; exec sleep 60")
    one = engine()
    pid = one.plugin_pid("all_x")
    wait_until(lambda: not os.path.exists(f"/proc/{pid}/fd/1"))
    assert one.status()["state"] == "running"
