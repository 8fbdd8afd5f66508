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
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "real_engine"))

from tiny_model import make_tiny_model
from vllm_server import Server, Site, serving, wait_for

TOKENS = 16
REQUESTS = 15
CLIENTS = 4
EACH = 5
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
            turn = number % len(CONDITIONS)
            sample: dict[str, float] = {}
            for condition in (*CONDITIONS[turn:], *CONDITIONS[:turn]):
                server = servers["on" if condition.startswith("on") else "off"]
                sample.update(_measured(server, condition, pids.get(condition)))
            print(json.dumps(sample), flush=True)
        for pid in pids.values():
            os.kill(pid, signal.SIGCONT)


def _measured(server: Server, condition: str, pid: int | None) -> dict[str, float]:
    """Measure one condition; the process ``pid`` goes on meanwhile."""
    if pid is not None:
        os.kill(pid, signal.SIGCONT)
    time.sleep(0.05)
    times = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        server.complete(tokens=TOKENS)
        times.append(time.perf_counter() - began)

    def ask() -> None:
        for _ in range(EACH):
            server.complete(tokens=TOKENS)

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if pid is not None:
        os.kill(pid, signal.SIGSTOP)
    return {
        f"{condition}/latency": sorted(times)[REQUESTS // 2] * 1000,
        f"{condition}/throughput": CLIENTS * EACH * TOKENS / took,
    }


if __name__ == "__main__":
    main()
