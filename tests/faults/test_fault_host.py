# SPDX-License-Identifier: Apache-2.0
"""Odd engines that live on: their plugins live as they should, and no longer."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time

import pytest
from harness import alive, gone
from world import GRACE, POLITE, World


@pytest.mark.fault("G2", "launch from a thread that ends at once: plugins live")
def test_thread(world: World) -> None:
    """A plugin's life does not hang on the launching thread."""
    world.python("all_x.py")
    engine = world.engine(launch=False)
    engine.do(
        "import threading, gc\nt = threading.Thread(target=launcher.launch_plugins)\n"
        "t.start(); t.join(); del t; gc.collect()"
    )
    (pid,) = world.wait_noted("up")
    time.sleep(0.3)
    assert alive(pid), "the plugin died with the thread"


@pytest.mark.fault("G4", "a forked copy exits with its exit handlers: plugins live")
def test_copy_exits(world: World) -> None:
    """As a worker that was made by fork does at its end."""
    world.python("all_x.py")
    engine, (pid,) = world.up()
    engine.do(
        "import os, atexit\nchild = os.fork()\n"
        "if not child:\n    atexit._run_exitfuncs(); os._exit(0)\n"
        "os.waitpid(child, 0)"
    )
    time.sleep(0.3)
    assert alive(pid), "the plugin was stopped by the copy"
    assert not world.noted("term")


@pytest.mark.fault("G4", "a forked copy stops its launcher: plugins live")
def test_copy_stops(world: World) -> None:
    """Only the original may stop them."""
    world.python("all_x.py")
    engine, (pid,) = world.up()
    engine.do(
        "import os\nchild = os.fork()\n"
        "if not child:\n    launcher.stop_plugins(); os._exit(0)\n"
        "os.waitpid(child, 0)"
    )
    time.sleep(0.3)
    assert alive(pid), "the plugin was stopped by the copy"


@pytest.mark.fault("G1", "launch twice: one copy")
def test_twice(world: World) -> None:
    """However often it is asked for."""
    world.python("all_x.py")
    engine, _ = world.up()
    engine.do("launcher.launch_plugins()")
    time.sleep(0.7)
    assert len(world.noted("up")) == 1, f"{len(world.noted('up'))} copies run"


@pytest.mark.fault("G1", "two launchers of one role: one copy")
def test_two_launchers(world: World) -> None:
    """LMCache's connector may be made twice in one process."""
    world.python("all_x.py")
    engine, _ = world.up()
    engine.do("other = RuntimePluginLauncher(config, 'worker', 1, 0); other.launch_plugins()")
    time.sleep(0.7)
    assert len(world.noted("up")) == 1, f"{len(world.noted('up'))} copies run"


@pytest.mark.fault("G1", "launch after stop starts them again")
def test_launch_after_stop(world: World) -> None:
    """A launcher may be used again."""
    world.python("all_x.py")
    engine, first = world.up()
    engine.do("launcher.stop_plugins(); launcher.launch_plugins()")
    world.wait_noted("up", 2)
    assert gone(first[0])


@pytest.mark.fault("G2 G3", "stop returns when all are gone")
def test_stop_waits(world: World) -> None:
    """What is said to be stopped is."""
    world.python("all_x.py", "polite()\nif os.fork() == 0: note('up'); stay()\nnote('up'); stay()")
    engine, pids = world.up(2)
    since = time.monotonic()
    engine.do("launcher.stop_plugins()")
    assert all(gone(pid) for pid in pids), "alive when stop returned"
    world.expect_gone(pids, GRACE + 1, since)


@pytest.mark.fault("G4", "stop from a signal handler, while stopping")
def test_stop_in_handler(world: World) -> None:
    """No deadlock."""
    world.python("all_x.py")
    engine, pids = world.up()
    engine.do(
        "import os, signal\n"
        "signal.signal(signal.SIGUSR1, lambda *_: launcher.stop_plugins())\n"
        # Each in the one before: 100 of them, as many as Python's stack has room for.
        "nested = []\n"
        "def again(*_):\n"
        "    nested.append(1)\n"
        "    if len(nested) == 100: signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "    launcher.stop_plugins()\n"
        "signal.signal(signal.SIGALRM, again)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n"
        "os.kill(os.getpid(), signal.SIGUSR1); launcher.stop_plugins()\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)"
    )
    world.expect_gone(pids, 0.1, time.monotonic())


