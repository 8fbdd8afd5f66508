# SPDX-License-Identifier: Apache-2.0
"""However an engine ends, its plugins are warned, and gone in time."""

from __future__ import annotations

import os
import signal
import time

import pytest
from harness import alive, state_of, wait_until
from world import GRACE, POLITE, STUBBORN, World

NO_CORE = "import os, resource, signal, sys; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "

OVERFLOW = """
sys.setrecursionlimit(10**9)
nest = []
for _ in range(10**6):
    nest = [nest]
try:
    repr(nest)
except RecursionError:  # this Python guards the stack: end as the kernel would end it
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)
"""

ENDS = {
    "return from main": None,
    "sys.exit(3)": "sys.exit(3)",
    "exception in the main thread": (
        "class Fatal(BaseException): pass\nraise Fatal('in the main thread')"
    ),
    "os._exit(4)": "os._exit(4)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGHUP": "os.kill(os.getpid(), signal.SIGHUP)",
    "SIGINT to its group": "os.killpg(0, signal.SIGINT)",
    "SIGQUIT": "os.kill(os.getpid(), signal.SIGQUIT)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGSEGV": "os.kill(os.getpid(), signal.SIGSEGV)",
    "abort": "os.abort()",
    "stack overflow": OVERFLOW,
    "OOM-like SIGKILL to its whole group": "os.killpg(0, signal.SIGKILL)",
    "SIGSTOP, then SIGKILL": "os.kill(os.getpid(), signal.SIGSTOP)",
    "exec of another program": "os.execv('/bin/sleep', ['sleep', '60'])",
    "SIGKILL to its process tree, as vLLM does on Ctrl-C": (
        "import subprocess\n"
        "def tree(pid):\n"
        "    out = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(pid)],\n"
        "                         capture_output=True, text=True).stdout\n"
        "    return [pid] + [p for child in map(int, out.split()) for p in tree(child)]\n"
        "for pid in reversed(tree(os.getpid())):\n"
        "    try:\n"
        "        os.kill(pid, signal.SIGKILL)\n"
        "    except ProcessLookupError: pass\n"
    ),
}


@pytest.mark.fault("G2 G3", "{}")
@pytest.mark.parametrize("case", ENDS.values(), ids=ENDS)
def test_end(world: World, case: str | None, request: pytest.FixtureRequest) -> None:
    """The plugin gets SIGTERM and is gone."""
    world.python("all_x.py")
    engine, pids = world.up()
    since = time.monotonic()
    if case is None:
        engine.close()
    else:
        engine.tell(NO_CORE + "\n" + case)
    if "SIGSTOP" in request.node.name:
        wait_until(lambda: state_of(engine.pid) == "T")
        time.sleep(0.2)
        assert alive(pids[0]), "a stopped engine lives: so does its plugin"
        since = time.monotonic()
        engine.kill()
    elif case is not None and "exec" not in request.node.name:
        engine.process.wait(30)  # a busy machine may be slow to do what it is told
        since = time.monotonic()
    world.expect_gone(pids, GRACE + 1, since)
    assert world.noted("term") == pids, "the plugin had no SIGTERM"
    if "exec" in request.node.name:
        engine.kill()


@pytest.mark.fault("G2", "SIGKILL: 100 plugins that obey SIGTERM, within 1 s")
def test_hundred(world: World) -> None:
    """All within a second."""
    for number in range(100):
        world.file(f"all_{chr(97 + number // 26)}{chr(97 + number % 26)}.sh", "exec sleep 60")
    engine = world.engine(settings={"stop_grace": 5})
    world.wait(lambda: len(world.processes()) >= 100, "100 plugins run")
    pids = world.processes()
    time.sleep(0.5)
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, 1, since)


@pytest.mark.fault("G2", "SIGKILL: plugins that ignore SIGTERM, within grace + 1 s")
def test_stubborn(world: World) -> None:
    """Ten deaf ones are killed once their grace is over."""
    for letter in "abcdefghij":
        world.python(f"all_{letter}.py", STUBBORN)
    engine, pids = world.up(10)
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, GRACE + 1, since)


