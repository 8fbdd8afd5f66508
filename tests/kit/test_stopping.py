# SPDX-License-Identifier: Apache-2.0
"""SIGTERM: told at once, wherever the plugin waits."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from lmcache_plugin_adapter import kit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def signal_in(seconds: float, number: int = signal.SIGTERM) -> threading.Thread:
    """Send this process a signal, later."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.start()
    return timer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_wait_at_once(stop: kit.Stop, number: int) -> None:
    """It does not wait for its end, and every later wait is over at once."""
    assert not stop.is_set()
    assert stop.wait(0.01) is False
    timer = signal_in(0.05, number)
    begun = time.monotonic()
    assert stop.wait(30) is True
    assert stop.wait(30) is True
    assert time.monotonic() - begun < 5
    assert stop.is_set()
    timer.join()


def test_every_thread_wakes_up(stop: kit.Stop) -> None:
    """One signal, many who wait; a selector may be one of them."""
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(stop.wait(30))) for _ in range(5)]
    threads.append(
        threading.Thread(target=lambda: woken.append(bool(select.select([stop], [], [], 30)[0])))
    )
    for thread in threads:
        thread.start()
    os.kill(os.getpid(), signal.SIGTERM)
    for thread in threads:
        thread.join(10)
    assert woken == [True] * 6


def test_it_can_be_asked_for_without_a_signal(stop: kit.Stop) -> None:
    """From any thread."""
    threading.Timer(0.05, stop.set).start()
    assert stop.wait(30) is True
    stop.set()
    assert stop.wait(30) is True


def test_a_later_one_tells_the_earlier_one(stop: kit.Stop) -> None:
    """Both hear the signal; closed, they give it back."""
    before = signal.getsignal(signal.SIGTERM)
    second = kit.Stop()
    os.kill(os.getpid(), signal.SIGTERM)
    assert second.is_set()
    assert stop.is_set()
    second.close()
    assert signal.getsignal(signal.SIGTERM) == before


def test_it_is_made_in_the_main_thread() -> None:
    """Signals are handled there."""
    failures: list[Exception] = []

    def make() -> None:
        try:
            kit.Stop()
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert len(failures) == 1


@pytest.mark.parametrize(
    ("section", "grace"),
    [
        (None, 5.0),
        ({"stop_grace": 9}, 9.0),
        ({"stop_grace": 9, "plugins": {"worker_x": {"stop_grace": 2}}}, 2.0),
        ({"stop_grace": "wrong"}, 5.0),
    ],
)
def test_what_remains_of_the_grace_period(
    section: Any, grace: float, context: Callable[..., kit.Context]
) -> None:
    """All of it before the signal; then less and less, and not below 0."""
    ctx = context(config={"extra_config": {"runtime_plugins": section}})
    stop = kit.Stop(ctx)
    assert stop.remaining() == grace
    begun = time.monotonic()
    stop.set()
    first = stop.remaining()
    stop.wait(0)
    time.sleep(0.02)
    later = stop.remaining()
    assert grace - (time.monotonic() - begun) <= later < first <= grace
    stop._asked_at = time.monotonic() - 100
    assert stop.remaining() == 0
    stop.close()


def test_without_a_context_it_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And without an environment, the default stands."""
    stop = kit.Stop()
    assert stop.remaining() == 5
    stop.close()
    monkeypatch.setenv("LMCACHE_RUNTIME_PLUGIN_ROLE", "WORKER")
    config = '{"extra_config": {"runtime_plugins": {"stop_grace": 7}}}'
    monkeypatch.setenv("LMCACHE_RUNTIME_PLUGIN_CONFIG", config)
    stop = kit.Stop()
    assert stop.remaining() == 7
    stop.close()


def test_work_is_broken_off_in_the_middle_of_a_read(stop: kit.Stop) -> None:
    """The program goes on after the block."""
    ours, theirs = socket.socketpair()
    timer = signal_in(0.05)
    begun = time.monotonic()
    reached = False
    with ours, theirs, stop.interruptible():
        ours.recv(1)
        reached = True
    assert not reached
    assert stop.is_set()
    assert time.monotonic() - begun < 5
    timer.join()


def test_work_may_have_a_while(stop: kit.Stop) -> None:
    """What is done in time is not broken off; what is not, is."""
    with stop.interruptible(after=20):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        done = True
    assert done
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    begun = time.monotonic()
    with stop.interruptible(after=0.05):
        time.sleep(30)
        pytest.fail("not broken off")
    assert 0.04 < time.monotonic() - begun < 5


def test_work_that_begins_too_late_is_broken_off(stop: kit.Stop) -> None:
    """The signal came before the block."""
    stop.set()
    with stop.interruptible():
        time.sleep(30)
        pytest.fail("not broken off")


def test_other_exceptions_pass(stop: kit.Stop) -> None:
    """The block is no catch-all, and a handler in it does not stop the end."""
    with pytest.raises(KeyError), stop.interruptible():
        raise KeyError
    with stop.interruptible():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        except Exception:
            pytest.fail("caught")
    assert stop.is_set()


def test_nothing_is_broken_off_outside(stop: kit.Stop) -> None:
    """Before the block, between two and after."""
    with stop.interruptible():
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.is_set()


def test_a_signal_anywhere_around_a_block_is_never_lost(stop: kit.Stop) -> None:
    """Many tries, each with the signal a little later."""
    for step in range(300):
        stop._asked_at = None
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        received = threading.Event()
        sender = threading.Timer(step * 2e-6, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        earlier = signal.signal(signal.SIGUSR1, stop._signalled)
        sender.start()
        deadline = time.monotonic() + 20
        while not stop.is_set() and time.monotonic() < deadline:
            with stop.interruptible():
                received.is_set()
        sender.join()
        signal.signal(signal.SIGUSR1, earlier)
        assert stop.is_set()


def test_only_the_main_thread_is_interrupted(stop: kit.Stop) -> None:
    """Others are told so."""
    failures: list[Exception] = []

    def enter() -> None:
        try:
            with stop.interruptible():
                pass
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert "main thread" in str(failures)


BLOCKED = """\
import socket
from lmcache_plugin_adapter import kit

def main(ctx, stop):
    ours, theirs = socket.socketpair()
    for tick in kit.every(60, stop=stop):
        kit.info("reading")
        GUARD:
            ours.recv(1)
    kit.info(f"goodbye, {stop.remaining() > 0}")

raise SystemExit(kit.run(main))
"""


def test_a_plugin_that_reads_forever_ends_at_once(run_plugin: Any, tmp_path: Path) -> None:
    """Guarded, it says goodbye; not guarded, Python goes on reading until SIGKILL."""
    path = tmp_path / "scheduler_guarded.py"
    path.write_text(BLOCKED.replace("GUARD", "with stop.interruptible()"))
    plugin = run_plugin(path, stop_grace=20)
    plugin.wait_for("reading")
    begun = time.monotonic()
    assert plugin.stop() == 0
    assert time.monotonic() - begun < 10
    assert plugin.lines[-1] == ("info", "goodbye, True")

    path = tmp_path / "scheduler_open.py"
    path.write_text(BLOCKED.replace("GUARD", "if True"))
    plugin = run_plugin(path, stop_grace=0.5)
    plugin.wait_for("reading")
    assert plugin.stop() == -signal.SIGKILL
