# SPDX-License-Identifier: Apache-2.0
"""Lines of vLLM, LMCache and others become records; whatever comes, nothing raises."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_plugin_adapter.gallery.log_reporter.reading.assembling import Assembler, Bounds
from lmcache_plugin_adapter.gallery.log_reporter.reading.line_text import clean
from lmcache_plugin_adapter.gallery.log_reporter.reading.parsing import Parser
from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Level, Record
from lmcache_plugin_adapter.gallery.log_reporter.reading.tailed_file import LogLine

NOW = time.mktime((2026, 11, 22, 8, 0, 0, 0, 0, -1))
BOUNDS = Bounds(record_bytes=65536, wait=1.0, level=Level.DEBUG)


@pytest.fixture
def _new_york(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A zone that is not UTC."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class File:
    """In the place of a tailed."""

    read_up_ns = 0


def records(
    data: bytes, bounds: Bounds = BOUNDS, prefix: str = "", file: Any = File
) -> list[Record]:
    """Return the records of a file's bytes."""
    assembler = Assembler(file, "/log", Parser(prefix), bounds)
    found: list[Record] = []
    end = 0
    for raw in data.split(b"\n"):
        end += len(raw) + 1
        found += assembler.feed(LogLine(raw, end, 0), 0.0, int(NOW * 1e9))
    return found + assembler.flush()


def one(line: str, prefix: str = "") -> Record:
    """Return the one record of a line."""
    (record,) = records(line.encode(), prefix=prefix)
    return record


def local(*moment: int) -> int:
    """Return the nanoseconds since 1970 of a local time."""
    return int(time.mktime((*moment, 0, 0, -1))) * 10**9


def test_a_line_of_vllm_0_32() -> None:
    """With the process before it."""
    record = one("(EngineCore_DP0 pid=23963) WARNING 11-22 07:06:56 [core.py:123] It is [a:1] x")
    assert record.level is Level.WARNING
    assert record.time_ns == local(2026, 11, 22, 7, 6, 56)
    assert (record.process, record.pid) == ("EngineCore_DP0", 23963)
    assert (record.file, record.line, record.source) == ("core.py", 123, "core.py:123")
    assert record.text == "It is [a:1] x"
    assert record.format == "vllm"


def test_a_line_of_vllm_before_0_32() -> None:
    """The main process says nothing of itself; with DEBUG the file is a path."""
    record = one("DEBUG 11-22 07:06:56 [v1/engine/.../x/core.py:7] Resolved: A")
    assert (record.level, record.process, record.pid) == (Level.DEBUG, "", None)
    assert (record.file, record.line) == ("v1/engine/.../x/core.py", 7)
    assert record.text == "Resolved: A"


def test_prefix_and_colours() -> None:
    """``VLLM_LOGGING_PREFIX``, Ray's prefix and colours are no part of the text."""
    line = (
        "P> (RayWorkerWrapper pid=7, ip=10.0.0.2) \x1b[0;36m(Worker_TP1 pid=25470)\x1b[0;0m "
        "\x1b[31mERROR\x1b[0m \x1b[90m11-22 07:06:56\x1b[0m \x1b[90m[gen.py:11]\x1b[0m Text"
    )
    record = one(line, prefix="P> ")
    assert (record.process, record.pid) == ("Worker_TP1", 25470)
    assert (record.level, record.text, record.source) == (Level.ERROR, "Text", "gen.py:11")


def test_a_line_of_vllm_without_the_bracket() -> None:
    """As its logging page shows."""
    record = one("ERROR 11-27 07:06:56 core.py:123] EngineCore failed")
    assert (record.level, record.text) == (Level.ERROR, "EngineCore failed")
    assert (record.file, record.line, record.format) == ("core.py", 123, "vllm")
    assert record.time_ns % 10**9 == 0
    bracketed = one("ERROR 11-27 07:06:56 [core.py:123] EngineCore failed")
    assert record.time_ns == bracketed.time_ns


