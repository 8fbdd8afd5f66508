"""A real vLLM server on the CPU, its processes as in ``/proc``, and what its plugins write."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 300
END_SECONDS = 60

# Notes its start, its engine and its end. On SIGTERM it waits for the engine's end, then says
# goodbye: it can if nobody kills it before, and if the engine does not wait for it in turn.
WITNESS = """\
#!/usr/bin/env python3
import importlib.util, json, os, signal, sys, time

variables = {k: v for k, v in os.environ.items() if k.startswith("LMCACHE_RUNTIME_PLUGIN_")}
engine = int(variables.get("LMCACHE_RUNTIME_PLUGIN_ENGINE_PID", os.getppid()))

def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"

def note(event):
    line = {"event": event, "at": time.time(), "pid": os.getpid(), "engine": engine,
            "engine_state": state(engine), "python": sys.executable, "env": variables,
            "lmcache": importlib.util.find_spec("lmcache") is not None}
    with open(os.path.join(os.environ["WITNESS_DIR"], f"{os.getpid()}.jsonl"), "a") as out:
        out.write(json.dumps(line) + "\\n")

def goodbye(signum, frame):
    note("sigterm")
    while state(engine) not in ("Z", "gone"):  # which does not wait for us
        time.sleep(0.05)
    note("goodbye")
    print("goodbye", flush=True)
    os._exit(0)

signal.signal(signal.SIGTERM, goodbye)
note("start")
print("watching", flush=True)
while True:
    signal.pause()
"""
# Leaves a daemon behind that no process group or session leads to.
DAEMONISES = "setsid sh -c 'trap \"\" TERM HUP; sleep 86400' &\nexec sleep 86400\n"
FLOODS = "while :; do echo 'a line of a plugin that says too much, over and over again'; done\n"


@dataclass(frozen=True)
class Seen:
    """What one plugin process wrote."""

    role: str
    worker_id: int
    events: tuple[dict[str, Any], ...]

    @property
    def start(self) -> dict[str, Any]:
        """Its first note."""
        return self.events[0]

    @property
    def goodbye(self) -> dict[str, Any] | None:
        """Its note on SIGTERM, if it had one."""
        return self.events[-1] if self.events[-1]["event"] == "goodbye" else None

    def variable(self, name: str) -> str:
        """One of the contract's variables, by the end of its name."""
        return str(self.start["env"][f"LMCACHE_RUNTIME_PLUGIN_{name}"])


