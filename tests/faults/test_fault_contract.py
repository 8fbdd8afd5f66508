# SPDX-License-Identifier: Apache-2.0
"""What runs, once, with what the contract promises."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from world import PRELUDE, World

NOTE = 'echo "{} $$" >> "$NOTES"\n'


def settled(world: World, word: str, count: int) -> None:
    """Check that ``word`` is noted ``count`` times, and not once more."""
    if count:
        world.wait_noted(word, count)
    time.sleep(0.6)
    assert len(world.noted(word)) == count, f"{len(world.noted(word))} run, not {count}"


# --- names -----------------------------------------------------------------

NAMES = {
    # name: runs on the scheduler, on worker 0, on worker 1
    "scheduler.py": (1, 0, 0),
    "scheduler_x.py": (1, 0, 0),
    "worker.py": (0, 1, 1),
    "worker_x.py": (0, 1, 1),
    "worker_0.py": (0, 1, 0),
    "worker_0_x.py": (0, 1, 0),
    "worker_00_x.py": (0, 1, 0),
    "WORKER_1_x.py": (0, 0, 1),
    "all.py": (1, 1, 1),
    "all_x.py": (1, 1, 1),
    "all_0_x.py": (0, 1, 0),
    "utils.py": (0, 0, 0),
    "__init__.py": (0, 0, 0),
    "foo_plugin.py": (0, 0, 0),
    ".worker_x.py": (0, 0, 0),
    "_lib/worker_x.py": (0, 0, 0),
    "worker_x.py~": (0, 0, 0),
}


@pytest.mark.fault("G1", "name {}: runs where the contract says")
@pytest.mark.parametrize("case", NAMES, ids=NAMES)
def test_name(world: World, case: str) -> None:
    """Scheduler, worker 0, worker 1."""
    expected = NAMES[case]
    world.file(case, PRELUDE + "note(os.environ['WHO']); stay()\n")
    world.engine(role="scheduler", worker_id=-1, worker_count=2, env={"WHO": "scheduler"})
    for rank in (0, 1):
        world.engine(role="worker", worker_id=rank, worker_count=2, env={"WHO": f"worker{rank}"})
    for who, count in zip(("scheduler", "worker0", "worker1"), expected, strict=True):
        if count:
            world.wait_noted(who)
    time.sleep(0.8)
    found = tuple(len(world.noted(who)) for who in ("scheduler", "worker0", "worker1"))
    assert found == expected, f"ran {found}, not {expected} (scheduler, worker 0, worker 1)"


# --- discovery --------------------------------------------------------------


@pytest.mark.fault("G1", "overlapping locations: once")
def test_overlap(world: World) -> None:
    """A directory, its parent, and the file itself."""
    path = world.python("sub/all_x.py")
    world.engine(locations=[str(world.plugins), str(path.parent), str(path)])
    settled(world, "up", 1)


@pytest.mark.fault("G1", "links to the same file: once")
def test_links(world: World) -> None:
    """Two names, one file."""
    path = world.python("all_x.py")
    (world.plugins / "all_y.py").symlink_to(path)
    world.engine()
    settled(world, "up", 1)


@pytest.mark.fault("G1", "a Kubernetes ConfigMap mount: once")
def test_config_map(world: World) -> None:
    """The kubelet's links by way of ``..data``."""
    world.python("..2026_11_22/all_x.py")
    (world.plugins / "..data").symlink_to("..2026_11_22")
    (world.plugins / "all_x.py").symlink_to("..data/all_x.py")
    world.engine()
    settled(world, "up", 1)


@pytest.mark.fault("G4", "a FIFO among the plugins: nobody waits")
def test_fifo(world: World) -> None:
    """The others run."""
    os.mkfifo(world.plugins / "all_a.sh")
    world.python("all_x.py")
    engine = world.engine(launch=False)
    engine.tell("launcher.launch_plugins()")
    world.wait_noted("up")


@pytest.mark.fault("G9", "a plain string as location")
def test_string(world: World) -> None:
    """Not read letter by letter."""
    world.python("all_x.py")
    engine = world.engine(locations=str(world.plugins))
    settled(world, "up", 1)
    assert "'/'" not in engine.log()


@pytest.mark.fault("G9", "a location that is missing: said, the others go on")
def test_missing(world: World) -> None:
    """Named in the log."""
    world.python("all_x.py")
    engine = world.engine(locations=["/none/such", str(world.plugins)])
    settled(world, "up", 1)
    world.wait_logged(engine, "/none/such")


