# SPDX-License-Identifier: Apache-2.0
"""A directory with plugins and a configuration, and the server that runs there."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import wait_until

END_SECONDS = 60
wait_for = functools.partial(wait_until, interval=0.05)
"""``wait_until`` at a pace that costs a real server nothing."""

# A plugin that notes its start, its engine and its end. On SIGTERM it waits for the engine's exit
# and then says goodbye, unless it is killed before.
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
# A plugin that leaves a daemon behind, in another process group and session.
DAEMONISES = "setsid sh -c 'trap \"\" TERM HUP; sleep 86400' &\nexec sleep 86400\n"
FLOODS = "while :; do echo 'a line of a plugin that says too much, over and over again'; done\n"


@dataclass(frozen=True)
class Seen:
    """The notes of one plugin process."""

    role: str
    worker_id: int
    events: tuple[dict[str, Any], ...]

    @property
    def start(self) -> dict[str, Any]:
        """The first note."""
        return self.events[0]

    @property
    def goodbye(self) -> dict[str, Any] | None:
        """The last note, if the plugin ended on SIGTERM."""
        return self.events[-1] if self.events[-1]["event"] == "goodbye" else None

    def variable(self, name: str) -> str:
        """Return one of the contract's variables, by the end of its name."""
        return str(self.start["env"][f"LMCACHE_RUNTIME_PLUGIN_{name}"])


class Site:
    """A directory with plugins, a configuration and the plugins' notes."""

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
        """Write a plugin."""
        (self.plugins / name).write_text(text)

    def configure(self, **settings: Any) -> None:
        """Write ``lmcache.yaml`` with the adapter's ``settings``; JSON is YAML."""
        values = {
            "chunk_size": 16,
            "local_cpu": True,
            "max_local_cpu_size": 0.1,
            "runtime_plugin_locations": [str(self.plugins)],
            # As important as the tests, which wait for plugins beside busy engines.
            "extra_config": {"runtime_plugins": {"nice": 0, **settings}},
        }
        (self.directory / "lmcache.yaml").write_text(json.dumps(values))

    @property
    def environ(self) -> dict[str, str]:
        """The variables of a server that runs here."""
        return {
            "LMCACHE_CONFIG_FILE": str(self.directory / "lmcache.yaml"),
            "WITNESS_DIR": str(self.notes),
            "RING_MARK": self.mark,
            "LMCACHE_PLUGINS_RUNTIME_DIR": str(self.directory / "run"),
        }

    def seen(self) -> list[Seen]:
        """Return the notes of all plugins, by replica, role and rank."""
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
        """Remove all notes."""
        for path in self.notes.iterdir():
            path.unlink()

    def processes(self) -> dict[int, str]:
        """Return pid and command line of each living process that descends from a server here."""
        found = {}
        for name in os.listdir("/proc"):
            if not name.isdecimal() or int(name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                # vLLM writes process titles over the environment, so these processes are
                # found by the server's session.
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                of_server = fields[0] != "Z" and int(fields[3]) in self.sessions
                if of_server or self.mark.encode() in Path(f"/proc/{name}/environ").read_bytes():
                    line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(name)] = line.decode(errors="replace").strip()
        return found

    def wait_until_nothing_is_left(self, seconds: float = END_SECONDS) -> float:
        """Wait until no process is left, and return the seconds."""
        began = time.monotonic()
        wait_for(lambda: not self.processes(), seconds, lambda: f"left: {self.processes()}")
        return time.monotonic() - began


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A real server in a session of its own, with its log in a file.

    Args:
        site: Plugins, configuration and environment of the server.
        port: Where it answers HTTP requests; part of the log file's name.
        command: The program and its arguments.
        environ: More variables.
        start_seconds: Time until the first answer.
    """

    def __init__(
        self,
        site: Site,
        port: int,
        command: Sequence[str],
        environ: Mapping[str, str],
        start_seconds: float,
    ) -> None:
        self.site = site
        self.log_path = site.directory / f"server-{port}.log"
        began = time.monotonic()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **site.environ, **environ},
                cwd=site.directory,
                start_new_session=True,
            )
        site.sessions.append(self.process.pid)
        wait_for(self._answers, start_seconds, lambda: self.log[-3000:])
        self.start_seconds = time.monotonic() - began

    def is_healthy(self) -> bool:
        """Return whether the server answers its health check; an ``OSError`` means no."""
        raise NotImplementedError

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the server exited: {self.log[-3000:]}")
        try:
            return self.is_healthy()
        except OSError:
            return False

    @property
    def log(self) -> str:
        """The log of server, engine and plugins, without colours."""
        text = self.log_path.read_text(errors="replace")
        return re.sub(r"\x1b\[[0-9;]*m", "", text)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Wait for the server's own exit."""
        return self.process.wait(seconds)


@contextlib.contextmanager
def killed_at_the_end(site: Site) -> Iterator[None]:
    """Kill each process of ``site`` that is left when the block ends."""
    try:
        yield
    finally:

        def none_left() -> bool:
            left = site.processes()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        wait_for(none_left, 20, lambda: f"left: {site.processes()}")
