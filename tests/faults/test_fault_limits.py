# SPDX-License-Identifier: Apache-2.0
"""A run that exceeds a limit ends as a failure, even if its engine or supervisor is killed then."""

from __future__ import annotations

import os
import signal
import time

import pytest
from harness import alive
from world import GRACE, World

pytestmark = pytest.mark.ours_only("LMCache's launcher has no such settings")

NOTIFYING = """
import socket
def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
"""
NOTIFYING_PERL = """\
#!/usr/bin/perl
use Socket;
(my $path = $ENV{NOTIFY_SOCKET}) =~ s/^@/\\0/;
socket(my $s, PF_UNIX, SOCK_DGRAM, 0) or die;
send($s, "READY=1", 0, pack("S a*", AF_UNIX, $path)) or die "cannot send: $!";
sleep 60;
"""
"""The tests' Python may be in a directory that another user cannot enter."""

WATCHED = {"notify": True, "nice": 0, "watchdog": "1s"}
SCHEDULED = {"every": "1200ms", "timeout": "1s", "nice": 0}
LATE = "trap '' TERM; echo up $$ >> $NOTES; while :; do sleep 0.05; done"
"""A shell is up long before its time is over, also on a busy machine."""


@pytest.mark.fault(
    "G2 G6", "timeout: a scheduled run that takes too long is killed, the next comes"
)
def test_timeout(world: World) -> None:
    """The log names the limit."""
    world.file("all_x.sh", LATE)
    engine, pids = world.up(settings=SCHEDULED)
    since = time.monotonic()
    world.expect_gone(pids, 1 + GRACE + 1, since)
    world.wait_noted("up", 2)
    world.wait_logged(engine, "Did not finish within 1 s (timeout)", "next run in")


@pytest.mark.fault("G2", "timeout: the engine is killed during the grace period")
def test_engine_killed_while_a_run_ends(world: World) -> None:
    """Nothing is left, and no run follows."""
    world.file("all_x.sh", LATE)
    engine, _ = world.up(settings={**SCHEDULED, "stop_grace": 1})
    world.wait_logged(engine, "(timeout): ending it")
    pids = world.processes()
    engine.kill()
    world.expect_gone(pids, 1 + 1, time.monotonic())
    world.expect_nothing(1.5)


@pytest.mark.fault("G2", "schedule: the engine is killed while a plugin waits for its next run")
def test_engine_killed_while_waiting(world: World) -> None:
    """No run follows."""
    world.python("all_x.py", "note('up')")
    engine, _ = world.up(settings={"every": "1h"})
    world.wait_logged(engine, "next run in")
    engine.kill()
    world.expect_nothing(1.5)
    assert len(world.noted("up")) == 1


@pytest.mark.fault("G1 G2", "schedule: the supervisor is killed during a run; never two at a time")
def test_supervisor_killed_during_a_run(world: World) -> None:
    """The run dies, and the next supervisor begins the schedule."""
    world.file("all_x.sh", LATE)
    engine, (first,) = world.up(settings={"every": "1h"})
    since = time.monotonic()
    os.kill(world.supervisor_of(engine), signal.SIGKILL)
    world.expect_gone([first], 0.2, since)
    world.wait_noted("up", 2)
    world.wait(lambda: len(world.processes()) == 1, "one run")
    world.wait(lambda: engine.status().get("state") == "running", "its status")


@pytest.mark.fault("G2 G6", "watchdog: a plugin that hangs gets SIGABRT, is killed and restarted")
def test_watchdog(world: World) -> None:
    """Its children end with it."""
    world.python(
        "all_x.py",
        NOTIFYING + "signal.signal(signal.SIGABRT, lambda *_: note('abort'))\n"
        "if not os.fork(): os.setsid(); deaf(); note('child'); stay()\n"
        "deaf(); notify('READY=1'); note('up'); stay()",
    )
    engine, pids = world.up(settings=WATCHED)
    pids += world.wait_noted("child")
    world.wait_noted("abort")
    world.wait(lambda: not any(map(alive, pids)), "all of the run ended")
    world.wait_noted("up", 2)
    world.wait_logged(engine, "No WATCHDOG=1 within 1 s (watchdog): ending it with SIGABRT")