@pytest.mark.parametrize(
    ("line", "level", "text", "time_ns"),
    [
        ('{"message": "Ready"}', Level.INFO, "Ready", None),
        ('{"message": "x", "exc_info": "Traceback"}', Level.ERROR, "x\nTraceback", None),
        (
            '{"message": "x", "level": "warning", "timestamp": "2026-11-22T07:06:56.123Z"}',
            Level.WARNING,
            "x",
            1795331216123000000,
        ),
        (
            '{"timestamp": "2026-11-22T07:06:56+00:00", "severity": "CRITICAL", "message": "x"}',
            Level.CRITICAL,
            "x",
            1795331216000000000,
        ),
    ],
)
def test_lines_of_python_json_logger(
    line: str, level: Level, text: str, time_ns: int | None
) -> None:
    """Its default fields: a level only where it is configured."""
    record = one(line)
    assert (record.level, record.text, record.format) == (level, text, "json")
    assert time_ns is None or record.time_ns == time_ns


def test_several_lines_of_vllm_are_one_record() -> None:
    """VLLM says the head again on each line of a record, and ends the others with CR LF."""
    head = "(EngineCore_DP0 pid=1) ERROR 11-22 07:06:56 [core.py:11] "
    lines = ["Failed.", "Traceback (most recent call last):", '  File "a.py", line 8', "E: 1"]
    data = "\r\n".join(head + line for line in lines) + f"\n{head}Next"
    first, second = records(data.encode())
    assert first.text == "\n".join(lines)
    assert second.text == "Next"


def test_a_line_of_lmcache() -> None:
    """In colour, as it always is."""
    record = one(
        "\x1b[32;20m[2026-11-22 07:06:56,699] LMCache INFO:\x1b[0m Stored 5 (0.1 GB) "
        "\x1b[3m(engine.py:13:lmcache.v1.cache_engine)\x1b[0m"
    )
    assert record.level is Level.INFO
    assert record.time_ns == local(2026, 11, 22, 7, 6, 56) + 699_000_000
    assert record.text == "Stored 5 (0.1 GB)"
    assert (record.source, record.logger) == ("engine.py:13", "lmcache.v1.cache_engine")
    assert record.format == "lmcache"


def test_several_lines_of_lmcache_are_one_record() -> None:
    """The end of the frame comes with the last line; a traceback comes after it."""
    data = (
        b"[2026-11-22 07:06:56,699] LMCache ERROR: a\nb (x.py:1:l.m)\n"
        b'Traceback (most recent call last):\n  File "a.py", line 8\n    1/0\n'
        b"ZeroDivisionError: division by zero\nsomething else\n"
        b"[2026-11-22 07:06:57,000] LMCache INFO: c (y.py:2:l.n)"
    )
    first, second, third = records(data)
    assert first.text.startswith("a\nb\nTraceback")
    assert first.text.endswith("division by zero")
    assert (first.source, first.logger, first.level) == ("x.py:1", "l.m", Level.ERROR)
    assert (second.text, second.level, second.format) == ("something else", Level.INFO, "")
    assert (third.text, third.source) == ("c", "y.py:2")


def test_a_line_of_a_plugin() -> None:
    """Where LMCache names the line of code, a plugin's line names its process."""
    record = one(
        "[2026-11-22 07:06:56,699] LMCache WARNING: [worker_x] Text "
        "(worker_x.py:4711:lmcache_plugin_adapter.worker)"
    )
    assert (record.text, record.pid, record.source) == ("[worker_x] Text", 4711, "worker_x.py")


def test_a_line_of_vllm_in_json() -> None:
    """With ``formatter: json`` of vLLM 0.32; the traceback is a part of the record."""
    line = {
        "asctime": "2026-11-22 07:06:56,184",
        "levelname": "ERROR",
        "name": "vllm.v1.x",
        "processName": "MainProcess",
        "process": 20823,
        "message": "Bad\x1b[0m\x00",
        "exc_info": "Traceback:\n  E",
        "vllm_process_name": "APIServer",
    }
    record = one(json.dumps(line))
    assert record.text == "Bad\\x00\nTraceback:\n  E"
    assert record.time_ns == local(2026, 11, 22, 7, 6, 56) + 184_000_000
    assert (record.level, record.logger) == (Level.ERROR, "vllm.v1.x")
    assert (record.process, record.pid) == ("APIServer", 20823)


