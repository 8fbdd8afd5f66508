# SPDX-License-Identifier: Apache-2.0
"""Daemons of plugins, and processes that carry no run token, do not outlive their plugin."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from harness import gone, state_of
from world import FaultEngine, World

DAEMON = r"""
#include <stdlib.h>
#include <unistd.h>

/* A daemon by double fork; the middle process waits for some microseconds. */
int main(int count, char **words) {
    if (fork()) return 0;
    if (count > 1) usleep(atoi(words[1]));
    setsid();
    if (fork()) return 0;
    for (;;) pause();
}
"""

PYTHON = """\
import os, time
if not os.fork():
    os.setsid()
    if not os.fork():
        time.sleep(120)
os._exit(0)
"""

PLUGINS = 30
"""So many at once: each daemon has to be found in the moment in which many others start."""


def compiled(directory: Path, source: str, *options: str) -> Path:
    """Compile a program and return its path."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    path = directory / "program"
    path.with_suffix(".c").write_text(source)
    command = ["cc", *options, "-o", path, path.with_suffix(".c")]
    subprocess.run(command, check=True)
    return path


@pytest.mark.fault("G2 G8", "{}: does not outlive its plugin while the engine lives")
@pytest.mark.parametrize(
    "case",
    ["", "300", "20000", "python"],
    ids=[
        "a daemon by double fork, in C",
        "a daemon by double fork, its middle process slower",
        "a daemon by double fork, its middle process much slower",
        "a daemon by double fork, in Python",
    ],
)
def test_daemon_of_a_plugin_that_exits(world: World, case: str) -> None:
    """The middle process is listed and gone when it is read; the daemon is not in the list."""
    program = None if case == "python" else compiled(world.directory, DAEMON)
    for number in range(PLUGINS):
        name = f"all_{chr(97 + number // 26)}{chr(97 + number % 26)}"
        if program is None:
            world.file(f"{name}.py", PYTHON)
        else:
            world.file(f"{name}.sh", f"exec {program} {case}\n")
    engine = world.engine(settings={"restart": "never"})
    world.wait(
        lambda: engine.log().count("not restarted") == PLUGINS, "the exits of all plugins", 60
    )
    world.wait(lambda: not (world.processes() or world.processes()), "no daemon lives")
    assert engine.do("1 + 1") == 2


@pytest.mark.fault(
    "G2 G8", "a daemon by double fork of a plugin that stops: gone when it is stopped"
)
@pytest.mark.ours_only("LMCache's launcher has no control socket")
def test_daemon_of_a_plugin_that_stops(world: World) -> None:
    """The answer to the request comes when no process is left."""
    world.python(
        "all_x.py",
        "def double(*_):\n"
        "    if not os.fork():\n"
        "        os.setsid()\n"
        "        if not os.fork(): time.sleep(120)\n"
        "    os._exit(0)\n"
        "signal.signal(signal.SIGTERM, double); note('up'); stay()\n",
    )
    engine, _ = world.up()
    for count in range(1, 21):
        world.wait_noted("up", count)
        answer = engine.ask("stop", names=["all_x"], wait=True)
        assert answer["plugins"][0]["state"] == "stopped"
        assert world.processes() == []
        engine.ask("start", names=["all_x"])
    world.measured(f"{count} of {count}")


@pytest.mark.fault("G1 G2", "its daemon ends before the plugin is started again")
@pytest.mark.ours_only("LMCache's launcher does not start anything again")
def test_daemon_before_a_restart(world: World) -> None:
    """No run meets the daemon of the run before."""
    world.python(
        "all_x.py",
        "import fcntl\n"
        "lock = open(os.environ['NOTES'] + '.lock', 'w')\n"
        "try:\n    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except OSError:\n    note('beside')\n"
        "note('up')\n"
        "if not os.fork():\n    os.setsid()\n    if not os.fork(): time.sleep(120)\n"
        "os._exit(0)\n",
    )
    world.engine(settings={"restart": "always"})
    world.wait_noted("up", 15, 60)
    assert world.noted("beside") == []