@pytest.mark.fault("G4", "stop from eight threads at once")
def test_stop_in_threads(world: World) -> None:
    """All return, and all is gone."""
    world.python("all_x.py")
    engine, pids = world.up()
    engine.do(
        "import threading\n"
        "threads = [threading.Thread(target=launcher.stop_plugins) for _ in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]"
    )
    world.expect_gone(pids, 0.1, time.monotonic())


@pytest.mark.fault("G8", "1,000 open descriptors in the engine: none reaches a plugin")
def test_descriptors(world: World) -> None:
    """Inheritable ones as well."""
    world.python(
        "all_x.py",
        "fds = [fd for fd in os.listdir('/proc/self/fd')]\n"
        "note(f'fds={len(fds) - 1}'); polite(); note('up'); stay()",
    )
    engine = world.engine(launch=False)
    engine.do(
        "import os, resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        "kept = [os.open('/dev/null', os.O_RDONLY) for _ in range(1000)]\n"
        "[os.set_inheritable(fd, True) for fd in kept[::2]]\n"
        "launcher.launch_plugins()"
    )
    world.wait_noted("up")
    assert world.noted("fds=3"), "more than 0-2 open"


WITHOUT_CLOSE_RANGE = """
import ctypes, resource, struct
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
for most in (1_000_000, hard):
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, max(most, hard)))
        break
    except (OSError, ValueError):
        pass
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 436), (0x06, 0, 0, 0x50026), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
libc.prctl(22, 2, ctypes.byref(program), 0, 0)
refused = libc.syscall(436, 1000, 1000, 0)
"""


@pytest.mark.fault("G8 G9", "a limit of a million open files, no close_range: plugins start")
def test_many_possible_descriptors(world: World) -> None:
    """What is open is closed, not what could be; nothing is reported."""
    world.python("all_x.py")
    engine, _ = world.up(prelude=WITHOUT_CLOSE_RANGE)
    assert engine.do("refused") == -1
    assert "does not answer" not in engine.log()


@pytest.mark.fault("G4", "descriptors 0-2 of the engine closed")
def test_closed(world: World) -> None:
    """Plugins run, with sane ones of their own."""
    world.python(
        "all_x.py",
        "print('out', flush=True); print('err', file=sys.stderr, flush=True)\n"
        "polite(); note('up'); stay()",
    )
    engine = world.engine(launch=False)
    engine.tell(
        "import os, time\nfor fd in (0, 1, 2): os.close(fd)\n"
        "launcher.launch_plugins()\n"
        "end = time.monotonic() + 60\n"
        "while not os.path.exists(os.environ['NOTES']) and time.monotonic() < end:\n"
        "    time.sleep(0.05)\n"
        "time.sleep(1); launcher.stop_plugins(); os._exit(0)"
    )
    pids = world.wait_noted("up")
    engine.process.wait(30)
    world.expect_gone(pids, GRACE + 1, time.monotonic())


@pytest.mark.fault("G4 G5", "stderr of the engine is {}")
@pytest.mark.parametrize(
    "case",
    ["pipe", "gone", "full", "terminal"],
    ids=[
        "a pipe that nobody reads",
        "a pipe whose reader is gone",
        "a full disk",
        "a terminal that was closed",
    ],
)
def test_stderr(world: World, case: str) -> None:
    """A plugin that floods goes on all the same, and stops in time."""
    world.python(
        "all_x.py",
        "polite(); note('up')\n"
        "for n in range(40): print('x' * 99, flush=False) or (n % 10 or sys.stdout.flush())\n"
        "for n in range(40): os.write(1, (b'y' * 99 + b'\\n') * 200)\n"
        "note('written'); stay()",
    )
    ends: list[int] = []
    if case in ("pipe", "gone"):
        reader, stderr = os.pipe()
        ends = [reader]
    elif case == "full":
        stderr = os.open("/dev/full", os.O_WRONLY)
    else:
        master, stderr = os.openpty()
        ends = [master]
    engine = world.engine(stderr=stderr)
    os.close(stderr)
    try:
        world.wait_noted("up")
        if case in ("terminal", "gone"):
            os.close(ends.pop())
        world.wait_noted("written")
        since = time.monotonic()
        pids = world.noted("up")
        assert engine.do("launcher.stop_plugins() or 1 + 1") == 2
        world.expect_gone(pids, GRACE + 1, since)
        engine.kill()
        world.expect_nothing(GRACE + 2)
    finally:
        for fd in ends:
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.mark.fault("G4", "a busy engine whose interpreter lock is held: output goes on")
def test_lock_held(world: World) -> None:
    """The plugin's lines do not wait for the engine."""
    world.python(
        "all_x.py",
        "polite(); note('up')\n"
        "for n in range(40): os.write(1, (b'y' * 99 + b'\\n') * 200)\n"
        "note('written'); stay()",
    )
    engine = world.engine(launch=False)
    # PyDLL calls keep the lock: for a minute no other thread of the engine runs.
    engine.tell(
        "import ctypes\nlauncher.launch_plugins()\n"
        "import time; time.sleep(0.02)\nctypes.PyDLL(None).sleep(60)"
    )
    begun = time.monotonic()
    world.wait_noted("written")
    world.measured(f"all written {time.monotonic() - begun:.1f} s after the launch")
    engine.kill()


