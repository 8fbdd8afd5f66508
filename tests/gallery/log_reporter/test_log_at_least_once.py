# SPDX-License-Identifier: Apache-2.0
"""Whatever a target does and whenever the plugin ends: every line arrives, in order at first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.log_reporter.delivery import Batching, LogDelivery
from lmcache_plugin_adapter.gallery.log_reporter.filtering import RecordFilter
from lmcache_plugin_adapter.gallery.log_reporter.reading import following
from lmcache_plugin_adapter.gallery.log_reporter.reading.assembling import Bounds
from lmcache_plugin_adapter.gallery.log_reporter.reading.files import FollowedFiles
from lmcache_plugin_adapter.gallery.log_reporter.reading.parsing import Parser
from lmcache_plugin_adapter.gallery.log_reporter.reading.positions import Positions
from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Level, Record
from lmcache_plugin_adapter.gallery.log_reporter.targets.target import (
    RecordsRefusedError,
    TargetUnavailableError,
)


class Target:
    """Does what it is told, batch by batch; then takes everything."""

    name = "Target"
    timeout = 1.0

    def __init__(self, answers: Iterator[str]) -> None:
        self.answers = answers
        self.got: list[str] = []
        self.largest = 0
        self.die: Callable[[], None] = lambda: None
        """Ends the plugin at once."""

    def send(self, records: Sequence[Record], timeout: float) -> None:
        """Take the records, or not, and say so, or not."""
        answer = next(self.answers, "take")
        self.largest = max(self.largest, len(records))
        if answer.endswith("die"):
            self.die()
        if answer.startswith("take"):
            self.got += [record.text for record in records]
        if answer.endswith(("fail", "die")):
            raise TargetUnavailableError("fails")
        if answer == "too large" and len(records) > 1:
            raise RecordsRefusedError("too large", too_large=True)
        if answer == "too large":
            self.got += [record.text for record in records]

    def close(self) -> None:
        """Nothing to close."""


class Script:
    """In the place of the signal to end: each wait is a step of the test's script."""

    def __init__(self, steps: Iterator[Callable[[], None]]) -> None:
        self.steps = steps
        self.over = False

    def end(self) -> None:
        """End now, in the middle of whatever is done."""
        self.over = True

    def is_set(self) -> bool:
        """Whether the script is over."""
        return self.over

    def wait(self, seconds: float) -> bool:
        """Do the next step, in no time."""
        step = next(self.steps, None)
        if step is None:
            self.over = True
        else:
            step()
        return self.over

    def remaining(self) -> float:
        """The end is abrupt, as with SIGKILL."""
        return 0.0 if self.over else 5.0


STEPS = st.lists(st.sampled_from(["write", "write", "rotate", "look", "kill"]), max_size=25)
ANSWERS = st.lists(
    st.sampled_from(["take", "fail", "take and fail", "too large", "die", "take and die"]),
    max_size=25,
)


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures and rotations cost no time."""

    class Backoff:
        def next(self) -> float:
            return 0.0

        def reset(self) -> None:
            """Nothing."""

    monkeypatch.setattr(kit, "Backoff", Backoff)
    monkeypatch.setattr(following, "_SETTLE", 0.0)


@pytest.mark.usefixtures("_no_pauses")
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None
)
@given(steps=STEPS, answers=ANSWERS, size=st.integers(1, 5))
def test_every_line_arrives(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], answers: list[str], size: int
) -> None:
    """Killed and started again at any time, batches failing with and without having arrived."""
    directory = tmp_path_factory.mktemp("once")
    log = directory / "vllm.log"
    log.touch()
    target = Target(iter(answers))
    written = rotations = 0

    def write() -> None:
        nonlocal written
        with log.open("a") as file:
            for _ in range(3):
                file.write(f"INFO 11-22 07:06:56 [a.py:1] {written}\n")
                written += 1

    def rotate() -> None:
        nonlocal rotations
        if rotations < following.HELD - 2:
            rotations += 1
            log.rename(f"{log}.{100 - rotations}")
            log.touch()

    actions = {"write": write, "rotate": rotate, "look": lambda: None}
    lives = " ".join(steps).split("kill")
    for life in [*lives, *["look " * 12] * 26]:
        names = life.split()
        with contextlib.closing(Positions(str(directory / "state"), "target")) as state:
            assert state.try_lock()
            files = FollowedFiles(
                [str(log)],
                4096,
                Parser(),
                Bounds(4096, 0.0, Level.DEBUG),
                state.load(),
                from_end=False,
                report=lambda text, lost: pytest.fail(text) if lost else None,
            )
            script = Script(iter([actions[name] for name in names]))
            target.die = script.end
            LogDelivery(
                target,
                files,
                state,
                Batching(size, 10**6, 0.0, 0.0),
                RecordFilter([], [], ""),
                script,
            ).run()
    first = list(dict.fromkeys(target.got))
    assert first == [str(number) for number in range(written)]
    assert target.largest <= size
    failures = sum(answer.startswith("take and") for answer in answers)
    killed = len(lives)
    assert len(target.got) - written <= size * (failures + killed)


@pytest.mark.usefixtures("_no_pauses")
def test_one_batch_is_all_that_stands_in_memory(tmp_path: Path) -> None:
    """However large the file is while the target is away."""
    log = tmp_path / "vllm.log"
    log.write_text("INFO 11-22 07:06:56 [a.py:1] " + ("x" * 1000 + "\n") * 20_000)
    files = FollowedFiles(
        [str(log)],
        4096,
        Parser(),
        Bounds(4096, 0.0, Level.DEBUG),
        None,
        from_end=False,
        report=lambda *_: None,
    )
    target = Target(iter(["fail"] * 1000))
    delivery = LogDelivery(
        target,
        files,
        None,
        Batching(1000, 100_000, 0.0, 0.0),
        RecordFilter([], [], ""),
        Script(iter([lambda: None])),
    )
    queued: list[int] = []
    send = target.send

    def watched(records: Sequence[Record], timeout: float) -> None:
        queued.append(sum(len(record.text) for record in delivery._queue))
        if len(queued) > 50:
            delivery._stop.wait(0)
            delivery._stop.wait(0)
        send(records, timeout)

    target.send = watched  # type: ignore[method-assign]
    delivery.run()
    assert max(queued) < 100_000 + 65_536 + 4096
    assert files.unread > 19_000_000