@pytest.mark.fault(
    "G2", "its first thread has ended, others run: it is alive, and stopped at the end"
)
@pytest.mark.ours_only("LMCache's launcher does not end what a plugin started")
def test_first_thread_has_ended(world: World) -> None:
    """The kernel shows such a process as a zombie."""
    program = compiled(
        world.directory,
        "#include <pthread.h>\n#include <unistd.h>\n"
        "static void *live(void *nothing) { for (;;) pause(); return nothing; }\n"
        "int main(void) {\n"
        "    if (fork()) { for (;;) pause(); }\n"
        "    pthread_t thread;\n"
        "    setsid();\n"
        "    pthread_create(&thread, 0, live, 0);\n"
        "    pthread_exit(0);\n"
        "}\n",
        "-pthread",
    )
    world.file("all_x.sh", f'echo "up $$" >> "$NOTES"\nexec {program}\n')
    engine, (first,) = world.up()

    def child() -> int:
        listed = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return int(listed[0]) if listed and state_of(int(listed[0])) == "Z" else 0

    pid = world.wait(child, "a first thread that has ended")
    answer = engine.ask("stop", names=["all_x"], wait=True)
    assert answer["plugins"][0]["state"] == "stopped"
    assert not Path(f"/proc/{pid}").exists()


WIPED = """
def wipe():
    fields = open('/proc/self/stat').read().rpartition(') ')[2].split()
    start, end = int(fields[47]), int(fields[48])
    with open('/proc/self/mem', 'r+b', buffering=0) as memory:
        memory.seek(start)
        memory.write(bytes(end - start))
def stay_unmarked(word):
    deaf(); wipe(); note(word); stay()
"""


def unmarked_child(world: World) -> tuple[FaultEngine, int, int]:
    """Start a plugin with an unmarked child, on record; return engine, supervisor and child."""
    world.python(
        "all_x.py",
        f"{WIPED}\nif not os.fork(): stay_unmarked('child')\npolite(); note('up'); stay()",
    )
    engine, _ = world.up()
    (child,) = world.wait_noted("child")
    supervisor = world.supervisor_of(engine)
    world.wait(lambda: list(world.directory.glob("run/*/processes")), "the record")
    return engine, supervisor, child


@pytest.mark.fault("G2 G8", "the supervisor is killed: a process without a run token is ended, too")
@pytest.mark.ours_only("LMCache's launcher has no supervisor")
def test_unmarked_process_of_a_killed_supervisor(world: World) -> None:
    """As setproctitle makes them; they are in the session of a first process on record."""
    engine, supervisor, child = unmarked_child(world)
    os.kill(supervisor, signal.SIGKILL)
    world.wait(lambda: gone(child), "the end of the unmarked process")
    world.wait_noted("up", 2)
    world.wait_logged(engine, "ended 1 process it left")
    os.kill(world.wait_noted("child", 2)[1], signal.SIGKILL)


@pytest.mark.fault("G2 G8", "engine and supervisor are killed: the next engine ends unmarked ones")
@pytest.mark.ours_only("LMCache's launcher has no supervisor")
def test_unmarked_process_of_a_killed_engine(world: World) -> None:
    """The directory of the dead supervisor tells which."""
    engine, supervisor, child = unmarked_child(world)
    for pid in (engine.pid, supervisor):
        os.kill(pid, signal.SIGSTOP)
    for pid in (supervisor, engine.pid):
        os.kill(pid, signal.SIGKILL)
    engine.process.wait(20)
    assert not gone(child)
    (world.plugins / "all_x.py").unlink()
    world.engine()
    world.wait(lambda: gone(child), "the end of the unmarked process")
    world.wait(lambda: len(os.listdir(world.directory / "run")) == 1, "its directory is removed")


