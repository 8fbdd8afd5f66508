# SPDX-License-Identifier: Apache-2.0
"""Files that cannot be read for a while, that come late, that have two names."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from log_follower import Follower, append


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log file's path."""
    return tmp_path / "vllm.log"


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Has calls of a function of ``os`` fail, as on a network file system; 0: none."""
    failing: dict[str, tuple[int, int]] = {}

    def _fail(name: str, code: int, times: int = 10**9) -> None:
        failing[name] = code, times

    def patch(name: str) -> None:
        real = getattr(os, name)

        def function(*values: object, **options: object) -> object:
            code, times = failing.get(name, (0, 0))
            if times > 0 and code:
                failing[name] = code, times - 1
                raise OSError(code, os.strerror(code))
            return real(*values, **options)

        monkeypatch.setattr(os, name, function)

    for name in ("pread", "fstat", "stat"):
        patch(name)
    yield _fail
    failing.clear()


def _unreadable(inode: int, patch: pytest.MonkeyPatch) -> None:
    """Have a file fail behind its beginning."""
    real = os.pread

    def pread(fd: int, size: int, position: int) -> bytes:
        if os.fstat(fd).st_ino == inode and position:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(fd, size, position)

    patch.setattr(os, "pread", pread)


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("name", ["pread", "fstat"])
def test_a_file_that_cannot_be_read_once(
    log: Path, fail: Callable[..., None], name: str, code: int
) -> None:
    """Is opened anew: nothing is lost, nothing comes twice."""
    append(log, "one")
    follower = Follower(log)
    assert follower.texts() == ["one"]
    append(log, "two")
    fail(name, code, 1)
    assert follower.texts() == ["two"]
    append(log, "three")
    assert follower.texts() == ["three"]
    ((text, lost),) = follower.lost
    assert "; retrying" in text
    assert lost == 0


def test_a_file_that_cannot_be_read_for_an_hour(log: Path, fail: Callable[..., None]) -> None:
    """Is asked for now and then; what was written and rotated in the meantime comes."""
    append(log, "one")
    follower = Follower(log)
    assert follower.texts() == ["one"]
    fail("pread", errno.EIO)
    append(log, "two")
    for _ in range(60):
        assert follower.texts() == []
    log.rename(f"{log}.1")
    append(log, "three")
    assert follower.texts() == []
    fail("pread", 0)
    for _ in range(3):
        follower.poll()
    assert follower.texts() == ["two", "three"]
    assert sum(lost for _, lost in follower.lost) == 0


def test_a_directory_that_is_away(log: Path, fail: Callable[..., None]) -> None:
    """The file is not given up while its path cannot be looked at."""
    append(log, "one")
    follower = Follower(log)
    assert follower.texts() == ["one"]
    append(log, "two")
    directory = log.parent
    hidden = directory.with_name("hidden")
    fail("fstat", errno.ESTALE)
    fail("stat", errno.EHOSTDOWN)
    directory.rename(hidden)
    for _ in range(20):
        assert follower.texts() == []
    hidden.rename(directory)
    fail("fstat", 0)
    fail("stat", 0)
    for _ in range(3):
        follower.poll()
    assert follower.texts() == ["two"]
    assert sum(lost for _, lost in follower.lost) == 0


def test_a_file_that_is_gone(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is lost, counted and said; the one in its position is followed."""
    append(log, "one")
    follower = Follower(log)
    assert follower.texts() == ["one"]
    append(log, "lost!")
    follower.poll()
    _unreadable(log.stat().st_ino, monkeypatch)
    log.rename(f"{log}.gone")
    append(log, "two")
    Path(f"{log}.gone").rename(log.with_name("elsewhere"))
    got: list[str] = []
    for _ in range(10):
        got += follower.texts()
    assert got == ["two"]
    assert [lost for _, lost in follower.lost if lost] == [6]
    assert "is gone: 6 bytes are lost" in follower.lost[-1][0]
    append(log, "three")
    assert follower.texts() == ["three"]


def test_a_deleted_file_that_cannot_be_read_once(log: Path, fail: Callable[..., None]) -> None:
    """Has no name to be opened by: it is read on all the same."""
    append(log, "one")
    with log.open("a") as file:
        follower = Follower(log)
        assert follower.texts() == ["one"]
        log.unlink()
        print("two", file=file, flush=True)
        fail("pread", errno.EIO, 2)
        assert follower.texts() == ["two"]
        print("three", file=file, flush=True)
        assert follower.texts() == ["three"]
    assert sum(lost for _, lost in follower.lost) == 0


def test_a_remembered_file_that_cannot_be_read_at_the_start(
    log: Path, fail: Callable[..., None]
) -> None:
    """Its place stays remembered until it can."""
    append(log, "one")
    follower = Follower(log)
    follower.take()
    append(log, "two")
    fail("pread", errno.EIO)
    follower.restart()
    assert follower.texts() == []
    follower.restart()
    assert follower.texts() == []
    fail("pread", 0)
    assert follower.texts() == ["two"]


