# SPDX-License-Identifier: Apache-2.0
"""Rounds at a fixed rate."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.kit import periodic

if TYPE_CHECKING:
    from pathlib import Path


class FakeClock:
    """A stop and a clock: time passes where somebody waits, or works."""

    def __init__(self, end: float) -> None:
        self.now = 1000.0
        self.end = self.now + end

    def monotonic(self) -> float:
        """Return the seconds so far."""
        return self.now

    def wait(self, seconds: float) -> bool:
        """Let time pass."""
        self.now = max(self.now, min(self.now + seconds, self.end))
        return self.now >= self.end


def rounds(clock: FakeClock, work: list[float], **options: Any) -> list[tuple[int, int, float]]:
    """Return number, missed ones and time of each round; each works for a while."""
    found = []
    stop: Any = clock
    for tick in kit.every(10, stop=stop, **options):
        found.append((int(tick), tick.missed, clock.now - 1000.0))
        clock.now += work[len(found) - 1] if len(found) <= len(work) else 0.0
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """A minute."""
    clock = FakeClock(60)
    monkeypatch.setattr(periodic, "time", clock)
    return clock


def test_nothing_drifts(clock: FakeClock) -> None:
    """However long the work takes, the next round is on time."""
    found = rounds(clock, [3, 0.5, 9.9], jitter=0)
    assert found == [(n, 0, 10.0 * n) for n in range(6)]


def test_missed_rounds_are_skipped_and_counted(clock: FakeClock) -> None:
    """The next one is on the grid again."""
    found = rounds(clock, [25, 10.5], jitter=0)
    assert found == [(0, 0, 0), (3, 2, 30), (5, 1, 50)]


def test_work_that_ends_on_the_minute_misses_nothing(clock: FakeClock) -> None:
    """The round that is due right then begins."""
    assert [n for n, _, _ in rounds(clock, [10, 20], jitter=0)] == [0, 1, 3, 4, 5]


def test_the_first_round_may_wait(clock: FakeClock) -> None:
    """At the end of the first period."""
    found = rounds(clock, [], jitter=0, at_once=False)
    assert found == [(n, 0, 10.0 * n) for n in range(1, 6)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.floats(0, 40), max_size=6), st.floats(0, 0.99), st.booleans())
def test_chance_delays_a_round_and_never_the_grid(
    work: list[float], jitter: float, at_once: bool
) -> None:
    """Each is late by less than its part of the period; numbers only grow."""
    with pytest.MonkeyPatch.context() as patch:
        clock = FakeClock(200)
        patch.setattr(periodic, "time", clock)
        found = rounds(clock, work, jitter=jitter, at_once=at_once)
    last = -1 if at_once else 0
    for number, missed, when in found:
        assert number == last + 1 + missed
        assert missed >= 0
        late = when - 10 * number
        assert -1e-6 <= late <= 10 * jitter + 1e-6
        last = number


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": 1, "jitter": 1}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    """When it begins."""
    with pytest.raises(ValueError, match="'seconds'"):
        next(kit.every(**wrong))


def test_a_signal_ends_the_wait(stop: kit.Stop) -> None:
    """And no further round begins."""
    numbers = []
    begun = time.monotonic()
    for tick in kit.every(30):  # the stop that there is
        numbers.append(tick)
        os.kill(os.getpid(), signal.SIGTERM)
    assert numbers == [0]
    assert stop.is_set()
    assert time.monotonic() - begun < 5


def test_what_is_due_is_not_begun_after_the_signal(stop: kit.Stop) -> None:
    """Even if its time has come."""
    for tick in kit.every(0.001, stop=stop):
        if tick > 3:
            stop.set()
            time.sleep(0.01)
            last = tick
    assert last == tick


PLUGIN = """\
from lmcache_plugin_adapter import kit

def main(ctx, stop):
    for tick in kit.every(0.05, stop=stop):
        kit.info(f"round {tick}")
    kit.info("goodbye")

raise SystemExit(kit.run(main))
"""


def test_a_real_plugin_ends_well_though_its_engine_was_killed(
    run_plugin: Any, tmp_path: Path
) -> None:
    """It has its grace period, and the log its last line."""
    path = tmp_path / "worker_rounds.py"
    path.write_text(PLUGIN)
    plugin = run_plugin(path, role="worker")
    plugin.wait_for("round 5")
    plugin.engine.kill()
    assert plugin.wait_exit() == 0
    assert plugin.lines[-1] == ("info", "goodbye")
