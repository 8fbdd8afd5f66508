# SPDX-License-Identifier: Apache-2.0
"""Systems that are short of something, or odd: plugins run as far as they can, and end."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import alive, gone
from world import ALLOWANCE, GRACE, POLITE, FaultEngine, World

ROOT = Path(__file__).parents[2]


def works(*command: str) -> bool:
    """Whether a command can be run here and succeeds."""
    if shutil.which(command[0]) is None:
        return False
    done = subprocess.run(command, check=False, capture_output=True)
    return done.returncode == 0


needs_mounts = pytest.mark.skipif(
    not works("unshare", "--mount", "true"), reason="cannot make mount namespaces here"
)
needs_pids = pytest.mark.skipif(
    not works("unshare", "--pid", "--fork", "--mount-proc", "true"),
    reason="cannot make PID namespaces here",
)
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")

NOBODY = 54_000 + os.getpid() % 10_000
"""A user without a name, a home or anything else; one for each worker, as limits are a user's."""


def free_python(world: World) -> str:
    """Return an interpreter that any user may run; none: skip."""
    for candidate in ("/usr/bin/python3", "/usr/local/bin/python3"):
        probe = "import sys; sys.exit(sys.version_info < (3, 10))"
        if world.launcher.ours and works(
            "setpriv",
            f"--reuid={NOBODY}",
            f"--regid={NOBODY}",
            "--clear-groups",
            candidate,
            "-c",
            probe,
        ):
            return candidate
    if not world.launcher.ours:
        return world.launcher.python
    pytest.skip("no Python 3.10 that other users may run")


@pytest.fixture
def nobody(world: World) -> Iterator[dict[str, object]]:
    """Options of an engine that another user runs, without a home."""
    if os.getuid() != 0:
        pytest.skip("needs root, to become another user")
    python = free_python(world)
    if not world.launcher.ours and not works(
        "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", python, "-c", ""
    ):
        pytest.skip("its interpreter may not be run by other users")
    with pytest.raises(KeyError):
        pwd.getpwuid(NOBODY)
    copy = world.directory / "site"
    shutil.copytree(ROOT / "lmcache_plugin_adapter", copy / "lmcache_plugin_adapter")
    shutil.copy(ROOT / "tests" / "engine_program.py", copy)
    for name in ("plugins", "notes"):
        path = world.directory / name
        path.touch() if name == "notes" else None
        os.chown(path, NOBODY, NOBODY)
    os.chown(world.directory, NOBODY, NOBODY)
    yield {
        "python": python,
        "prefix": (
            "setpriv",
            f"--reuid={NOBODY}",
            f"--regid={NOBODY}",
            "--clear-groups",
        ),
        "env": {"HOME": None, "USER": None, "LOGNAME": None, "PYTHONPATH": str(copy)},
        "program": copy / "engine_program.py",
    }
    shutil.rmtree(f"/run/lmcache-plugins-{NOBODY}", ignore_errors=True)
    shutil.rmtree(f"/dev/shm/lmcache-plugins-{NOBODY}", ignore_errors=True)
    shutil.rmtree(f"/tmp/lmcache-plugins-{NOBODY}", ignore_errors=True)


def own(world: World) -> None:
    """Give the plugins to the user who runs them."""
    for path in world.plugins.rglob("*"):
        os.chown(path, NOBODY, NOBODY)


def preload(world: World, source: str) -> None:
    """Make ``shim.so`` of C that stands before the C library."""
    (world.directory / "shim.c").write_text(source)
    command = ["cc", "-shared", "-fPIC", "-o", "shim.so", "shim.c", "-ldl"]
    subprocess.run(command, cwd=world.directory, check=True)


def lift(world: World) -> None:
    """Give all processes of this case room for others again."""
    for pid in world.everything():
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        command += ["prlimit", "--nproc=4096:4096", "--pid", str(pid)]
        subprocess.run(command, check=False, capture_output=True)


# --- users and limits ---------------------------------------------------------


@pytest.mark.fault("G2 G3", "a user without name and home")
def test_nobody(world: World, nobody: dict[str, object]) -> None:
    """All as for others."""
    world.python("all_x.py")
    own(world)
    engine, pids = world.up(**nobody)
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, GRACE + 1, since)
    assert world.noted("term") == pids


