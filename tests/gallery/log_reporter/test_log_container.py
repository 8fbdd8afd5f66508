# SPDX-License-Identifier: Apache-2.0
"""Lines as container runtimes write them: CRI's, Docker's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_follower import Follower, append

from lmcache_plugin_adapter.gallery.log_reporter.reading.container import Framed, unframe
from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Level

VLLM = "(EngineCore_DP0 pid=7) WARNING 11-22 07:06:56 [core.py:12] "
TIME = "2026-11-22T16:00:00.123456789Z"
TIME_NS = 1795363200123456789


def cri(text: str, tag: str = "F", stream: str = "stdout") -> str:
    """Return a line as containerd and CRI-O write it."""
    return f"{TIME} {stream} {tag} {text}"


def docker(text: str, tag: str = "F", stream: str = "stdout") -> str:
    """Return a line as Docker writes it."""
    end = "\n" if tag == "F" else ""
    return json.dumps({"log": text + end, "stream": stream, "time": TIME}, separators=(",", ":"))


FRAMES = pytest.mark.parametrize("frame", [cri, docker])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log file's path."""
    return tmp_path / "0.log"


@FRAMES
def test_the_frame_gives_the_time(log: Path, frame: Callable[..., str]) -> None:
    """And what stands in it is read as ever."""
    append(log, frame(f"{VLLM}Full"), frame(""), frame("plain", stream="stderr"))
    first, second = Follower(log).take()
    assert first.text == "Full\n"
    assert (first.level, first.process, first.pid) == (Level.WARNING, "EngineCore_DP0", 7)
    assert (first.file, first.line, first.format) == ("core.py", 12, "vllm")
    assert second.text == "plain"
    assert first.time_ns == second.time_ns == TIME_NS


@FRAMES
def test_a_traceback_is_one_record(log: Path, frame: Callable[..., str]) -> None:
    """Line by line in frames."""
    lines = ["Traceback (most recent call last):", '  File "a.py", line 1', "ValueError: 1", "next"]
    append(log, *[frame(line, stream="stderr") for line in lines])
    assert Follower(log).texts() == ["\n".join(lines[:3]), "next"]


@FRAMES
def test_a_line_that_was_divided(log: Path, frame: Callable[..., str]) -> None:
    """Is put together; also when one part is read before the next one is there."""
    parts = ["a" * 16384, "b" * 16384, "(file.py:12:logger)"]
    head = "[2026-11-22 07:06:56,699] LMCache ERROR: "
    follower = Follower(log, max_line=32768)
    follower.poll()
    append(log, frame(head + parts[0], "P"), frame(parts[1] + " ", "P"))
    follower.files.take(10, 10**9, follower.now)  # read, but not complete
    append(log, frame(parts[2]), frame("next"))
    first, second = follower.take()
    assert first.text == parts[0] + parts[1]
    assert (first.file, first.line, first.logger) == ("file.py", 12, "logger")
    assert first.level is Level.ERROR
    assert second.text == "next"


@FRAMES
def test_a_divided_line_is_bounded(log: Path, frame: Callable[..., str]) -> None:
    """As any record: nothing of it is lost."""
    append(log, *[frame("x" * 16000, "P") for _ in range(20)], frame("end"), frame("next"))
    texts = Follower(log).texts()
    assert max(map(len, texts)) <= 65536
    assert "".join(texts[:-1]) == "x" * 320_000 + "end"
    assert texts[-1] == "next"


@FRAMES
def test_parts_of_two_streams(log: Path, frame: Callable[..., str]) -> None:
    """Each stream's parts are put together, also where the streams alternate."""
    append(log, frame("out ", "P"), frame("err", stream="stderr"), frame("more"), frame("next"))
    assert sorted(Follower(log).texts()) == ["err", "next", "out more"]


def test_a_line_whose_end_never_comes(log: Path) -> None:
    """Is delivered all the same, and what comes after a restart is not added to it."""
    append(log, cri("half", "P"))
    follower = Follower(log)
    assert follower.texts(final=True) == ["half"]
    follower.restart()
    append(log, cri("other"))
    assert follower.texts() == ["other"]


@pytest.mark.parametrize(
    ("line", "framed"),
    [
        (f"{TIME} stdout F a", Framed(b"a", "stdout", TIME_NS, partial=False)),
        (f"{TIME} stderr P:tag a b", Framed(b"a b", "stderr", TIME_NS, partial=True)),
        (f"{TIME} stdout F", Framed(b"", "stdout", TIME_NS, partial=False)),
        (
            "2026-11-22T17:00:00.5+01:00 stdout F a",
            Framed(b"a", "stdout", 1795363200500000000, False),
        ),
        ("2026-11-22T16:00:00Z stdout F a", Framed(b"a", "stdout", 1795363200000000000, False)),
        ("2026-13-22T16:00:00Z stdout F a", None),
        (f"{TIME} stdlog F a", Framed(b"stdlog F a", "", TIME_NS, partial=False)),
        (f"{TIME}   File", Framed(b"  File", "", TIME_NS, partial=False)),
        ("2026-11-22T16:00:00.5Z stdout X a", None),
        ("16:00 stdout F a", None),
        ('{"log":"a"}', None),
        ('{"log":"a","stream":"stdout","time":"yesterday"}', None),
        ('{"log":5,"stream":"stdout","time":"2026-11-22T16:00:00Z"}', None),
    ],
)
def test_frames(line: str, framed: Framed | None) -> None:
    """What is a frame, and what is not."""
    assert unframe(line.encode()) == framed


@given(st.binary() | st.builds(lambda rest: TIME.encode() + b" stdout F " + rest, st.binary()))
def test_whatever_stands_there(raw: bytes) -> None:
    """It is read, or it is not."""
    framed = unframe(raw)
    assert framed is None or raw.endswith(framed.text) or raw.startswith(b"{")


def test_rotated_by_the_kubelet(tmp_path: Path) -> None:
    """``0.log.20261122-160000`` is the file that ``0.log`` was."""
    log = tmp_path / "ns_pod_uid" / "vllm" / "0.log"
    log.parent.mkdir(parents=True)
    append(log, cri("one"))
    follower = Follower(tmp_path / "*" / "*" / "*.log")
    assert follower.texts() == ["one"]
    append(log, cri("two"))
    log.rename(f"{log}.20261122-160000")
    append(log, cri("three"))
    assert follower.texts() == ["two", "three"]
