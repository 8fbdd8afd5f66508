# SPDX-License-Identifier: Apache-2.0
"""Launch and SIGKILL an engine again and again: nothing may survive, stay or be left.

Usage: ``python tests/faults/cycles.py [--cycles 1000] [--jobs 2] [--seed N] [--kill any]``

Each cycle starts an engine with three plugins, one of them with a daemon of its own, and
between 0 and 300 ms after the launch SIGKILLs the engine. With ``--kill any``, chance decides
between the engine, its supervisor and then the engine, and both at once. If no supervisor was
left to finish, a second engine is launched and closed: its supervisor clears up. Then /proc and
the runtime directory must hold no process, no zombie of a plugin and no file. (A supervisor's
own zombie is PID 1's to reap.)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from harness import ENGINE_PROGRAM, MARK, marked, state_of  # noqa: E402
from world import PRELUDE, UnderTest, World  # noqa: E402

DELAY = 0.3
BOUND = 10.0
"""What is alive so long after the kill has survived; how long all took is printed."""

PATIENCE = 60.0
"""How long a second engine may take to start and to clear up: a busy machine starts it late."""

PLUGINS = {
    "all_obeys.sh": "exec sleep 60\n",
    "all_polite.py": PRELUDE + "polite(); stay()\n",
    "all_daemon.py": PRELUDE + "if not os.fork(): os.setsid(); deaf()\nstay()\n",
}


VICTIMS = ("engine", "supervisor", "both")


def one_cycle(directory: Path, delay: float, victim: str) -> tuple[float, int, list[str]]:
    """Return the seconds until all was gone, how many plugins ran, and what was wrong."""
    world = World(directory, UnderTest("ours", "lmcache_plugin_adapter", sys.executable))
    for name, text in PLUGINS.items():
        world.file(name, text)
    spec = {
        "config": {
            "runtime_plugin_locations": [str(world.plugins)],
            "extra_config": {"runtime_plugins": {"stop_grace": 0.3}},
        },
        "role": "worker",
        "worker_count": 1,
        "worker_id": 0,
        "prelude": "",
        "launch": True,
    }
    run = directory / "run"
    environment = {
        **os.environ,
        MARK: str(directory),
        "LMCACHE_PLUGINS_RUNTIME_DIR": str(run),
        "NOTES": str(world.notes),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    log = (directory / "log").open("wb")

    def launched() -> subprocess.Popen[bytes]:
        engine = subprocess.Popen(
            [sys.executable, str(ENGINE_PROGRAM), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
        )
        # The launch is what is timed: the engine answers when it has launched.
        assert engine.stdin is not None
        assert engine.stdout is not None
        engine.stdin.write(b'"1"\n')
        engine.stdin.flush()
        engine.stdout.readline()
        return engine

    engine = launched()
    time.sleep(delay)
    plugins = world.processes()
    if victim != "engine":
        for pid in supervisors(directory):
            with contextlib.suppress(ProcessLookupError):  # the process that detaches it exits
                os.kill(pid, signal.SIGKILL)
        if victim == "supervisor":
            time.sleep(delay)
    engine.kill()
    killed = since = time.monotonic()
    engine.wait()
    if victim != "engine":
        second = launched()
        until = time.monotonic() + PATIENCE
        while any(f".{second.pid}." not in str(path) for path in run.glob("*")):
            if time.monotonic() > until:
                break
            time.sleep(0.005)
        since = time.monotonic()
        second.communicate()
    problems = []
    while left := world.everything() or world.everything():  # a look misses what execs then
        if time.monotonic() - since > BOUND:
            problems.append(f"{len(left)} survivors")
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            break
        time.sleep(0.005)
    seconds = time.monotonic() - killed
    zombies = [pid for pid in plugins if state_of(pid) == "Z"]
    if zombies and victim == "engine":  # without a supervisor, they are PID 1's to reap, too
        problems.append(f"{len(zombies)} zombies")
    files = os.listdir(run) if run.exists() else []
    if files:
        found = [str(path.relative_to(run)) for path in run.rglob("*")]
        problems.append(f"{len(files)} files left: {found}")
    if b"Internal error" in (directory / "log").read_bytes():
        problems.append("an internal error in the log")
    engine.communicate()
    log.close()
    return seconds, len(plugins), problems


def supervisors(directory: Path) -> list[int]:
    """Return the pids of the supervisors of a cycle."""
    return [pid for pid, line in marked(str(directory)).items() if "bootstrap.py" in line]


def work(seed: int, kill: str) -> tuple[float, int, list[str]]:
    """Run one cycle in a directory of its own."""
    chance = random.Random(seed)
    delay = chance.uniform(0, DELAY)
    victim = chance.choice(VICTIMS) if kill == "any" else kill
    directory = Path(tempfile.mkdtemp(prefix="cycle-"))
    directory.chmod(0o755)
    seconds, running, problems = one_cycle(directory, delay, victim)
    if problems:
        print(f"seed {seed}, {victim} killed after {delay * 1000:.0f} ms: {', '.join(problems)}")
        print((directory / "log").read_text(errors="replace"))
    shutil.rmtree(directory, ignore_errors=True)
    return seconds, running, problems


def main() -> None:
    """Run the cycles and say what came of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--kill", choices=[*VICTIMS, "any"], default="engine")
    options = parser.parse_args()
    begun = time.monotonic()
    with multiprocessing.Pool(options.jobs) as pool:
        seeds = range(options.seed, options.seed + options.cycles)
        results = pool.starmap(work, [(seed, options.kill) for seed in seeds], chunksize=1)
    seconds = sorted(result[0] for result in results)
    bad = sum(bool(result[2]) for result in results)
    running = [result[1] for result in results]
    print(
        f"{options.cycles} cycles in {time.monotonic() - begun:.0f} s (seed {options.seed}): "
        f"{bad} with a survivor, a zombie or a file left; "
        f"0 to {max(running)} processes of plugins ran when the engine was killed "
        f"(mean {statistics.mean(running):.1f}); all gone after {statistics.median(seconds):.2f} s "
        f"(median), {seconds[int(len(seconds) * 0.99)]:.2f} s (99 %), {seconds[-1]:.2f} s (most)"
    )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
