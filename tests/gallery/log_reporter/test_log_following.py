# SPDX-License-Identifier: Apache-2.0
"""Files are followed through rotation, truncation, restarts; every line comes, in order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_follower import Follower, append, copytruncate

from lmcache_plugin_adapter.gallery.log_reporter.reading import following
from lmcache_plugin_adapter.gallery.log_reporter.reading.positions import (
    Positions,
    StateError,
    name_for,
)
from lmcache_plugin_adapter.gallery.log_reporter.reading.tailed_file import FilePosition


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log file's path."""
    return tmp_path / "vllm.log"


def test_lines_come_as_they_are_written(log: Path) -> None:
    """Once each; a line that is not complete waits."""
    append(log, "one", "two")
    follower = Follower(log)
    assert follower.texts() == ["one", "two"]
    with log.open("a") as file:
        file.write("thr")
    assert follower.texts() == []
    append(log, "ee", "four")
    assert follower.texts() == ["three", "four"]


def test_a_file_that_comes_later(log: Path) -> None:
    """Is read from its beginning, also where an existing one would be from its end."""
    append(log, "history")
    later = log.with_name("later.log")
    follower = Follower(log, later, end=True)
    assert follower.texts() == []
    append(log, "one")
    append(later, "two")
    assert sorted(follower.texts()) == ["one", "two"]
    log.rename(f"{log}.1")
    append(log, "three")
    assert follower.texts() == ["three"]


def test_the_last_line_at_the_end(log: Path) -> None:
    """A process that was killed leaves half a line: it comes, too, when it is final."""
    log.write_text("one\nhal")
    follower = Follower(log)
    assert follower.texts() == ["one"]
    assert follower.texts(final=True) == ["hal"]
    follower.restart()
    append(log, "f")
    assert follower.texts() == ["f"]


def test_renamed_and_made_anew(log: Path) -> None:
    """What is left in the old file comes before what is in the new one."""
    append(log, "one")
    follower = Follower(log)
    follower.take()
    append(log, "two")
    log.rename(f"{log}.1")
    append(log, "three")
    assert follower.texts() == ["two", "three"]


def test_the_new_file_waits_for_the_old_one(log: Path) -> None:
    """Whoever still writes to the renamed one has a second for it."""
    append(log, "one")
    follower = Follower(log)
    follower.take()

    def soon(seconds: float) -> list[str]:
        follower.now += seconds
        follower.files.poll(follower.now)
        return [record.text for record in follower.files.take(99, 9999, follower.now)]

    log.rename(f"{log}.1")
    append(log, "three")
    assert soon(0.1) == []
    append(Path(f"{log}.1"), "two")
    assert soon(0.1) == ["two"]
    assert soon(0.1) == []
    assert soon(2) == ["three"]


def test_a_writer_that_never_reopens(log: Path) -> None:
    """As vLLM with its stderr: what goes to the renamed file is read on."""
    with log.open("a") as file:
        follower = Follower(log)
        follower.poll()
        for number in range(3):
            log.rename(f"{log}.{number}")
            log.touch()
            file.write(f"{number}\n")
            file.flush()
            assert follower.texts() == [str(number)]


def test_several_rotations_at_once(log: Path) -> None:
    """Those in between are read, too, and older ones are not."""
    append(Path(f"{log}.9"), "history")
    os.utime(f"{log}.9", (1, 1))
    append(log, "one")
    follower = Follower(log)
    follower.take()
    append(log, "two")
    log.rename(f"{log}.3")
    for number in (2, 1):
        append(log, f"between {number}")
        log.rename(f"{log}.{number}")
    append(log, "three")
    assert follower.texts() == ["two", "between 2", "between 1", "three"]
    assert not follower.lost


def test_truncated_after_a_copy(log: Path) -> None:
    """What is left is read from the copy, then the file from its beginning."""
    append(log, "one")
    follower = Follower(log)
    follower.take()
    append(log, "two")
    copytruncate(log, Path(f"{log}.1"))
    append(log, "three, longer than what was there before")
    assert follower.texts() == ["two", "three, longer than what was there before"]
    assert not follower.lost


def test_a_writer_without_append_after_truncation(log: Path) -> None:
    """``vllm serve > FILE``: it writes on where it was, behind a hole of zero bytes."""
    with log.open("w") as file:
        file.write("one\n" * 50_000)
        file.flush()
        follower = Follower(log)
        assert len(follower.take()) == 50_000
        for number in range(3):
            copytruncate(log, Path(f"{log}.{number}"))
            file.write(f"after {number}\n")
            file.flush()
            assert follower.texts() == [f"after {number}"]
        assert log.stat().st_size > 200_000
    assert not follower.lost