@pytest.mark.fault("G2", "watchdog: the engine is killed while a hung plugin is being ended")
def test_engine_killed_during_an_abort(world: World) -> None:
    """Nothing is left."""
    world.python(
        "all_x.py",
        NOTIFYING + "signal.signal(signal.SIGABRT, lambda *_: note('abort'))\n"
        "deaf(); notify('READY=1'); note('up'); stay()",
    )
    engine, pids = world.up(settings={**WATCHED, "stop_grace": 1})
    world.wait_noted("abort")
    engine.kill()
    world.expect_gone(pids, 1 + 1, time.monotonic())
    world.expect_nothing(1.5)


@pytest.mark.fault(
    "G2 G8", "notify: the supervisor is killed; the next one has a socket of its own"
)
def test_supervisor_killed_with_notifications(world: World) -> None:
    """The plugin that it starts is ready again."""
    world.python("all_x.py", NOTIFYING + "polite(); notify('READY=1'); note('up'); stay()")
    engine, (first,) = world.up(settings={**WATCHED, "watchdog": "1h"})
    since = time.monotonic()
    os.kill(world.supervisor_of(engine), signal.SIGKILL)
    world.expect_gone([first], 0.2, since)
    world.wait_noted("up", 2)
    world.wait(lambda: engine.status().get("ready"), "ready again")


@pytest.mark.fault("G6", "watchdog: a stopped supervisor does not take its own absence for silence")
def test_stopped_supervisor(world: World) -> None:
    """Signs of life that arrived meanwhile are read before the time is judged."""
    world.python(
        "all_x.py",
        NOTIFYING + "polite(); notify('READY=1'); note('up')\n"
        "while True: notify('WATCHDOG=1'); time.sleep(0.1)",
    )
    engine, _ = world.up(settings={**WATCHED, "watchdog": "4s"})
    world.wait(lambda: engine.status().get("ready"), "ready")
    supervisor = world.supervisor_of(engine)
    os.kill(supervisor, signal.SIGSTOP)
    time.sleep(5)
    os.kill(supervisor, signal.SIGCONT)
    world.wait(lambda: engine.status().get("ready"), "its status")
    assert "No WATCHDOG=1" not in engine.log()


@pytest.mark.fault("G2", "notify: a plugin of another user, which cannot enter the directory")
@pytest.mark.skipif(os.getuid() != 0, reason="only root runs plugins as other users")
def test_notifications_of_another_user(world: World) -> None:
    """Its credentials are the other user's."""
    world.file("all_x.pl", NOTIFYING_PERL)
    engine = world.engine(settings={"notify": True, "user": "nobody"})
    world.wait_logged(engine, "[all_x] Ready after")


AUTO_RELOAD = {"auto_reload": True, "nice": 0}


@pytest.mark.fault("G2", "auto_reload: the engine is killed while a location changes")
def test_engine_killed_with_auto_reload(world: World) -> None:
    """Nothing is left, and a later change starts nothing."""
    world.python("all_x.py")
    engine, pids = world.up(settings=AUTO_RELOAD)
    world.python("all_y.py")
    engine.kill()
    world.expect_gone(pids, GRACE + 1, time.monotonic())
    world.wait(lambda: not world.everything(), "all of the engine ended")
    world.python("all_z.py")
    world.expect_nothing(1.5)


@pytest.mark.fault("G8", "auto_reload: the supervisor is killed; the next one watches, too")
def test_supervisor_killed_with_auto_reload(world: World) -> None:
    """A change of the location still reloads."""
    world.python("all_x.py")
    engine, _ = world.up(settings=AUTO_RELOAD)
    os.kill(world.supervisor_of(engine), signal.SIGKILL)
    world.wait_noted("up", 2)
    world.python("all_y.py")
    world.wait_logged(engine, "[all_y] Started")
    world.wait_logged(engine, "A location has changed: reloading (auto_reload)")
