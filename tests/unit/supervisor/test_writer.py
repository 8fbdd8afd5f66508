# SPDX-License-Identifier: Apache-2.0
"""The writer: whole records, bounded, on a thread of its own that alone may block."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
from harness import wait_until

from lmcache_plugin_adapter.supervisor.output.log_file import RotatedFile
from lmcache_plugin_adapter.supervisor.output.stderr_route import (
    PIPE_BUF,
    StreamTarget,
    write_all,
)
from lmcache_plugin_adapter.supervisor.output.writer import QUEUE_BYTES, Writer


@pytest.fixture
def pipe():
    """A pipe."""
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def written(target, data: bytes, monkeypatch) -> list[bytes]:
    """Return the writes that ``data`` becomes."""
    writes: list[bytes] = []
    monkeypatch.setattr(
        "lmcache_plugin_adapter.supervisor.output.stderr_route.write_all",
        lambda _fd, part: writes.append(part),
    )
    target.write(data)
    return writes


def test_writes_to_a_pipe_end_at_a_record_and_stay_whole(pipe, monkeypatch) -> None:
    """Each write is at most PIPE_BUF bytes, ends at a record's end, and nothing is lost."""
    data = b"".join(b"%d %s\n" % (n, b"x" * (n % 300)) for n in range(500))
    writes = written(StreamTarget(pipe[1]), data, monkeypatch)
    assert b"".join(writes) == data
    assert all(len(part) <= PIPE_BUF and part.endswith(b"\n") for part in writes)
    assert len(writes) < len(data) / PIPE_BUF * 1.2


def test_record_over_pipe_buf_goes_alone(pipe, monkeypatch) -> None:
    """It cannot be kept whole, but it takes no other with it."""
    data = b"a\n" + b"x" * 5000 + b"\n" + b"b\n"
    assert b"x" * 5000 + b"\n" in written(StreamTarget(pipe[1]), data, monkeypatch)


def test_regular_file_is_written_in_one_piece(tmp_path, monkeypatch) -> None:
    """Where nothing can mix, larger batches are cheaper."""
    with (tmp_path / "log").open("wb") as file:
        assert len(written(StreamTarget(file.fileno()), b"line\n" * 10_000, monkeypatch)) == 1


def test_non_blocking_descriptor_is_waited_for(pipe) -> None:
    """The flag is the engine's: it is obeyed by waiting, not changed."""
    read_end, write_end = pipe
    os.set_blocking(write_end, False)
    writer = Writer(lambda: None)
    writer.put(StreamTarget(write_end), b"x" * 200_000 + b"\n", 1)
    received = 0
    while received < 200_001:
        received += len(os.read(read_end, 65536))
    assert os.get_blocking(write_end) is False


def test_full_queue_drops_and_counts_then_goes_on(pipe) -> None:
    """Nobody reads: what is over the bound is counted; once somebody does, it is told."""
    read_end, write_end = pipe
    room: list[bool] = []
    writer = Writer(lambda: room.append(True))
    target = StreamTarget(write_end)
    record = b"x" * 999 + b"\n"
    taken = sum(writer.put(target, record * 100, 100) for _ in range(100))
    assert writer.congested
    assert 10 <= taken <= QUEUE_BYTES // 100_000 + 6
    assert writer.collect_losses()[0] == (100 - taken) * 100
    received = 0
    while received < taken * 100_000:
        received += len(os.read(read_end, 1 << 16))
    wait_until(lambda: room)
    writer.drain(2, time.monotonic() + 2)
    assert not writer.congested
    assert writer.put(target, record, 1)


def test_a_burst_wakes_the_writer_before_the_queue_is_full(tmp_path) -> None:
    """All plugins that end at once are read in one turn of the loop: nothing of it is dropped."""
    later: list[Callable[[], None]] = []
    writer = Writer(lambda: None, later.append)
    path = tmp_path / "log"
    with path.open("wb") as file:
        target = StreamTarget(file.fileno())
        writer.put(target, b"first\n", 1)
        later.pop()()
        wait_until(lambda: path.stat().st_size == 6)
        record = b"x" * 99_999 + b"\n"
        assert all(writer.put(target, record, 1) for _ in range(5))
        wait_until(lambda: path.stat().st_size > 6)


