# SPDX-License-Identifier: Apache-2.0
"""Whatever a plugin does, it harms neither the engine nor the other plugins, and ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import alive, gone, state_of
from world import ALLOWANCE, GRACE, POLITE, World


@pytest.mark.fault("G2", "stop: ignores SIGTERM, is killed after its grace period")
def test_deaf(world: World) -> None:
    """Not before, and not much later."""
    world.python("all_x.py", "deaf(); note('up'); stay()")
    engine, pids = world.up()
    since = time.monotonic()
    engine.do("launcher.stop_plugins()")
    taken = world.expect_gone(pids, GRACE + 1, since)
    assert taken >= GRACE - 0.05, "killed before its grace period was over"


@pytest.mark.fault("G2", "stop: double-forked daemons in sessions of their own")
def test_daemon(world: World) -> None:
    """They are found and ended."""
    world.python(
        "all_x.py",
        "if not os.fork():\n    os.setsid()\n    if os.fork(): os._exit(0)\n"
        "    deaf(); note('up'); stay()\n" + POLITE,
    )
    engine, pids = world.up(2)
    since = time.monotonic()
    engine.do("launcher.stop_plugins()")
    world.expect_gone(pids, GRACE + 1, since)


@pytest.mark.fault("G2", "stop: a chain that forks and exits without end")
def test_fork_chain(world: World) -> None:
    """Each process lives for a millisecond: by the time it is seen, it is another."""
    world.python(
        "all_x.py",
        "deaf(); note('up')\n"
        "if os.fork(): stay()\n"
        "os.setsid()\n"
        "end = time.monotonic() + 30\n"
        "while time.monotonic() < end:\n"
        "    if os.fork(): os._exit(0)\n"
        "    time.sleep(0.001)\n",
    )
    engine, pids = world.up()
    since = time.monotonic()
    engine.do("launcher.stop_plugins()")
    world.expect_gone(pids, GRACE + 1, since)
    world.expect_nothing(1.5)


FORK_CHAIN = r"""
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Each process lives for a fraction of a millisecond; with an argument, in a session of its own. */
int main(int count, char **words) {
    signal(SIGTERM, SIG_IGN);
    if (fork()) { pause(); return 0; }
    setsid();
    for (time_t end = time(0) + 20; time(0) < end; usleep(100)) {
        int beat = open(getenv("BEAT"), O_CREAT | O_APPEND | O_WRONLY, 0600);
        if (beat < 0 || write(beat, "x", 1) != 1) _exit(1);
        close(beat);
        if (fork() > 0) _exit(0);
        if (count > 1) setsid();
    }
    return 0;
}
"""


@pytest.mark.fault("G2", "{}: a chain of 100 µs processes, written in C")
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(
    "case",
    ["kill ", "kill hop", "stop hop"],
    ids=[
        "SIGKILL of the engine",
        "SIGKILL of the engine, each in a session of its own",
        "stop, each in a session of its own",
    ],
)
def test_fast_chain(world: World, case: str) -> None:
    """By the time that one is found in a list of processes, it has become another."""
    end, hop = case.split(" ")
    source = world.directory / "chain.c"
    source.write_text(FORK_CHAIN)
    program = world.directory / "chain"
    subprocess.run(["cc", "-o", program, source], check=True)
    beat = world.directory / "beat"
    world.file("all_x.sh", f'echo "up $$" >> "$NOTES"\nexec {program} {hop}\n')
    engine, _ = world.up(env={"BEAT": str(beat)})
    world.wait(lambda: beat.exists() and beat.stat().st_size > 50, "the chain runs")
    since = time.monotonic()
    if end == "kill":
        engine.kill()
    else:
        engine.do("launcher.stop_plugins()")
    # No list of processes shows reliably what changes so fast: its heartbeat does.
    size, still = beat.stat().st_size, time.monotonic()
    while time.monotonic() < still + 0.2:
        now = beat.stat().st_size
        if now != size:
            size, still = now, time.monotonic()
        assert still - since < GRACE + 1 + ALLOWANCE, "the chain goes on"
        time.sleep(0.002)
    world.measured(f"gone after {still - since:.2f} s")


@pytest.mark.fault("G2", "SIGKILL of the engine: a fork storm of 300 processes")
def test_fork_storm(world: World) -> None:
    """All of it is ended."""
    world.python(
        "all_x.py",
        "deaf(); note('up')\n"
        "for n in range(300):\n"
        "    if not os.fork():\n"
        "        if n % 3 == 0: os.setsid()\n"
        "        time.sleep(60); os._exit(0)\n"
        "note('stormed'); stay()",
    )
    engine, _ = world.up()
    world.wait_noted("stormed", seconds=40)
    pids = world.processes()
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, GRACE + 1, since)


@pytest.mark.fault("G2", "stop: changes its process group")
def test_group(world: World) -> None:
    """The first process has left its group."""
    world.python(
        "all_x.py",
        "child = os.fork()\n"
        "if not child: os.setpgid(0, 0); deaf(); note('up'); stay()\n"
        "while os.getpgid(child) != child: time.sleep(0.01)\n"
        "polite(); note('up'); stay()",
    )
    engine, pids = world.up(2)
    since = time.monotonic()
    engine.do("launcher.stop_plugins()")
    world.expect_gone(pids, GRACE + 1, since)


@pytest.mark.fault("G3", "stop: stopped itself with SIGSTOP, can still say goodbye")
def test_stops_itself(world: World) -> None:
    """It is continued."""
    world.python("all_x.py", "polite(); note('up'); os.kill(os.getpid(), signal.SIGSTOP); stay()")
    engine, pids = world.up()
    world.wait(lambda: state_of(pids[0]) == "T", "stopped")
    since = time.monotonic()
    engine.do("launcher.stop_plugins()")
    world.expect_gone(pids, GRACE + 1, since)
    assert world.noted("term") == pids, "it could not act on SIGTERM"


@pytest.mark.fault("G6", "crash loop: slowed down, and each end is said")
def test_crash_loop(world: World) -> None:
    """Restarts back off; the engine is told of each."""
    world.python("all_x.py", "note('up'); sys.exit(3)")
    engine = world.engine()
    begun = time.monotonic()
    world.wait_noted("up", 4)
    time.sleep(max(0.0, 2 - (time.monotonic() - begun)))
    assert len(world.noted("up")) < 25, "no backoff"
    world.wait_logged(engine, "code 3", "starting again")


@pytest.mark.fault("G6", "exits at once with 0: said, not restarted")
def test_exits(world: World) -> None:
    """A plugin may be done."""
    world.python("all_x.py", "note('up')")
    engine = world.engine()
    world.wait_noted("up")
    world.wait_logged(engine, "code 0")
    time.sleep(0.5)
    assert len(world.noted("up")) == 1


@pytest.mark.fault("G6", "killed by a signal: named")
def test_killed(world: World) -> None:
    """People read names, not numbers."""
    world.python("all_x.py", "note('up'); os.kill(os.getpid(), signal.SIGUSR2)")
    engine = world.engine()
    world.wait_noted("up")
    world.wait_logged(engine, "SIGUSR2")


@pytest.mark.fault("G6", "a crash is told with its last lines")
def test_last_lines(world: World) -> None:
    """In the same record."""
    world.python("all_x.py", "raise ValueError('the reason')")
    engine = world.engine()
    world.wait(
        lambda: any(
            "xited with code 1" in line and "ValueError: the reason" in line
            for line in engine.log().splitlines()
        ),
        "a record with exit code and last output",
    )


@pytest.mark.fault("G2 G8", "leaves a process behind when it ends: ended before the restart")
def test_leftover(world: World) -> None:
    """What was left does not run beside the next."""
    world.python(
        "all_x.py", "if not os.fork():\n    deaf(); note('left'); stay()\ntime.sleep(0.2)\n"
    )
    world.engine()
    (left,) = world.wait_noted("left")
    world.expect_gone([left], GRACE + 1, time.monotonic(), "leftovers")


@pytest.mark.fault("G8", "dies between fork and exec: no zombie, started again")
@pytest.mark.ours_only("LMCache's launcher does not start anything again")
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_dies_before_exec(world: World) -> None:
    """A child that is killed in the moment before its program."""
    (world.directory / "shim.c").write_text(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <signal.h>\n#include <stdlib.h>\n"
        "#include <string.h>\n#include <unistd.h>\n#include <fcntl.h>\n"
        "int execve(const char *path, char *const argv[], char *const envp[]) {\n"
        '    const char *once = getenv("DIES_ONCE");\n'
        '    if (once && argv[1] && strstr(argv[1], "all_x")'
        " && open(once, O_CREAT | O_EXCL, 0600) >= 0)\n"
        "        kill(getpid(), SIGKILL);\n"
        "    return ((int (*)(const char *, char *const[], char *const[]))"
        'dlsym(RTLD_NEXT, "execve"))(path, argv, envp);\n}\n'
    )
    command = ["cc", "-shared", "-fPIC", "-o", "shim.so", "shim.c", "-ldl"]
    subprocess.run(command, cwd=world.directory, check=True)
    world.python("all_x.py")
    once = world.directory / "once"
    engine, _ = world.up(
        env={"LD_PRELOAD": str(world.directory / "shim.so"), "DIES_ONCE": str(once)}
    )
    assert once.exists()
    world.wait_logged(engine, "Killed by SIGKILL")


@pytest.mark.fault("G6", "cannot be executed: said with what to do, not tried again")
@pytest.mark.ours_only("LMCache's launcher runs .py and .sh only")
def test_cannot_exec(world: World) -> None:
    """The kernel's refusal is final."""
    world.file("all_x", b"\x7fNOT-AN-ELF\n")
    engine = world.engine(settings={"restart": "always"})
    world.wait_logged(engine, "Cannot run")
    time.sleep(0.4)
    assert engine.log().count("Started") == 1