DAEMON = """
deaf(); note('up')
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    note('up'); stay()
stay()
"""


@pytest.mark.fault("G2", "SIGKILL: double-forked daemons deaf to SIGTERM, within grace + 1 s")
def test_daemons(world: World) -> None:
    """Sessions of their own do not hide them."""
    for letter in "abc":
        world.python(f"all_{letter}.py", DAEMON)
    engine, pids = world.up(6)
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, GRACE + 1, since)


@pytest.mark.fault("G2", "SIGKILL while its plugins are being started")
def test_while_starting(world: World) -> None:
    """At six moments of the start of 50 plugins."""
    for number in range(50):
        world.file(f"all_{chr(97 + number // 26)}{chr(97 + number % 26)}.sh", "exec sleep 60")
    for delay in (0.0, 0.02, 0.05, 0.08, 0.12, 0.2):
        engine = world.engine(launch=False)
        engine.do("1")
        engine.tell("launcher.launch_plugins()")
        time.sleep(delay)
        engine.kill()
    world.expect_nothing(GRACE + 1 + 4)


@pytest.mark.fault("G2", "within 1 ms of launch: {}")
@pytest.mark.parametrize(
    "case",
    ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"],
    ids=["os._exit(0)", "SIGKILL"],
)
def test_at_once(world: World, case: str) -> None:
    """No plugin stays, whether it had begun or not."""
    world.python("all_x.py")
    for _ in range(3):
        engine = world.engine(launch=False)
        engine.do("1")
        engine.tell(f"import os, signal\nlauncher.launch_plugins(); {case}")
        engine.process.wait(10)
    world.expect_nothing(GRACE + 1 + 4)


@pytest.mark.fault("G2 G8", "SIGKILL in the moment before its supervisor says that plugins run")
@pytest.mark.ours_only("LMCache's launcher has no supervisor")
def test_before_hello(world: World) -> None:
    """What the supervisor tells a dead engine must not end the supervisor."""
    world.python("all_x.py", DAEMON)
    for number in range(3):
        engine, _ = world.up(2 if number == 0 else 1)
        # Closed as by death, while the engine itself lives a little longer.
        engine.do("import socket; launcher._keeper.connection.socket.shutdown(socket.SHUT_RDWR)")
        engine.kill()
    world.expect_nothing(GRACE + 1 + 1)


@pytest.mark.fault("G2", "SIGKILL, and a forked copy of the engine lives on")
def test_copy_lives(world: World) -> None:
    """The original's end counts."""
    world.python("all_x.py")
    engine, pids = world.up()
    engine.do("import os, time\nif not os.fork(): time.sleep(4); os._exit(0)")
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, GRACE + 1, since)


@pytest.mark.fault("G2 G3", "SIGKILL while a plugin is in its crash loop")
def test_crash_loop(world: World) -> None:
    """Nothing is started any more once the engine is gone."""
    world.python("all_x.py", "note('up'); sys.exit(1)")
    engine, _ = world.up(3 if world.launcher.ours else 1)
    engine.kill()
    world.expect_nothing(GRACE + 1)
    count = len(world.noted("up"))
    time.sleep(0.5)
    assert len(world.noted("up")) == count


@pytest.mark.fault("G3", "SIGKILL of the server and its four worker processes at once")
def test_several_engines(world: World) -> None:
    """Each engine's plugins get their SIGTERM."""
    world.python("worker_x.py", POLITE)
    engines = []
    pids: list[int] = []
    for _ in range(4):
        engine, more = world.up()
        engines.append(engine)
        pids += more
    since = time.monotonic()
    for engine in engines:
        os.kill(engine.pid, signal.SIGKILL)
    world.expect_gone(pids, GRACE + 1, since)
    assert sorted(world.noted("term")) == sorted(pids), "not every plugin had SIGTERM"