def test_truncated_without_a_copy(log: Path) -> None:
    """What is lost is counted and said."""
    append(log, "one")
    follower = Follower(log)
    follower.take()
    append(log, "lost 1", "lost 2")
    follower.poll()
    os.truncate(log, 0)
    append(log, "three")
    assert follower.texts() == ["three"]
    ((text, lost),) = follower.lost
    assert lost == 14
    assert "truncated before all of it was delivered: at least 14 bytes are lost" in text


def test_rotated_too_often(log: Path) -> None:
    """So many files are held; of the oldest, what is lost is counted and said."""
    append(log, "x" * 99)
    follower = Follower(log)
    for number in range(following.HELD + 1):
        follower.poll()
        log.rename(f"{log}.{number}")
        append(log, f"{number}")
    follower.poll()
    assert sum(lost for _, lost in follower.lost) >= 100
    assert f"rotated {following.HELD} times" in follower.lost[0][0]
    assert follower.texts()[-1] == str(following.HELD)


def test_deleted_while_it_is_read(log: Path) -> None:
    """What is open can be read to its end."""
    append(log, "one")
    follower = Follower(log)
    follower.poll()
    log.unlink()
    assert follower.texts() == ["one"]
    append(log, "two")
    assert follower.texts() == ["two"]


def test_restart(log: Path) -> None:
    """Goes on after what was acknowledged."""
    append(log, "one", "two")
    follower = Follower(log)
    records = follower.take(ack=False)
    assert records[0].tailed is not None
    records[0].tailed.acked = records[0].confirmed
    follower.restart()
    assert follower.texts() == ["two"]


@pytest.mark.parametrize("rotate", ["rename", "copy"])
def test_rotated_while_nobody_follows(log: Path, rotate: str) -> None:
    """The old file is found by its inode or its first bytes, and the ones after it."""
    append(log, "one", "two")
    follower = Follower(log)
    follower.take()
    follower.restart()
    append(log, "three")
    for number in (2, 1):
        if rotate == "rename":
            log.rename(f"{log}.{number}")
        else:
            copytruncate(log, Path(f"{log}.{number}"))
        append(log, f"after {number}")
    state = follower.state
    follower.files.close()
    follower.state = state
    follower.files = follower.make()
    assert follower.texts() == ["three", "after 2", "after 1"]
    assert not follower.lost


def test_rotated_and_compressed_while_nobody_follows(log: Path) -> None:
    """What cannot be read any more is said."""
    append(log, "one", "two")
    follower = Follower(log)
    follower.take(1)
    follower.poll()
    follower.state = follower.files.positions()
    follower.files.close()
    log.rename(f"{log}.1.gz")
    append(log, "three")
    follower.files = follower.make()
    assert follower.texts() == ["three"]
    ((text, lost),) = follower.lost
    assert lost == 4
    assert "at least 4 bytes of that are lost" in text


def test_another_file_with_the_same_inode(log: Path) -> None:
    """``vllm serve > FILE`` begins a new log in the old file: it is read from its start."""
    append(log, "one", "two")
    follower = Follower(log)
    follower.take()
    follower.restart()
    follower.files.close()
    log.write_text("other\nlines, more than before\n")
    follower.files = follower.make()
    assert follower.texts() == ["other", "lines, more than before"]


def test_long_lines_are_cut(log: Path) -> None:
    """At the bound, with a mark; the next line is whole."""
    log.write_bytes(b"a" * 300_000 + b"\nb\n" + b"c" * 300 + b"\n" + b"d" * 200_000)
    follower = Follower(log, max_line=256)
    assert follower.texts() == [
        "a" * 256 + " … [299,744 bytes cut]",
        "b",
        "c" * 256 + " … [44 bytes cut]",
    ]
    assert follower.texts(final=True) == ["d" * 256 + " … [199,744 bytes cut]"]


def test_no_character_is_cut(log: Path) -> None:
    """The line ends before the one that does not fit."""
    for text in ("ä", "€", "🙂"):
        for shift in range(4):
            append(log, "x" * shift + text * 200)
    follower = Follower(log, max_line=256)
    texts = follower.texts()
    assert len(texts) == 12
    for text in texts:
        assert set(text.partition(" …")[0]) <= set("xä€🙂")