@pytest.mark.fault("G9", "ulimit -u reached, {}")
@pytest.mark.parametrize(
    "case", [0, 3, 5], ids=["nothing can be started", "room for two", "room for four"]
)
def test_processes(world: World, nobody: dict[str, object], case: int) -> None:
    """The engine serves on, nothing hangs; when there is room again, plugins start."""
    for letter in "abc":
        world.python(f"all_{letter}.py")
    own(world)
    engine = world.engine(launch=False, **nobody)
    engine.do(
        "import resource, os, time\n"
        "def limit(n): resource.prlimit(os.getpid(), resource.RLIMIT_NPROC, (n, 4096))\n"
    )
    engine.do(
        "def mine():\n"
        "    count = 0\n"
        "    for entry in os.scandir('/proc'):\n"
        "        try:\n"
        f"            count += entry.name.isdigit() and entry.stat().st_uid == {NOBODY}\n"
        "        except OSError: pass\n"
        "    return count\n"
    )
    mine = int(engine.do("mine()"))
    launched = engine.do(f"limit({mine + case if case else 1}) or launcher.launch_plugins()")
    world.measured(f"launch returned {launched}")
    time.sleep(1.0)
    assert engine.do("1 + 1") == 2
    if launched is False:
        assert "Cannot launch runtime plugins" in engine.log()
    else:
        world.wait(
            lambda: (
                "Cannot " in engine.log()
                or "annot start" in engine.log()
                or "failed" in engine.log()
                or len(world.noted("up")) == 3
            ),
            "a line that says so",
        )
    engine.do("limit(4096)")
    # Without room for the thread that watches, the engine says so and starts no other.
    if world.launcher.ours and launched and "Cannot watch" not in engine.log():
        # Again and again: what was just being started had the old limit.
        world.wait(lambda: lift(world) or len(world.noted("up")) == 3, "all three started")
        world.measured("all started once there was room")
    since = time.monotonic()
    engine.do("launcher.stop_plugins()")
    assert time.monotonic() - since < GRACE + 2 + ALLOWANCE
    world.expect_nothing(GRACE + 2)