@pytest.mark.parametrize(
    ("line", "level", "text", "form"),
    [
        (
            '(APIServer pid=1) INFO:     127.0.0.1:5 - "GET /health HTTP/1.1" 200 OK',
            Level.INFO,
            '127.0.0.1:5 - "GET /health HTTP/1.1" 200 OK',
            "uvicorn",
        ),
        ("CRITICAL: down", Level.CRITICAL, "down", "uvicorn"),
        ("WARNING: no uvicorn", Level.INFO, "WARNING: no uvicorn", ""),
        (
            "[rank0]:[W1122 07:06:56.123456789 ProcessGroup.cpp:12] Warning: x",
            Level.WARNING,
            "Warning: x",
            "torch",
        ),
        ("E1122 07:06:56.123456 99 tcp.cc:3] no", Level.ERROR, "no", "torch"),
        ("/a/b.py:3: FutureWarning: old", Level.WARNING, "FutureWarning: old", "warning"),
        ("[Gloo] Rank 0 is connected", Level.INFO, "[Gloo] Rank 0 is connected", ""),
        ("Traceback (most recent call last):", Level.ERROR, None, ""),
        ("{'a': 1}", Level.INFO, None, ""),
        ("INFO 13-45 07:06:56 [a.py:1] no date", Level.INFO, "no date", "vllm"),
    ],
)
def test_other_lines(line: str, level: Level, text: str | None, form: str) -> None:
    """Each is one record, of the level that it says, if it says one."""
    record = one(line)
    assert (record.level, record.format) == (level, form)
    assert record.text == (line if text is None else text)


def test_a_warning_keeps_its_line_of_code() -> None:
    """Python shows it below, indented."""
    first, second = records(b"/a/b.py:3: UserWarning: old\n  warnings.warn(\nplain")
    assert first.text == "UserWarning: old\n  warnings.warn("
    assert second.text == "plain"


def test_tracebacks_of_two_processes_are_two_records() -> None:
    """Before 0.32 each line that a process prints has the process before it."""
    data = (
        b"(Worker_TP0 pid=1) Traceback (most recent call last):\n"
        b'(Worker_TP0 pid=1)   File "a.py"\n'
        b"(Worker_TP0 pid=1) ValueError: x\n"
        b"(Worker_TP1 pid=2) Traceback (most recent call last):\n"
        b"(Worker_TP1 pid=2) ValueError: y"
    )
    first, second = records(data)
    assert (first.process, first.pid, first.level) == ("Worker_TP0", 1, Level.ERROR)
    assert first.text.endswith('  File "a.py"\nValueError: x')
    assert second.text.endswith("ValueError: y")


TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1\nRuntimeError: boom'
HEAD = "INFO 11-22 07:06:56 [core.py:1] Starting"


def of_each_line(prefix: str, text: str) -> str:
    """Return a text with a prefix before each line."""
    return "\n".join(prefix + line for line in text.split("\n"))


@pytest.mark.parametrize("prefix", ["", "(EngineCore_DP0 pid=272) "])
@pytest.mark.parametrize(
    "text",
    [
        TRACEBACK,
        of_each_line("[rank0]: ", TRACEBACK),
        f"Process EngineCore_DP0:\n{TRACEBACK}",
        f"Exception in thread Thread-1 (run):\n{TRACEBACK}",
        "Fatal Python error: Aborted\n\nCurrent thread 0x00 (most recent call first):\n  File a",
        "terminate called after throwing an instance of 'c10::Error'\n  what():  CUDA error: x",
        "[rank3]: terminate called without an active exception",
        "CUDA error: an illegal memory access was encountered",
        "torch.AcceleratorError: CUDA error: device-side assert triggered",
        "RuntimeError: NCCL error: unhandled system error",
    ],
)
def test_what_explains_a_crash_is_an_error(prefix: str, text: str) -> None:
    """Also after an INFO record of the same process; ``level: warning`` delivers it whole."""
    data = of_each_line(prefix, f"{HEAD}\n{text}").encode()
    found = [one for one in records(data, BOUNDS._replace(level=Level.WARNING)) if one.wanted]
    assert [one.level for one in found] == [Level.ERROR]
    for line in text.split("\n"):
        assert line in found[0].text.split("\n")
    alone = [one for one in records(of_each_line(prefix, text).encode()) if one.wanted]
    assert [(one.level, one.text) for one in alone] == [(Level.ERROR, text)]