@pytest.mark.fault("G1", "the order of starts is that of the paths")
def test_order(world: World) -> None:
    """Not the file system's, which differs from machine to machine."""
    names = [f"all_{letter}{other}.sh" for letter in "zyxcba" for other in "ba"]
    for name in names:
        world.file(name, "exec sleep 60")
    engine = world.engine()
    world.wait(lambda: all(name in engine.log() for name in names), "all are said")
    found = sorted(names, key=lambda name: engine.log().index(name))
    assert found == sorted(names), "another order"


# --- interpreters -----------------------------------------------------------

SHEBANGS: dict[str, tuple[str, str, Callable[[], bool]]] = {
    "#!/bin/sh": ("all_x.sh", "#!/bin/sh\n" + NOTE.format("ran"), lambda: True),
    "#!/usr/bin/env sh": ("all_x.sh", "#!/usr/bin/env sh\n" + NOTE.format("ran"), lambda: True),
    "#!/bin/sh -e": (
        "all_x.sh",
        "#!/bin/sh -e\nfalse\n" + NOTE.format("unseen") + "exit 0\n",
        lambda: True,
    ),
    "#!/usr/bin/env -S sh -u": (
        "all_x.sh",
        "#!/usr/bin/env -S sh -u\n(: $NONE) 2>/dev/null || " + NOTE.format("ran"),
        lambda: True,
    ),
    "CRLF line ends in the shebang": (
        "all_x.py",
        (
            "#!/usr/bin/env python3\r\nimport os\n"
            "open(os.environ['NOTES'], 'a').write(f'ran {os.getpid()}\\n')\n"
        ),
        lambda: True,
    ),
    "a shebang whose interpreter is missing: the fallback": (
        "all_x.sh",
        "#!/opt/none/bash\n" + NOTE.format("ran"),
        lambda: True,
    ),
    ".py without a shebang: the engine's Python": (
        "all_x.py",
        (
            "import os, sys\nreal = os.path.realpath\n"
            "if real(sys.executable) == real(os.environ['ENGINE_PYTHON']):\n"
            "    open(os.environ['NOTES'], 'a').write(f'ran {os.getpid()}\\n')\n"
        ),
        lambda: True,
    ),
    "Perl": (
        "all_x.pl",
        "#!/usr/bin/env perl\nopen(F, '>>', $ENV{NOTES}); print F \"ran $$\\n\"; close F;\n",
        lambda: shutil.which("perl") is not None,
    ),
    "awk": (
        "all_x.awk",
        '#!/usr/bin/awk -f\nBEGIN { print "ran 1" >> ENVIRON["NOTES"] }\n',
        lambda: os.path.exists("/usr/bin/awk"),
    ),
    "no extension, with a shebang": ("all_x", "#!/bin/sh\n" + NOTE.format("ran"), lambda: True),
    "a file without the exec bit": ("all_x.sh", NOTE.format("ran"), lambda: True),
}


@pytest.mark.fault("G1", "interpreter: {}")
@pytest.mark.parametrize("case", SHEBANGS.values(), ids=SHEBANGS)
def test_interpreter(
    world: World, case: tuple[str, str, Callable[[], bool]], request: pytest.FixtureRequest
) -> None:
    """As the kernel would have it, and a little more."""
    name, text, possible = case
    if not possible():
        pytest.skip("not installed here")
    world.file(name, text, 0o644 if "exec bit" in request.node.name else 0o755)
    engine = world.engine(
        settings={"restart": "never"}, env={"ENGINE_PYTHON": world.launcher.python}
    )
    if "-e" in request.node.name and "env" not in request.node.name:
        world.wait_logged(engine, "xited with code 1")
        assert not world.noted("unseen")
    else:
        world.wait_noted("ran")


@pytest.mark.fault("G1", "interpreter: a compiled program")
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_compiled(world: World) -> None:
    """Executed as it is."""
    source = world.directory / "x.c"
    source.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
        'int main(void) { FILE *f = fopen(getenv("NOTES"), "a"); '
        'fprintf(f, "ran %d\\n", getpid()); fclose(f); return 0; }\n'
    )
    subprocess.run(["cc", "-o", world.plugins / "all_x", source], check=True)
    world.engine()
    world.wait_noted("ran")


# --- environment ------------------------------------------------------------


def probe(world: World, expression: str, **options: object) -> object:
    """Run a plugin that reports the value of a Python expression."""
    answer = world.directory / "answer"
    world.python(
        "all_x.py",
        f"import json\nvalue = {expression}\n"
        f"with open({str(answer)!r} + '.new', 'w') as file: json.dump(value, file)\n"
        f"os.rename({str(answer)!r} + '.new', {str(answer)!r}); stay()",
    )
    world.engine(**options)  # type: ignore[arg-type]
    world.wait(answer.exists, "the plugin runs")
    return json.loads(answer.read_text())