NO_THREAD = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*run)(void *), void *arg) {
    char name[16] = "";
    prctl(PR_GET_NAME, name);
    if (strcmp(name, "lmcache-plugins") == 0) return EAGAIN;
    return ((int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))
            dlsym(RTLD_NEXT, "pthread_create"))(t, a, run, arg);
}
"""


@needs_cc
@pytest.mark.ours_only("LMCache's launcher has no supervisor")
@pytest.mark.fault("G5 G9", "the supervisor can make no thread: its log is written all the same")
def test_no_thread(world: World) -> None:
    """As with ``ulimit -u`` reached in the moment of its first record."""
    preload(world, NO_THREAD)
    world.python(
        "all_x.py",
        "polite(); note('up')\nfor n in range(3000): print('line', n, flush=n % 100 == 0)\n"
        "sys.stdout.flush(); stay()",
    )
    engine, pids = world.up(env={"LD_PRELOAD": str(world.directory / "shim.so")})
    supervisor = world.supervisor_of(engine)
    world.wait_logged(engine, "] line 2999")
    assert len(os.listdir(f"/proc/{supervisor}/task")) == 1, "it has a thread: no fault"
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, GRACE + 1, since)
    world.wait_logged(engine, "Stopped")


@pytest.mark.fault("G9", "ulimit -n 64 ({}): 70 plugins")
@pytest.mark.parametrize("case", ["hard", "soft"])
def test_files(world: World, case: str) -> None:
    """A soft limit is raised for the supervisor alone; a hard one is said, and nothing breaks."""
    for number in range(70):
        world.file(
            f"all_{chr(97 + number // 26)}{chr(97 + number % 26)}.sh",
            'echo "up $$" >> "$NOTES"; echo "limit=$(ulimit -Sn) $$" >> "$NOTES"; exec sleep 60',
        )
    hard = 64 if case == "hard" else 4096
    engine = world.engine(
        prelude=f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))",
    )
    if case == "soft":
        world.wait_noted("limit=64", 70, 40)
    else:
        world.wait_noted("limit=64", 25, 40)  # usually 30; newer libffi keeps a file open
        world.wait(lambda: "oo many open files" in engine.log(), "the limit is said")
        world.measured(f"{len(world.noted('up'))} of 70 run")
    assert "Internal error" not in engine.log()
    pids = world.processes()
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, GRACE + 1, since)


@pytest.mark.ours_only("LMCache's launcher needs no descriptors of its own")
@pytest.mark.fault("G9", "ulimit -Hn {}: the log names the limit that is needed, which suffices")
@pytest.mark.parametrize("case", [14, 18, 26, 34])
def test_few_files(world: World, case: int) -> None:
    """Not enough for a supervisor, for its search, for its plugins."""
    for letter in "abc":
        world.python(f"all_{letter}.py")

    def engine_with(limit: int) -> FaultEngine:
        engine = world.engine(launch=False)
        text = f"resource.RLIMIT_NOFILE, ({limit}, {limit})"
        engine.do(f"import resource; resource.setrlimit({text}); launcher.launch_plugins()")
        return engine

    engine = engine_with(case)
    limit = rf"the hard limit of open files is {case}, .* needs? (\d+)"
    found = world.wait(lambda: re.search(limit, engine.log()), "the limit that is needed")
    assert "internal error" not in engine.log()
    engine.close()
    before = len(world.noted("up"))
    engine_with(int(found[1]) + (6 if case == 14 else 0))
    world.wait_noted("up", before + 3)


# --- file systems -----------------------------------------------------------


@pytest.mark.fault("G8 G9", "the runtime directory is {}: the next place is used, plugins run")
@pytest.mark.parametrize("case", ["missing", "a file", "open to others", "a link"])
def test_runtime_directory(world: World, case: str) -> None:
    """Never a place that others may enter."""
    if not world.launcher.ours:
        pytest.skip("LMCache's launcher has no runtime directory")
    world.python(
        "all_x.py",
        "note('up'); print('file', os.environ.get("
        "'LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE'), flush=True); stay()",
    )
    chosen = world.directory / "chosen"
    if case == "missing":
        chosen = world.directory / "none" / "such"
    elif case == "a file":
        chosen.touch()
    elif case == "open to others":
        chosen.mkdir()
        chosen.chmod(0o777)
    else:
        (world.directory / "target").mkdir(mode=0o700)
        chosen.symlink_to(world.directory / "target")
    engine, _ = world.up(env={"LMCACHE_PLUGINS_RUNTIME_DIR": str(chosen)})
    world.wait_logged(engine, "file /")
    assert str(chosen) + "/" not in engine.log()


@needs_mounts
@needs_root
@pytest.mark.fault("G2 G9", "everything read-only, no runtime directory: plugins run, one warning")
def test_read_only(world: World) -> None:
    """Root, /run, /dev/shm and /tmp."""
    world.python("all_x.py")
    kept = world.directory
    keeper = (
        "unshare",
        "--mount",
        "sh",
        "-ec",
        (
            "mount --make-rprivate /\n"
            "keep=$1; shift\n"
            "mkdir -p /mnt/kept-$$ && at=/mnt/kept-$$\n"
            "mount --bind $keep $at\n"
            "for d in / /run /dev/shm /tmp; do\n"
            "  [ $d = / ] || mount --bind $d $d\n"
            "  mount -o remount,bind,ro $d\n"
            "done\n"
            "mount --bind $at $keep\n"
            "cd $keep\n"
            'exec "$@"'
        ),
        "sh",
        str(kept),
    )
    engine, pids = world.up(
        prefix=keeper, env={"LMCACHE_PLUGINS_RUNTIME_DIR": "/run/lmcache-plugins-none"}
    )
    with pytest.raises(AssertionError, match="Read-only"):
        engine.do("open('/tmp/none', 'w')")
    if world.launcher.ours:
        world.wait_logged(engine, "No usable runtime directory")
        assert engine.log().count("No usable runtime directory") == 1
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, GRACE + 1, since)
    assert world.noted("term")
    for path in Path("/mnt").glob("kept-*"):
        with contextlib.suppress(OSError):  # another run's
            path.rmdir()


# --- processes and time -------------------------------------------------------

PID_NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


@needs_pids
@pytest.mark.fault("G2 G3", "a PID namespace with an init: SIGKILL of the engine")
def test_namespace(world: World) -> None:
    """As in a container with tini."""
    world.python("all_x.py")
    # Its init outlives the engine until the plugin has had its SIGTERM; 20 s if it has none.
    init = (
        '"$@"; n=0\n'
        'while [ $n -lt 200 ] && ! grep -q "^term" "$NOTES"; do sleep 0.1; n=$((n + 1)); done\n'
        "sleep 0.5; exit 0"
    )
    engine, _ = world.up(prefix=(*PID_NAMESPACE, "sh", "-c", init, "sh"))
    engine.tell("import os; os.kill(os.getpid(), 9)")
    engine.process.wait(40)
    assert len(world.noted("term")) == 1, "the plugin had no SIGTERM"
    world.expect_nothing(1)


@needs_pids
@pytest.mark.fault("G2 G8", "a container whose PID 1 never reaps: all end, none waits for reaping")
def test_never_reaps(world: World) -> None:
    """Zombies that are not ours to reap hold nobody up."""
    world.python("all_x.py", "if not os.fork(): os.setsid(); deaf(); stay()\n" + POLITE)
    engine, _ = world.up(
        prefix=(*PID_NAMESPACE, "sh", "-c", 'exec 3<&0; "$@" <&3 & exec sleep 100', "sh"),
    )
    begun = time.monotonic()
    engine.do("launcher.stop_plugins()")
    assert time.monotonic() - begun < GRACE + 1 + ALLOWANCE
    assert world.processes() == [], "still running"
    engine.do("launcher.launch_plugins()")
    world.wait_noted("up", 2)
    pids = world.processes()
    since = time.monotonic()
    engine.tell("import os; os.kill(os.getpid(), 9)")
    world.expect_gone(pids, GRACE + 1, since)
    # The supervisor removes its files after its last plugin, and would die with the container.
    world.wait(lambda: not os.listdir(world.directory / "run"), "the supervisor ends in order")
    engine.process.kill()  # unshare; the container goes with it
    engine.process.wait(10)


@needs_pids
@needs_root
@pytest.mark.fault("G2 G8", "PID reuse: a stranger with a plugin's old pid is left alone")
def test_pid_reuse(world: World) -> None:
    """The plugin has ended, its number belongs to somebody else when all is stopped."""
    world.python("all_x.py", "note('up')")
    engine, _ = world.up(prefix=(*PID_NAMESPACE, "sh", "-c", '"$@"; exit 0', "sh"))
    world.wait_logged(engine, "code 0")
    engine.do(
        "import os, subprocess, time\n"
        "for attempt in range(200):\n"
        "    with open('/proc/sys/kernel/ns_last_pid', 'w') as file:\n"
        f"        file.write(str({world.noted('up')[0]} - 1))\n"
        "    stranger = subprocess.Popen(['sleep', '60'])\n"
        f"    if stranger.pid == {world.noted('up')[0]}: break\n"
        "    stranger.kill(); stranger.wait()\n"
        "else:\n    raise RuntimeError('the pid was not used again')\n"
    )
    engine.do("launcher.stop_plugins()")
    assert engine.do("stranger.poll()") is None, "the stranger was killed"
    engine.do("stranger.kill(); stranger.wait()")


@needs_pids
@needs_root
@pytest.mark.ours_only("LMCache's launcher has no supervisor")
@pytest.mark.fault("G2", "PID reuse: the engine's old pid belongs to somebody else at once")
def test_engine_pid_reuse(world: World) -> None:
    """Its end is seen by a descriptor of the process, not by its number."""
    world.python("all_x.py")
    program = (
        "import os, subprocess, sys, time\n"
        "engine = subprocess.Popen(sys.argv[1:])\n"
        "while not os.path.exists(os.environ['NOTES']): time.sleep(0.01)\n"
        "time.sleep(0.2)\n"
        "engine.kill(); engine.wait()\n"
        "for attempt in range(200):\n"
        "    open('/proc/sys/kernel/ns_last_pid', 'w').write(str(engine.pid - 1))\n"
        "    stranger = subprocess.Popen(['sleep', '100'])\n"
        "    if stranger.pid == engine.pid: break\n"
        "    stranger.kill(); stranger.wait()\n"
        "else: sys.exit(9)\n"
        "end = time.monotonic() + 20\n"
        "while 'term' not in open(os.environ['NOTES']).read() and time.monotonic() < end:\n"
        "    time.sleep(0.05)\n"
        "time.sleep(1)\n"
        "sys.exit(stranger.poll() is not None)\n"
    )
    engine = world.engine(prefix=(*PID_NAMESPACE, sys.executable, "-c", program))
    world.wait_noted("up")
    assert engine.process.wait(60) == 0, "the stranger was harmed, or the pid not used again"
    assert len(world.noted("term")) == 1, "the plugin had no SIGTERM"


CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

/* Each look at the wall clock finds it a day ahead or behind of the last. */
static long jump(void) { static long n; return (n++ % 2 ? 86400 : -86400) * (n % 7); }
int clock_gettime(clockid_t id, struct timespec *ts) {
    int r = ((int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime"))(id, ts);
    if (id == CLOCK_REALTIME) ts->tv_sec += jump();
    return r;
}
time_t time(time_t *t) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (t) *t = ts.tv_sec;
    return ts.tv_sec;
}
"""