def test_a_traceback_of_another_process_is_a_record_of_its_own() -> None:
    """It does not belong to the record before it."""
    data = f"(EngineCore_DP0 pid=272) {HEAD}\n{TRACEBACK}".encode()
    first, second = records(data)
    assert (first.level, first.text) == (Level.INFO, "Starting")
    assert (second.level, second.text) == (Level.ERROR, TRACEBACK)


@pytest.mark.parametrize(
    "prefixes",
    [
        ("(Worker_TP0 pid=1) ", "(Worker_TP1 pid=2) "),
        ("(Worker_TP0 pid=1) ", ""),
        ("(RayWorkerWrapper pid=7) ", "(RayWorkerWrapper pid=8, ip=10.0.0.2) "),
        ("(pid=7) ", "(raylet) "),
    ],
)
def test_interleaved_tracebacks_are_assembled_by_process(prefixes: tuple[str, str]) -> None:
    """Lines of two workers alternate, and a third one logs in between."""
    lines = [prefix + line for line in TRACEBACK.split("\n") for prefix in prefixes]
    lines.insert(3, f"(APIServer pid=3) {HEAD}")
    found = records("\n".join([*lines, f"{prefixes[0]}{HEAD}", "end"]).encode())
    errors = [one for one in found if one.level is Level.ERROR]
    assert [one.text for one in errors] == [TRACEBACK, TRACEBACK]
    assert [one.text for one in found if one.level is Level.INFO] == ["Starting", "Starting", "end"]


def test_a_restart_between_interleaved_lines_loses_none() -> None:
    """A record confirms only what lies before the beginning of each open one."""
    first = f"(Worker_TP0 pid=1) {TRACEBACK.splitlines()[0]}\n"
    other = f"(APIServer pid=3) {HEAD}\n"
    rest = of_each_line("(Worker_TP0 pid=1) ", "\n".join(TRACEBACK.splitlines()[1:]))
    found = records((first + other * 2 + rest).encode())
    assert [one.text for one in found] == ["Starting", TRACEBACK, "Starting"]
    assert found[0].confirmed == 0
    assert found[-1].confirmed == len(first + other * 2 + rest) + 1


def test_a_traceback_that_was_logged_as_a_warning_stays_one() -> None:
    """Its level was chosen, and is not dropped."""
    data = f"{HEAD.replace('INFO', 'WARNING')}\n{TRACEBACK}".encode()
    (record,) = records(data)
    assert record.level is Level.WARNING


def test_a_progress_bar_is_what_a_terminal_shows_of_it() -> None:
    """Not each of its states."""
    bar = b"Loading:   0%|   | 0/2\rLoading:  50%|#  | 1/2\rLoading: 100%|###| 2/2"
    assert clean(bar) == "Loading: 100%|###| 2/2"
    assert clean(b"a\rb") == "a\\x0db"


@pytest.mark.parametrize("again", ["", "(EngineCore_DP0 pid=272) "])
def test_a_progress_bar_behind_the_prefix_of_its_process(again: str) -> None:
    """The prefix is at the beginning of the line, before all states, or before each."""
    states = [
        f"Capturing CUDA graphs: {n:3d}%|#####     | {n}/67 [00:0{n % 10}<?, ?it/s]"
        for n in range(68)
    ]
    line = "(EngineCore_DP0 pid=272) " + "".join(f"\r{again}{state}" for state in states)
    record = one(line)
    assert record.text == states[-1]
    assert (record.process, record.pid) == ("EngineCore_DP0", 272)
    record = one(f"(EngineCore_DP0 pid=272) Loading\r{states[0]}\r{states[5]}")
    assert record.text == f"Loading\\x0d{states[5]}"


def test_bytes_that_are_no_text() -> None:
    """They are escaped; TAB stays."""
    assert clean(b"a\xff\x00\t\xc3\xa4\x1b[1mz\x7f\xc2\x85") == "a\\xff\\x00\täz\\x7f\\u0085"