@pytest.mark.fault("G3 G5", "what it writes during its grace period is logged")
def test_last_words(world: World) -> None:
    """To the last line."""
    world.python(
        "all_x.py",
        "def last(*_):\n    time.sleep(0.2); print('last words', flush=True); os._exit(0)\n"
        "signal.signal(signal.SIGTERM, last); note('up'); stay()",
    )
    engine, _ = world.up()
    engine.do("launcher.stop_plugins()")
    world.wait_logged(engine, "last words")


@pytest.mark.fault("G6", "its file is replaced while it runs: the next start runs the new one")
@pytest.mark.ours_only("LMCache's launcher does not start anything again")
def test_replaced(world: World) -> None:
    """As a deployment does it, by a rename."""
    path = world.python("all_x.py", "polite(); note('up'); stay()")
    engine, pids = world.up()
    world.python(".new", "polite(); note('new'); stay()").rename(path)
    os.kill(pids[0], signal.SIGKILL)
    world.wait_noted("new")
    assert alive(engine.pid)


@pytest.mark.fault("G6", "its file is deleted while it runs: it runs on; a restart says why not")
@pytest.mark.ours_only("LMCache's launcher does not start anything again")
def test_deleted(world: World) -> None:
    """The interpreter's complaint is in the log."""
    path = world.python("all_x.py")
    engine, pids = world.up()
    path.unlink()
    time.sleep(0.2)
    assert alive(pids[0])
    os.kill(pids[0], signal.SIGKILL)
    world.wait_logged(engine, "No such file")