@needs_cc
@pytest.mark.fault("G2 G3 G6", "the wall clock jumps by days at each look: grace and backoff hold")
def test_clock(world: World) -> None:
    """Only the monotonic clock counts."""
    preload(world, CLOCK)
    world.python("all_a.py", "deaf(); note('up'); stay()")
    world.python("all_b.py", "note('crash'); sys.exit(1)")
    engine, pids = world.up(env={"LD_PRELOAD": str(world.directory / "shim.so")})
    stamps = engine.do("[__import__('time').time() for _ in range(2)]")
    assert abs(stamps[1] - stamps[0]) > 3600, "the clock does not jump"
    world.wait_noted("crash", 4 if world.launcher.ours else 1)
    assert len(world.noted("crash")) < 30
    since = time.monotonic()
    engine.do("launcher.stop_plugins()")
    taken = world.expect_gone(pids, GRACE + 1, since)
    assert taken > GRACE - 0.05, "killed before its grace period was over"


@needs_mounts
@pytest.mark.fault("G2", "no /proc access to others (hidepid=2), as another user")
def test_hidepid(world: World, nobody: dict[str, object]) -> None:
    """What is ours can be seen, and that is enough."""
    world.python("all_x.py", "if not os.fork(): os.setsid(); deaf(); note('up'); stay()\n" + POLITE)
    own(world)
    prefix = (
        "unshare",
        "--mount",
        "sh",
        "-ec",
        'mount --make-rprivate /; mount -t proc -o hidepid=2 proc /proc; exec "$@"',
        "sh",
        *nobody["prefix"],  # type: ignore[misc]
    )
    engine, pids = world.up(2, **{**nobody, "prefix": prefix})
    assert engine.do("__import__('os').path.exists('/proc/1')") is False
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, GRACE + 1, since)