class Site:
    """A directory with plugins, a configuration and what they leave."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.plugins = directory / "plugins"
        self.notes = directory / "notes"
        self.mark = f"ring-{uuid.uuid4().hex}"
        self.sessions: list[int] = []
        for made in (self.plugins, self.notes):
            made.mkdir(parents=True)
        self.add("all_witness.py", WITNESS)
        self.add("utils.py", "raise SystemExit('a helper module is no plugin')\n")
        self.configure(**settings)

    def add(self, name: str, text: str) -> None:
        """Put a plugin there."""
        (self.plugins / name).write_text(text)

    def configure(self, **settings: Any) -> None:
        """Write ``lmcache.yaml`` with settings of ours; JSON is YAML."""
        values = {
            "chunk_size": 16,
            "local_cpu": True,
            "max_local_cpu_size": 0.1,
            "runtime_plugin_locations": [str(self.plugins)],
            "extra_config": {"runtime_plugins": settings},
        }
        (self.directory / "lmcache.yaml").write_text(json.dumps(values))

    @property
    def environ(self) -> dict[str, str]:
        """What a server needs to know of it."""
        return {
            "LMCACHE_CONFIG_FILE": str(self.directory / "lmcache.yaml"),
            "WITNESS_DIR": str(self.notes),
            "RING_MARK": self.mark,
            "LMCACHE_PLUGINS_RUNTIME_DIR": str(self.directory / "run"),
        }

    def seen(self) -> list[Seen]:
        """What the witnesses wrote, by replica, role and rank."""
        found = []
        for path in self.notes.glob("*.jsonl"):
            complete, _, _ = path.read_text().rpartition("\n")  # it may be written at this moment
            events = tuple(json.loads(line) for line in complete.splitlines())
            if not events:
                continue
            env = events[0]["env"]
            found.append(
                Seen(
                    env["LMCACHE_RUNTIME_PLUGIN_ROLE"],
                    int(env["LMCACHE_RUNTIME_PLUGIN_WORKER_ID"]),
                    events,
                )
            )
        return sorted(
            found,
            key=lambda one: (
                one.start["env"].get("LMCACHE_RUNTIME_PLUGIN_DP_RANK", "0"),
                one.role,
                one.worker_id,
            ),
        )

    def forget(self) -> None:
        """Clear what was written."""
        for path in self.notes.iterdir():
            path.unlink()

    def processes(self) -> dict[int, str]:
        """Everything alive that was started from here, however deep: pid and command line."""
        found = {}
        for name in os.listdir("/proc"):
            if not name.isdecimal() or int(name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                # vLLM's process titles are written over the environment: those are known
                # by the server's session.
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                of_server = fields[0] != "Z" and int(fields[3]) in self.sessions
                if of_server or self.mark.encode() in Path(f"/proc/{name}/environ").read_bytes():
                    line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(name)] = line.decode(errors="replace").strip()
        return found

    def wait_until_nothing_is_left(self, seconds: float = END_SECONDS) -> float:
        """Wait until no process is left; return how long it took."""
        began = time.monotonic()
        wait_for(lambda: not self.processes(), seconds, lambda: f"left: {self.processes()}")
        return time.monotonic() - began


def wait_for(
    condition: Callable[[], Any], seconds: float, failure: Callable[[], object] = lambda: ""
) -> Any:
    """Return what ``condition`` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {failure()}")
        time.sleep(0.05)
    return value


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """``vllm`` serving the tiny model with LMCache; see :func:`serving`."""

    def __init__(
        self,
        site: Site,
        model: Path,
        *arguments: str,
        connector: dict[str, Any] | None = None,
        port: int | None = None,
        **environ: str,
    ) -> None:
        self.site = site
        self.port = port or free_port()
        self.log_path = site.directory / f"server-{self.port}.log"
        transfer = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both", **(connector or {})}
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(model), "--served-model-name", "tiny", "--port", str(self.port)]
        command += ["--host", "127.0.0.1", "--max-model-len", "512", "--enforce-eager"]
        command += ["--dtype", "bfloat16", "--kv-transfer-config", json.dumps(transfer)]
        command += ["--max-num-seqs", "8", *arguments]
        defaults = {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }
        began = time.monotonic()
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **defaults, **site.environ, **environ},
                cwd=site.directory,
                start_new_session=True,
            )
        site.sessions.append(self.process.pid)
        wait_for(self._answers, START_SECONDS, lambda: self.log[-3000:])
        self.start_seconds = time.monotonic() - began

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended: {self.log[-3000:]}")
        url = f"http://127.0.0.1:{self.port}/health"
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    @property
    def log(self) -> str:
        """What server, engine and plugins logged, without colours."""
        text = self.log_path.read_text(errors="replace")
        return re.sub(r"\x1b\[[0-9;]*m", "", text)

    def complete(self, prompt: str = "the quick brown fox", tokens: int = 8) -> str:
        """Have a completion made; returns its text."""
        body = {"model": "tiny", "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            return str(json.loads(reply.read())["choices"][0]["text"])

    def completion_milliseconds(self, number: int = 40) -> float:
        """Return the median time of a completion of 16 tokens."""
        times = []
        for _ in range(number):
            began = time.perf_counter()
            self.complete(tokens=16)
            times.append(time.perf_counter() - began)
        return sorted(times)[number // 2] * 1000

    def pids(self, title: str) -> list[int]:
        """Return the server's processes whose title vLLM set to ``title``."""
        return [pid for pid, line in self.site.processes().items() if title in line]

    @property
    def engine_core(self) -> int:
        """The process of vLLM's engine core."""
        (pid,) = self.pids("EngineCore")
        return pid

    def signal_group(self, number: int) -> None:
        """Do what a terminal does on Ctrl-C: signal the foreground process group."""
        os.killpg(self.process.pid, number)

    def wait(self) -> int:
        """Wait until the server itself has ended."""
        return self.process.wait(END_SECONDS)


@contextlib.contextmanager
def serving(site: Site, model: Path, *arguments: str, **options: Any) -> Iterator[Server]:
    """Serve; whatever happens, nothing of it is left afterwards."""
    try:
        yield Server(site, model, *arguments, **options)
    finally:
        for _ in range(100):
            left = site.processes()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                break
            time.sleep(0.1)