@pytest.mark.fault("G2", "100 plugins end in the same moment: all are reaped, all is said")
def test_all_end(world: World) -> None:
    """The supervisor does not drown."""
    for number in range(100):
        name = f"all_{chr(97 + number // 26)}{chr(97 + number % 26)}.sh"
        world.file(name, f'echo "up $$" >> "$NOTES"; read _ < {world.directory}/gate; exit 0')
    gate = world.directory / "gate"
    os.mkfifo(gate)
    engine = world.engine(settings={"stop_grace": 5})
    pids = world.wait_noted("up", 100, 40)
    world.wait(lambda: len(world.processes()) == 100, "100 plugins wait")
    since = time.monotonic()
    writer = os.open(gate, os.O_RDWR)
    os.write(writer, b"\n" * 100)  # one for each, whoever comes late included
    world.expect_gone(pids, 3, since)
    world.wait(lambda: engine.log().count("code 0") == 100, "100 lines of their ends")
    world.measured(f"all said after {time.monotonic() - since:.2f} s")
    os.close(writer)
    # No zombie of theirs, whoever their parent is.
    assert all(state_of(pid) is None for pid in pids), "zombies are left"


@pytest.mark.fault("G8", "ends while its child runs on in another session: no zombie, no orphan")
def test_orphan(world: World) -> None:
    """The orphan is adopted, asked and reaped."""
    world.python(
        "all_x.py",
        "if not os.fork():\n    os.setsid(); polite(); note('left'); stay()\n"
        "time.sleep(0.2); sys.exit(0)",
    )
    world.engine()
    (left,) = world.wait_noted("left")
    world.expect_gone([left], GRACE + 1, time.monotonic(), "orphans")
    assert world.noted("term") == [left]
    world.wait(lambda: gone(left) and not Path(f"/proc/{left}").exists(), "reaped")