def test_a_file_nobody_reads_holds_up_the_next_one_for_a_moment_only(
    log: Path, fail: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after it is delivered; it is still tried."""
    append(log, "one")
    follower = Follower(log)
    assert follower.texts() == ["one"]
    append(log, "bad")
    follower.poll()
    bad = log.stat().st_ino
    log.rename(f"{log}.1")
    append(log, "next")
    with monkeypatch.context() as patch:
        _unreadable(bad, patch)
        assert follower.texts() == ["next"]
    for _ in range(3):
        follower.poll()
    assert follower.texts() == ["bad"]


def test_from_the_end_where_nothing_matches_yet(tmp_path: Path) -> None:
    """Only what is there the first time is left out."""
    follower = Follower(tmp_path / "*.log", end=True)
    follower.poll()
    append(tmp_path / "vllm.log", "one", "two")
    assert follower.texts() == ["one", "two"]


@pytest.mark.parametrize("copy", [False, True])
def test_a_rotated_file_that_matches_the_pattern(tmp_path: Path, *, copy: bool) -> None:
    """With logrotate's dateext and extension; also after a restart, and when it is let go."""
    log = tmp_path / "vllm.log"
    follower = Follower(tmp_path / "*.log")
    got: list[str] = []
    for day in range(10, 24):
        append(log, f"{day} a {'x' * 300}", f"{day} b")
        got += follower.texts()
        to = tmp_path / f"vllm-202611{day}.log"
        if copy:
            to.write_bytes(log.read_bytes())
            os.truncate(log, 0)
        else:
            log.rename(to)
            got += follower.texts()
            if day == 12:
                follower.restart()
    assert [text[:4] for text in got] == [f"{day} {x}" for day in range(10, 24) for x in "ab"]


ROTATED = [
    "vllm-2026-11-{}T07-06-56.123.log",
    "vllm.2026-11-{}_07-06-56_123456.log",
    "vllm_202611{}-070656.log",
    "vllm-2026-11-{}T07:06:56.123456789Z.log",
    "vllm-2026-11-{}T07:06:56,123+01:00.log",
    "vllm.{}.log",
    "vllm.log.2026-11-{}T07:06:56.123",
    "vllm.log.2026-11-{}_07-06-56_123456",
]


@pytest.mark.parametrize("name", ROTATED)
@pytest.mark.parametrize("copy", [False, True])
def test_rotated_names_with_a_time_and_a_fraction(tmp_path: Path, name: str, *, copy: bool) -> None:
    """As loggers and logrotate write them: no line comes twice, also after a restart."""
    log = tmp_path / "vllm.log"
    follower = Follower(tmp_path / "*.log*")
    got: list[str] = []
    for day in range(10, 24):
        append(log, f"{day} a {'x' * 300}", f"{day} b")
        got += follower.texts()
        to = tmp_path / name.format(day)
        if copy:
            to.write_bytes(log.read_bytes())
            os.truncate(log, 0)
        else:
            log.rename(to)
        got += follower.texts()
        if day % 5 == 0:
            follower.restart()
    assert [text[:4] for text in got] == [f"{day} {x}" for day in range(10, 24) for x in "ab"]


def test_dated_files_without_an_original(tmp_path: Path) -> None:
    """A program may name its logs so: they are followed."""
    append(tmp_path / "vllm-2026-11-22.log", "one")
    follower = Follower(tmp_path / "*.log")
    assert follower.texts() == ["one"]


def test_a_link_to_the_current_file(tmp_path: Path) -> None:
    """Is the same file: its lines come once, also when it leads to the next one."""
    first, second, link = (tmp_path / name for name in ("vllm-1.log", "vllm-2.log", "current.log"))
    append(first, "one")
    link.symlink_to(first.name)
    follower = Follower(tmp_path / "*.log")
    assert follower.texts() == ["one"]
    append(second, "two")
    link.unlink()
    link.symlink_to(second.name)
    assert follower.texts() == ["two"]
    follower.restart()
    append(first, "three")
    append(second, "four")
    assert sorted(follower.texts()) == ["four", "three"]


def test_a_link_that_is_named(tmp_path: Path) -> None:
    """A path goes before what a pattern matches."""
    log, link = tmp_path / "vllm.log", tmp_path / "current"
    link.symlink_to(log.name)
    append(log, "one")
    follower = Follower(tmp_path / "*.log", link)
    assert [record.path for record in follower.take()] == [str(link)]


def test_many_files_that_were_rotated_while_nobody_followed(log: Path) -> None:
    """Are waited for together, not one after the other."""
    append(log, "one")
    follower = Follower(log)
    for number in range(6, 0, -1):
        follower.poll()
        log.rename(f"{log}.{number}")
        log.touch()
    follower.poll()
    follower.restart()
    append(log, "two")
    got: list[str] = []
    for _ in range(2):
        follower.poll()
        got += [record.text for record in follower.files.take(10, 10**9, follower.now)]
    assert got == ["one", "two"]