def test_closed_reader_is_counted_not_raised(capfd) -> None:
    """EPIPE: dropped, counted, with its reason."""
    ours, theirs = socket.socketpair()
    theirs.close()
    writer = Writer(lambda: None)
    with ours:
        target = StreamTarget(ours.fileno())
        writer.put(target, b"record\n", 1)
        wait_until(lambda: writer.is_refused_by(target))
        assert writer.collect_losses() == (0, {target: (1, "Broken pipe")})


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_counted_and_recovered_from(tmp_path) -> None:
    """ENOSPC: dropped, counted and told once; other targets go on, and recovery is told."""
    told: list[bool] = []
    writer = Writer(lambda: told.append(True))
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        target = StreamTarget(fd)
        for number in range(1, 4):
            writer.put(target, b"record\n", 1)
            wait_until(lambda number=number: writer.written == number)
        wait_until(lambda: told)
        with (tmp_path / "log").open("wb") as file:
            writer.put(StreamTarget(file.fileno()), b"record\n", 1)
            wait_until(lambda: writer.written == 4)
        assert (tmp_path / "log").read_bytes() == b"record\n"
        assert writer.collect_losses() == (0, {target: (3, "No space left on device")})
        assert (len(told), writer.is_refused_by(target)) == (1, True)
        with (tmp_path / "log").open("wb") as file:
            os.dup2(file.fileno(), fd)
        writer.put(target, b"again\n", 1)
        wait_until(lambda: len(told) == 2)
        assert not writer.is_refused_by(target)
    finally:
        os.close(fd)


class Scripted:
    """A target that raises what it is told to, else keeps what it gets."""

    batch_bytes = 10

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.got: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Take ``data``, or raise."""
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.got.append(data)

    def write_ready(self, data: bytes) -> bytes:
        """Take ``data``, or raise."""
        self.write(data)
        return b""


def test_trouble_of_any_kind_does_not_end_the_writer() -> None:
    """Memory runs out in a write: that batch is counted, the next is written."""
    target = Scripted(MemoryError())
    writer = Writer(lambda: None)
    for number in range(3):
        writer.put(target, b"%d\n" % number, 1)
        wait_until(lambda number=number: writer.written == number + 1)
    assert target.got == [b"1\n", b"2\n"]
    assert writer.collect_losses() == (0, {target: (1, "MemoryError")})


def test_batches_are_as_large_as_a_target_wants_them() -> None:
    """Whole records, in order; one that is too long goes alone."""
    target = Scripted()
    later: list[Callable[[], None]] = []
    writer = Writer(lambda: None, later.append)
    writer.put(target, b"1\n", 1)
    later.pop()()
    wait_until(lambda: writer.written == 1)
    writer.put(target, b"22\n333\n4444\n" + b"5" * 20 + b"\n", 4)
    writer.put(target, b"66\n", 1)
    writer.put(target, b"77\n", 1)
    writer.put(target, b"88\n999\n", 2)
    later.pop()()
    assert writer.drain(5, time.monotonic() + 5)
    assert target.got == [
        b"1\n",
        b"22\n333\n",
        b"4444\n",
        b"5" * 20 + b"\n",
        b"66\n77\n",
        b"88\n999\n",
    ]


def test_drain_goes_on_with_a_slow_reader_and_counts_the_rest() -> None:
    """A reader that takes something now and then gets all, until time is up."""
    read_end, write_end = os.pipe()
    writer = Writer(lambda: None)
    for _ in range(10):
        writer.put(StreamTarget(write_end), (b"x" * 99 + b"\n") * 500, 500)
    received: list[bytes] = []
    enough = threading.Event()

    def read() -> None:
        while not enough.wait(0.02):
            received.append(os.read(read_end, 4096))

    reader = threading.Thread(target=read)
    reader.start()
    began = time.monotonic()
    assert writer.drain(1.5, began + 0.2)  # time is up while it goes on
    assert writer.drain(1.5, began + 30)
    assert time.monotonic() - began > 1.5
    enough.set()
    reader.join()
    for _ in range(10):
        writer.put(StreamTarget(write_end), (b"x" * 99 + b"\n") * 500, 500)
    assert not writer.drain(0.2, time.monotonic() + 30)  # nobody reads any more
    writer.give_up()
    dropped = writer.collect_losses()[0]
    assert 3000 < dropped < 5000
    reader = threading.Thread(
        target=lambda: received.extend(iter(partial(os.read, read_end, 9999), b""))
    )
    reader.start()
    assert writer.drain(5, time.monotonic() + 5)
    os.close(write_end)
    reader.join()
    os.close(read_end)
    assert b"".join(received).count(b"\n") + dropped == 10_000


def test_write_all_finishes_short_writes(pipe) -> None:
    """A partial write is continued where it ended."""
    read_end, write_end = pipe
    os.set_blocking(write_end, True)
    write_all(write_end, b"abc")
    assert os.read(read_end, 10) == b"abc"


def rotated(tmp_path, max_bytes: int, files: int) -> RotatedFile:
    """Return a rotated file that is written to directly."""
    path = os.fsencode(tmp_path / "logs" / "x.log")
    return RotatedFile(Writer(lambda: None), path, max_bytes, files)


def test_rotation_by_size(tmp_path) -> None:
    """No file grows over its bound, records stay whole, the oldest go."""
    file = rotated(tmp_path, 100, 3)
    for number in range(50):
        file.write(b"record %02d\n" % number)
    file.close()
    logs = {path.name: path.read_bytes() for path in (tmp_path / "logs").iterdir()}
    assert sorted(logs) == ["x.log", "x.log.1", "x.log.2"]
    kept = logs["x.log.2"] + logs["x.log.1"] + logs["x.log"]
    assert kept.endswith(b"record 49\n")
    assert all(len(data) <= 100 and data.endswith(b"\n") for data in logs.values())


def test_batch_larger_than_the_file_is_split(tmp_path) -> None:
    """A batch goes over several files, and one record larger than a file stands alone."""
    file = rotated(tmp_path, 100, 10)
    file.write(b"a" * 30 + b"\n" + b"b" * 500 + b"\n" + b"c\n" * 40)
    file.close()
    sizes = sorted(path.stat().st_size for path in (tmp_path / "logs").iterdir())
    assert sum(sizes) == 31 + 501 + 80
    assert sizes[-1] == 501


def test_one_file_only(tmp_path) -> None:
    """``files: 1`` begins anew at the bound."""
    file = rotated(tmp_path, 20, 1)
    for number in range(5):
        file.write(b"record %d\n" % number)
    file.close()
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["x.log"]


def test_file_moved_by_logrotate_is_opened_anew(tmp_path) -> None:
    """Somebody else's rotation is followed."""
    file = rotated(tmp_path, 1000, 3)
    file.write(b"one\n")
    (tmp_path / "logs" / "x.log").rename(tmp_path / "logs" / "old")
    file.write(b"two\n")
    file.close()
    assert (tmp_path / "logs" / "x.log").read_bytes() == b"two\n"