@pytest.mark.fault("G9", "{}: the engine serves on, and something says why")
@pytest.mark.parametrize(
    "case",
    [
        {"restart": "sometimes"},
        {"stop_grace": -1},
        {"unknown_key": 1},
        ["not", "a", "mapping"],
        {"plugins": {"all_x": 7}},
    ],
    ids=[
        "restart: sometimes",
        "stop_grace: -1",
        "a key that is none",
        "a list for a mapping",
        "settings of a plugin that are a number",
    ],
)
def test_settings(world: World, case: object) -> None:
    """The plugin runs with defaults."""
    if not world.launcher.ours:
        pytest.skip("LMCache's launcher has no settings")
    world.python("all_x.py")
    engine = world.engine(launch=False)
    engine.do(
        f"config.extra_config['runtime_plugins'] = {case!r}; config.values = dict("
        "config.values, extra_config=config.extra_config); launcher.launch_plugins()"
    )
    world.wait_noted("up")
    world.wait_logged(engine, "runtime_plugins")


@pytest.mark.fault("G9", "a configuration that cannot be JSON")
def test_no_json(world: World) -> None:
    """Plugins run with what can be said of it."""
    world.python("all_x.py")
    world.engine(prelude="def fail(): raise TypeError('a set is no JSON')\nconfig.to_json = fail")
    world.wait_noted("up")


@pytest.mark.fault("G8", "five launches and stops: no descriptor, thread, child or zombie more")
def test_nothing_kept(world: World) -> None:
    """In the engine, from /proc."""
    world.python("all_x.py")
    engine, _ = world.up()
    engine.do("launcher.stop_plugins()")

    def counts() -> tuple[int, int, int]:
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(engine.pid)], capture_output=True, check=False
        )
        return (
            len(os.listdir(f"/proc/{engine.pid}/fd")),
            len(os.listdir(f"/proc/{engine.pid}/task")),
            len(children.stdout.split()),
        )

    world.wait(lambda: counts()[2] == 0, "no child or zombie left of the first")
    time.sleep(0.3)  # so that its thread has ended, too
    before = counts()
    for number in range(5):
        engine.do("launcher.launch_plugins()")
        world.wait_noted("up", number + 2)
        engine.do("launcher.stop_plugins()")
    world.wait(
        lambda: all(now <= then for now, then in zip(counts(), before, strict=True)),
        f"descriptors, threads, children: {before}",
    )


@pytest.mark.fault("G2", "{} when a plugin still starts its own children")
@pytest.mark.parametrize("case", ["stop", "kill"], ids=["stop", "SIGKILL"])
def test_children(world: World, case: str) -> None:
    """Children of the group and of other sessions go with it."""
    world.python(
        "all_x.py",
        "note('up')\n"
        "for n in range(4):\n"
        "    if not os.fork():\n"
        "        if n % 2: os.setsid()\n"
        "        note('up'); stay()\n" + POLITE.replace("note('up'); ", ""),
    )
    engine, pids = world.up(5)
    since = time.monotonic()
    if case == "stop":
        engine.do("launcher.stop_plugins()")
    else:
        engine.kill()
    world.expect_gone(pids, GRACE + 1, since)
