# SPDX-License-Identifier: Apache-2.0
"""Two real vLLM servers beside each other, one with plugins; run by the row ``completion``.

``python benchmarks/serving.py DIRECTORY MODEL ROUNDS``, with the Python of the
ring of the real engine, prints one JSON object for each round: milliseconds of
a completion and tokens in a second, by condition.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "real_engine"))

from site_under_test import Site, wait_for
from tiny_model import make_tiny_model
from vllm_server import Server, serving

TOKENS = 16
REQUESTS = 8
BURSTS = 4
CLIENTS = 4
EACH = 2
WARM_UP = 30
CONDITIONS = ("off", "off again", "beside", "on, quiet", "on")

CHATTY = """\
import os, time
open({pid!r}, "w").write(str(os.getpid()))
line = "x" * 99
due = time.monotonic()
while True:
    now = time.monotonic()
    due = max(due, now - 0.02)
    while due <= now:
        print(line, flush=True)
        due += 0.001
    time.sleep(0.001)
"""


def main() -> None:
    """Start both, measure in turns, print."""
    directory, model, rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    make_tiny_model(model)
    off, on = Site(directory / "off"), Site(directory / "on")
    for site in (off, on):
        for path in site.plugins.iterdir():
            path.unlink()
    values = json.loads((off.directory / "lmcache.yaml").read_text())
    del values["runtime_plugin_locations"]
    (off.directory / "lmcache.yaml").write_text(json.dumps(values))
    inside, outside = directory / "inside.pid", directory / "outside.pid"
    on.add("scheduler_chatty.py", CHATTY.format(pid=str(inside)))
    with contextlib.ExitStack() as stack:
        servers = {"off": stack.enter_context(serving(off, model, VLLM_PLUGINS="none"))}
        servers["on"] = stack.enter_context(serving(on, model))
        source = CHATTY.format(pid=str(outside))
        beside = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.DEVNULL)
        stack.callback(beside.kill)
        wait_for(lambda: inside.exists() and outside.exists(), 60)
        pids = {"on": int(inside.read_text()), "beside": beside.pid}
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        for server in servers.values():
            for _ in range(WARM_UP):
                server.complete(tokens=TOKENS)
        for number in range(rounds):
            print(json.dumps(_round(servers, pids, number)), flush=True)
        for pid in pids.values():
            os.kill(pid, signal.SIGCONT)


def _round(servers: dict[str, Server], pids: dict[str, int], number: int) -> dict[str, float]:
    """Measure all conditions once; they take turns request by request.

    Args:
        servers: ``off`` and ``on``.
        pids: Of the process that goes on in a condition and is stopped else.
        number: Which round this is.
    """
    times: dict[str, list[float]] = {condition: [] for condition in CONDITIONS}
    took = dict.fromkeys(CONDITIONS, 0.0)
    for turn in range(number, number + REQUESTS):
        for condition in _turned(turn):
            with _going_on(pids.get(condition)):
                times[condition].append(_timed(servers[_server(condition)], 1))
    for turn in range(number, number + BURSTS):
        for condition in _turned(turn):
            with _going_on(pids.get(condition)):
                took[condition] += _timed(servers[_server(condition)], CLIENTS)
    tokens = BURSTS * CLIENTS * EACH * TOKENS
    return {
        **{f"{one}/latency": statistics.median(times[one]) / EACH * 1000 for one in CONDITIONS},
        **{f"{one}/throughput": tokens / took[one] for one in CONDITIONS},
    }


def _turned(turn: int) -> tuple[str, ...]:
    start = turn % len(CONDITIONS)
    return (*CONDITIONS[start:], *CONDITIONS[:start])


def _server(condition: str) -> str:
    return "on" if condition.startswith("on") else "off"


@contextlib.contextmanager
def _going_on(pid: int | None) -> Iterator[None]:
    """Let a stopped process run meanwhile."""
    if pid is None:
        yield
        return
    os.kill(pid, signal.SIGCONT)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGSTOP)


def _timed(server: Server, clients: int) -> float:
    """Return how long it takes until each of the clients has had its completions, in seconds."""

    def ask() -> None:
        for _ in range(EACH):
            server.complete(tokens=TOKENS)

    others = [threading.Thread(target=ask) for _ in range(clients - 1)]
    began = time.perf_counter()
    for thread in others:
        thread.start()
    ask()
    for thread in others:
        thread.join()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