def test_patterns(tmp_path: Path) -> None:
    """Files that match, also later ones; not what rotation left, and no pipes."""
    for name in ("a.log", "b.log", "b.log.1", "c.log-20261122", "d.log.gz", "e.txt"):
        append(tmp_path / name, name)
    os.mkfifo(tmp_path / "f.log")
    follower = Follower(tmp_path / "*.log*")
    assert sorted(follower.texts()) == ["a.log", "b.log"]
    append(tmp_path / "g-2026-11-22.log", "g")
    assert follower.texts() == ["g"]


def test_nothing_is_read_when_nothing_changes(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle look costs two calls of stat."""
    append(log, "one")
    with log.open("a") as file:
        file.write("half a line")
    follower = Follower(log)
    follower.take()

    def pread(*_: object) -> bytes:
        raise AssertionError("read")

    monkeypatch.setattr(os, "pread", pread)
    assert follower.texts() == []


STEPS = st.lists(
    st.sampled_from(
        ["write", "write", "write", "half", "rename", "copy", "take", "poll", "restart", "some"]
    ),
    max_size=40,
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None
)
@given(steps=STEPS)
def test_whatever_happens_every_line_comes_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """Writing, rotating, truncating after a copy, restarting: nothing lost, nothing twice."""
    log = tmp_path_factory.mktemp("follow") / "vllm.log"
    log.touch()
    follower = Follower(log)
    follower.poll()
    got: list[str] = []
    written = rotations = 0
    half = seen = False
    tick = 10**18
    for step in [*steps, "end"]:
        if step in ("write", "half"):
            seen = False
            with log.open("a") as file:
                if not half:
                    file.write(f"line {written} ")
                    written += 1
                half = step == "half"
                if not half:
                    file.write("end\n")
            tick += 10**9
            os.utime(log, ns=(tick, tick))
        elif step in ("rename", "copy") and not half and rotations < following.HELD - 2:
            for number in range(rotations, 0, -1):
                Path(f"{log}.{number}").rename(f"{log}.{number + 1}")
            rotations += 1
            if not seen:
                follower.poll()  # what was never seen cannot be found in a copy
            seen = False
            if step == "rename":
                log.rename(f"{log}.1")
                log.touch()
            else:
                copytruncate(log, Path(f"{log}.1"))
            tick += 10**9
            os.utime(log, ns=(tick, tick))
        elif step == "take":
            seen = True
            got += follower.texts()
        elif step == "some":
            got += follower.texts(count=1)
            follower.restart()
        elif step == "poll":
            seen = True
            follower.poll()
        elif step == "restart":
            follower.restart()
            follower.poll()
    got += follower.texts()
    assert got == [f"line {number} end" for number in range(written - half)]
    assert not [text for text, lost in follower.lost if lost]
    follower.files.close()


def test_the_state_is_private_and_whole(tmp_path: Path) -> None:
    """0600 in a directory 0700, written at one stroke, held by one at a time."""
    directory = tmp_path / "state" / "x"
    state = Positions(str(directory), "loki")
    assert state.try_lock()
    assert state.load() is None
    positions = {"/log": [FilePosition(1, 2, 3, 4, 0, 2, "ab")]}
    state.save(positions)
    assert state.load() == positions
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {entry.name: entry.stat().st_mode & 0o777 for entry in directory.iterdir()} == {
        "loki.json": 0o600,
        "loki.json.lock": 0o600,
    }
    other = Positions(str(directory), "loki")
    assert not other.try_lock()
    state.close()
    assert other.try_lock()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"version":2,"files":{}}',
        b'{"version":1,"files":{"/l":[{}]}}',
        b'{"version":1,"files":{"/l":[{"device":1,"inode":1,"offset":-1,"size":1}]}}',
        b'{"version":1,"files":{"/l":[{"device":1,"inode":1,"offset":1,"size":1,"length":9}]}}',
    ],
)
def test_a_damaged_state_is_said(tmp_path: Path, data: bytes) -> None:
    """And never used."""
    state = Positions(str(tmp_path), "loki")
    (tmp_path / "loki.json").write_bytes(data)
    with pytest.raises(StateError, match=r"damaged|another version"):
        state.load()


def test_engine_processes_have_states_of_their_own() -> None:
    """By what they are, and by their files."""
    names = {
        name_for("scheduler", ["/a"], "/"),
        name_for("worker 0", ["/a"], "/"),
        name_for("scheduler", ["/b"], "/"),
        name_for("scheduler", ["a"], "/x"),
    }
    assert len(names) == 4
    assert name_for("scheduler", ["a"], "/") == name_for("scheduler", ["/a"], "/y")