def test_a_record_that_grows_too_long_is_divided() -> None:
    """Nothing of it is lost, and each part has its head."""
    head = b"(EngineCore pid=1) ERROR 11-22 07:06:56 [core.py:11] "
    data = b"\r\n".join(head + b"%06d" % number + b"x" * 94 for number in range(100))
    parts = records(data, Bounds(1000, 1.0, Level.DEBUG))
    assert len(parts) > 5
    assert all(len(part.text) <= 1000 for part in parts)
    assert {(part.source, part.level, part.pid) for part in parts} == {
        ("core.py:11", Level.ERROR, 1)
    }
    lines = "\n".join(part.text for part in parts).split("\n")
    assert [int(line[:6]) for line in lines] == list(range(100))


def test_records_below_the_level_are_not_wanted() -> None:
    """They are read, so that the place moves on, and not delivered."""
    bounds = Bounds(65536, 1.0, Level.WARNING)
    found = records(b"INFO 11-22 07:06:56 [a.py:1] a\nERROR 11-22 07:06:56 [a.py:1] b", bounds)
    assert [record.wanted for record in found] == [False, True]


@pytest.mark.usefixtures("_new_york")
@pytest.mark.parametrize(
    ("now", "day", "clock", "expected"),
    [
        ((2027, 1, 1, 0, 5, 0), "12-31", "23:59:59", (2026, 12, 31, 23, 59, 59)),
        ((2026, 12, 31, 23, 59, 0), "01-01", "00:00:01", (2027, 1, 1, 0, 0, 1)),
        ((2026, 7, 4, 12, 0, 0), "07-06", "00:00:00", (2025, 7, 6, 0, 0, 0)),
        ((2026, 3, 1, 0, 0, 0), "02-29", "12:00:00", (2024, 2, 29, 12, 0, 0)),
    ],
)
def test_a_date_without_a_year(
    now: tuple[int, ...], day: str, clock: str, expected: tuple[int, ...]
) -> None:
    """Is the last one that there was, as nobody logs what is to come."""
    head = Parser().parse(f"INFO {day} {clock} [a.py:1] x", local(*now) / 1e9)
    assert head is not None
    assert head.time_ns == local(*expected)


def test_lines_without_a_time() -> None:
    """Are as old as the line before, unless they were just written."""
    data = b"first\nINFO 11-22 07:06:56 [a.py:1] x\nINFO:     uvicorn\nplain"
    times = [record.time_ns for record in records(data)]
    stated = local(2026, 11, 22, 7, 6, 56)
    assert times == [int(NOW * 1e9), stated, stated, stated]

    class Live:
        read_up_ns = int(NOW * 1e9) - 10**9

    times = [record.time_ns for record in records(data, file=Live)]
    assert times == [int(NOW * 1e9), stated, int(NOW * 1e9), int(NOW * 1e9)]


PIECES = st.sampled_from(
    [
        b"(EngineCore_DP0 pid=123) ",
        b"INFO 11-22 07:06:56 ",
        b"[core.py:12] ",
        b"[2026-11-22 07:06:56,699] LMCache ERROR:",
        b" (a.py:1:b)",
        b"\x1b[0m",
        b"\r\n",
        b"\n",
        b"\r",
        b"Traceback (most recent call last):",
        b'{"message": "a", "levelname": "INFO", "asctime": "2026-11-22 99:00:00,1"}',
        b'{"message": "\\ud800", "levelname": "INFO"}',
        b"[W1122 07:06:56.123456789 a.cpp:1] ",
        b"INFO:     ",
        b" ",
        b"99-99 99:99:99",
        b"100%|",
    ]
)


@given(st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=30).map(b"".join))
def test_whatever_comes_becomes_records(data: bytes) -> None:
    """Nothing raises, each record can be sent, and what they confirm grows."""
    found = records(data)
    assert found
    confirmed = [record.confirmed for record in found]
    assert confirmed == sorted(confirmed)
    assert confirmed[-1] == len(data) + 1
    assert len({record.end for record in found}) == len(found)
    for record in found:
        for text in (record.text, record.logger, record.process, record.file):
            assert text.encode().decode() == text
            assert not any(ord(c) < 32 and c not in "\t\n" for c in text)