@pytest.mark.fault("G1 G2", "an engine that executes itself anew: its plugins never run twice")
def test_engine_executes_itself(world: World) -> None:
    """The next supervisor waits, and logs that, until the plugins of the one before have ended."""
    world.python(
        "all_x.py",
        "import fcntl\n"
        "lock = open(os.environ['NOTES'] + '.lock', 'w')\n"
        "try:\n    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except OSError:\n    note('beside')\n"
        "deaf(); note('up'); stay()\n",
    )
    engine, (first,) = world.up(settings={"stop_grace": 3})
    engine.tell("import os, sys; os.execv(sys.orig_argv[0], sys.orig_argv)")
    world.wait_noted("up", 2, 60)
    assert gone(first)
    assert world.noted("beside") == []
    world.wait_logged(engine, "Waiting for supervisor")


@pytest.mark.fault(
    "G2 G8", "supervisor killed, then an engine executes itself anew: all is cleared"
)
@pytest.mark.ours_only("LMCache's launcher has no supervisor")
def test_engine_executes_itself_without_supervisor(world: World) -> None:
    """What the killed one left, and its files, do not stay until the engine's end."""
    world.python("all_x.py", "if not os.fork():\n    os.setsid(); deaf()\nnote('up'); stay()\n")
    later = "import lmcache_plugin_adapter.engine.respawn as r; r.INITIAL_SECONDS = 60"
    engine, pids = world.up(2, prelude=later)
    (directory,) = (world.directory / "run").iterdir()
    os.kill(world.supervisor_of(engine), signal.SIGKILL)
    engine.tell("import os, sys; os.execv(sys.orig_argv[0], sys.orig_argv)")
    world.wait_noted("up", 4)
    world.wait(lambda: all(map(gone, pids)), "what the killed supervisor left")
    world.wait(lambda: not directory.exists(), "its directory removed")


@pytest.mark.fault("G8", "a plugin makes directories and links beside CONFIG_FILE: all is removed")
@pytest.mark.ours_only("LMCache's launcher has no runtime directory")
def test_directory_beside_the_configuration(world: World) -> None:
    """The configuration may hold secrets; what a link leads to is left alone."""
    kept = world.directory / "kept"
    kept.mkdir()
    (kept / "file").touch()
    world.python(
        "all_x.py",
        "home = os.path.dirname(os.environ['LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE'])\n"
        "os.makedirs(f'{home}/a/b/c'); open(f'{home}/a/b/file', 'w').close()\n"
        f"os.symlink('{kept}', f'{{home}}/link'); os.symlink('{kept}', f'{{home}}/a/link')\n"
        "polite(); note('up'); stay()",
    )
    engine, _ = world.up()
    engine.close()
    world.wait(lambda: not os.listdir(world.directory / "run"), "an empty runtime directory")
    assert os.listdir(kept) == ["file"]


@pytest.mark.fault(
    "G2 G6", "a daemon without a run token: logged, and ended with a dead supervisor's"
)
@pytest.mark.ours_only("LMCache's launcher has no supervisor")
def test_unmarked_daemon_is_logged(world: World) -> None:
    """Nobody can tell whose it is, once it has left its plugin's session."""
    world.python(
        "all_x.py",
        f"{WIPED}\n"
        "if not os.fork():\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        "    stay_unmarked('daemon')\n"
        "notes = os.environ['NOTES']\n"
        "while not os.path.exists(notes) or 'daemon' not in open(notes).read():\n"
        "    time.sleep(0.01)\n",
    )
    world.python("all_y.py")
    engine, _ = world.up(settings={"restart": "never"})
    (daemon,) = world.wait_noted("daemon")
    world.wait_logged(engine, f"Process {daemon} (")
    os.kill(world.supervisor_of(engine), signal.SIGKILL)
    world.wait(lambda: gone(daemon), "the end of the daemon")