@needs_mounts
@needs_root
@pytest.mark.fault("G2 G9", "no /proc at all: plugins run, obey, and end")
def test_no_proc(world: World) -> None:
    """What remains of a plugin cannot be looked for; itself is stopped all the same."""
    world.python("all_x.py", "polite(); note('up'); stay()")
    engine, pids = world.up(
        prefix=(
            "unshare",
            "--mount",
            "sh",
            "-ec",
            'mount --make-rprivate /; mount -t tmpfs none /proc; exec "$@"',
            "sh",
        ),
    )
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, GRACE + 1, since)
    assert world.noted("term") == pids


@needs_cc
@pytest.mark.fault("G2 G9", "a sandbox that refuses pidfds: the engine's end is seen all the same")
@pytest.mark.ours_only("LMCache's launcher does not look for the engine's end")
def test_no_pidfd(world: World) -> None:
    """By looking twice a second, and one line says so."""
    world.python("all_x.py")
    engine, pids = world.up(
        prelude="from lmcache_plugin_adapter.engine import supervisor_connection\n"
        "from lmcache_plugin_adapter.engine import supervisor_start\n"
        "def refused(pid): raise PermissionError(1, 'Operation not permitted')\n"
        "supervisor_start.pidfd_open = supervisor_connection.pidfd_open = refused\n"
    )
    world.wait_logged(engine, "No pidfd for the engine")
    since = time.monotonic()
    engine.kill()
    world.expect_gone(pids, 1, since)
    assert world.noted("term") == pids


@pytest.mark.fault("G2 G3", "the process tree of the engine is stopped (SIGSTOP), then killed")
def test_stopped_tree(world: World) -> None:
    """A frozen engine is no dead engine."""
    world.python("all_x.py")
    engine, pids = world.up()
    os.killpg(engine.pid, signal.SIGSTOP)
    time.sleep(0.3)
    assert alive(pids[0])
    since = time.monotonic()
    os.killpg(engine.pid, signal.SIGKILL)
    engine.process.wait(5)
    world.expect_gone(pids, GRACE + 1, since)
    assert all(gone(pid) for pid in pids)