@pytest.mark.fault("G1", "environment: the role in upper case, id and count")
def test_role(world: World) -> None:
    """As plugins compare them."""
    found = probe(
        world,
        "[os.environ.get('LMCACHE_RUNTIME_PLUGIN_' + n) for n in"
        " ('ROLE', 'WORKER_ID', 'WORKER_COUNT')]",
        worker_id=1,
        worker_count=2,
    )
    assert found == ["WORKER", "1", "2"], f"got {found}"


@pytest.mark.fault("G9", "environment: a configuration of 300 KB reaches the plugin")
def test_large(world: World) -> None:
    """Over the kernel's limit for one variable."""
    found = probe(
        world,
        "len(open(os.environ['LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE']).read())"
        " if 'LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE' in os.environ"
        " else len(os.environ['LMCACHE_RUNTIME_PLUGIN_CONFIG'])",
        prelude="config.values['ballast'] = 'x' * 300_000\n",
    )
    assert isinstance(found, int)
    assert found > 300_000


@pytest.mark.fault("G8", "stdin is /dev/null, and nothing beyond 0-2 is open")
def test_descriptors(world: World) -> None:
    """The engine's stdin is the engine's."""
    found = probe(world, "[os.path.realpath('/proc/self/fd/0'), len(os.listdir('/proc/self/fd'))]")
    assert found == ["/dev/null", 4], f"got {found}"  # 4: the listing itself


@pytest.mark.fault("G3", "signals that the engine ignores or blocks are at their defaults")
def test_signals(world: World) -> None:
    """Else SIGTERM might not reach the plugin."""
    found = probe(
        world,
        "[l.split()[1] for l in open('/proc/self/status') if l.startswith(('SigBlk', 'SigIgn'))]",
        prelude="import signal\nfor n in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):\n"
        "    signal.signal(n, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])\n",
    )
    blocked, ignored = (int(str(mask), 16) for mask in found)  # type: ignore[union-attr]
    python_s = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert (blocked, ignored & ~python_s) == (0, 0), f"blocked {blocked:x}, ignored {ignored:x}"


@pytest.mark.fault("G3", "leads a session of its own, outside the engine's tree")
def test_session(world: World) -> None:
    """Who kills the engine's tree or group does not reach it."""
    found = probe(world, "[os.getsid(0) == os.getpid(), os.getppid()]")
    assert isinstance(found, list)
    assert found[0], "in the engine's session"
    assert found[1] != world.engines[0].pid, "a child of the engine"


@pytest.mark.fault("G7", "PROMETHEUS_MULTIPROC_DIR is not the engine's")
def test_prometheus(world: World) -> None:
    """A plugin's metrics would land in the engine's files."""
    found = probe(
        world,
        "os.environ.get('PROMETHEUS_MULTIPROC_DIR')",
        env={"PROMETHEUS_MULTIPROC_DIR": "/tmp/of-the-engine"},
    )
    assert found is None, f"got {found}"


# --- permissions ------------------------------------------------------------


@pytest.mark.fault("G7", "{}: refused, with the command that mends it")
@pytest.mark.parametrize(
    "case",
    ["file", "directory"],
    ids=["a file that everyone can write", "a directory that everyone can write"],
)
def test_open_to_all(world: World, case: str) -> None:
    """Who can write a plugin runs code as the engine."""
    path = world.python("sub/all_x.py")
    (path if case == "file" else path.parent).chmod(0o777)
    engine = world.engine()
    world.wait(lambda: "chmod" in engine.log() or world.noted("up"), "the mend is named")
    settled(world, "up", 0)


@pytest.mark.fault("G7", "secrets of the configuration and the environment are not logged")
def test_secrets(world: World) -> None:
    """Whatever goes wrong."""
    world.python("all_x.py", "note('up'); raise SystemExit(1)")
    engine = world.engine(
        settings={
            "plugins": {"all_x": {"env": {"TOKEN": "s3cret"}, "args": ["--key=s3cret"]}},
            "stop_grac": "s3cret-typo",
        },
        env={"API_KEY": "s3cret"},
        extra={"password": "s3cret"},
    )
    world.wait_noted("up", 2 if world.launcher.ours else 1)
    time.sleep(0.3)
    assert "s3cret" not in engine.log().replace("s3cret-typo", ""), "a secret is in the log"