def test_link_in_the_place_of_the_log_is_not_followed(tmp_path) -> None:
    """A log file is never written through a link."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "x.log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        rotated(tmp_path, 1000, 3).write(b"one\n")
    assert not (tmp_path / "victim").exists()


def no_thread(*_args) -> None:
    """Stand for the limit of processes."""
    raise RuntimeError("can't start new thread")


def test_without_a_thread_records_are_written_all_the_same(pipe, monkeypatch) -> None:
    """Where no thread can be started, who puts a record writes; it never waits."""
    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    read_end, write_end = pipe
    writer = Writer(lambda: None)
    target = StreamTarget(write_end)
    assert writer.put(target, b"one\n", 1)
    assert os.read(read_end, 100) == b"one\n"
    record = b"x" * 99 + b"\n"
    for _ in range(2000):  # more than the pipe takes: the rest is queued, not waited for
        assert writer.put(target, record, 1)
    taken = os.read(read_end, 1 << 20)
    assert len(taken) % len(record) == 0
    writer.drain(0.1, time.monotonic() + 1)
    taken += os.read(read_end, 1 << 20)
    monkeypatch.undo()
    writer.put(target, b"last\n", 1)  # a thread can be started again: it writes the rest
    while not taken.endswith(b"last\n"):
        taken += os.read(read_end, 1 << 20)
    assert taken == record * 2000 + b"last\n"


def test_without_a_thread_a_refusal_is_counted(tmp_path, monkeypatch) -> None:
    """A full disk is a full disk, whoever writes."""
    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    full = os.open("/dev/full", os.O_WRONLY)
    writer = Writer(lambda: None)
    target = StreamTarget(full)
    writer.put(target, b"one\n", 1)
    os.close(full)
    assert writer.collect_losses() == (0, {target: (1, "No space left on device")})
    file = RotatedFile(writer, os.fsencode(tmp_path / "log"), 100, 2)
    file.put(b"two\n", 1)
    assert (tmp_path / "log").read_bytes() == b"two\n"
