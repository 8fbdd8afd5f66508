# SPDX-License-Identifier: Apache-2.0
"""Real engine processes with real plugins, and their state in /proc, for the tests."""

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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

MARK = "LMCACHE_PLUGIN_ADAPTER_TEST"
"""The variable by which a test finds all processes that descend from its engines."""

ENGINE_PROGRAM = Path(__file__).with_name("engine_program.py")

_HANG_SHIM = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

DIR *opendir(const char *name) {
    const char *hung = getenv("HUNG_DIRECTORY");
    while (hung && strcmp(name, hung) == 0 && access(getenv("ANSWERS"), F_OK) != 0)
        usleep(10000);
    return ((DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir"))(name);
}
"""


def build_hang_shim(directory: Path) -> str:
    """Build a library for LD_PRELOAD under which HUNG_DIRECTORY hangs until the file ANSWERS."""
    (directory / "shim.c").write_text(_HANG_SHIM)
    command = ["cc", "-shared", "-fPIC", "-o", "shim.so", "shim.c", "-ldl"]
    subprocess.run(command, cwd=directory, check=True)
    return str(directory / "shim.so")


def wait_until(
    condition: Callable[[], T],
    seconds: float = 10.0,
    what: str | Callable[[], object] = "",
    interval: float = 0.005,
) -> T:
    """Return the first true value of ``condition``; fail when the deadline has passed.

    Args:
        condition: Called again and again.
        seconds: Time until the failure.
        what: What the failure says; a function is called at that time.
        interval: Seconds between two calls.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            said = what() if callable(what) else what or condition
            raise AssertionError(f"not within {seconds} s: {said}")
        time.sleep(interval)


def state_of(pid: int) -> str | None:
    """Return a process's state letter, or None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return text[text.rfind(b")") + 2 :][:1].decode()


def alive(pid: int) -> bool:
    """Return whether ``pid`` runs; a zombie does not."""
    return state_of(pid) not in (None, "Z", "X")


def gone(pid: int) -> bool:
    """Return whether ``pid`` has exited; a zombie has."""
    return not alive(pid)


def marked(value: str) -> dict[int, str]:
    """Return pid and command line of each process with ``MARK=value`` in its environment."""
    wanted = f"{MARK}={value}".encode()
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or not alive(int(entry)):
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
            command = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
        if wanted in environment and command:
            found[int(entry)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


class Engine:
    """A real process that launches plugins as an engine does.

    Args:
        directory: For its files.
        config: ``runtime_plugin_locations`` and ``extra_config``.
        role: As for the launcher.
        worker_count: As for the launcher.
        worker_id: As for the launcher.
        env: Variables on top of the test's own.
        prelude: Python that runs before the launch.
        launch: Whether to launch at once.
        stderr: Where its stderr goes; None: a file, which :meth:`log` reads.
        python: The interpreter.
        prefix: Words before the interpreter, such as ``unshare``.
        program: What the interpreter runs.
        options: For ``subprocess.Popen``.
    """

    def __init__(
        self,
        directory: Path,
        config: dict[str, Any],
        *,
        role: str | None = "worker",
        worker_count: int = 1,
        worker_id: int = 0,
        env: dict[str, str | None] | None = None,
        prelude: str = "",
        launch: bool = True,
        stderr: int | None = None,
        python: str = sys.executable,
        prefix: Sequence[str] = (),
        program: Path = ENGINE_PROGRAM,
        **options: Any,
    ) -> None:
        self.log_path = directory / f"engine-{role}-{worker_id}.log"
        environment = {**os.environ, MARK: str(directory)}
        environment["LMCACHE_PLUGINS_RUNTIME_DIR"] = str(directory / "run")
        for name, value in (env or {}).items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        spec = {
            "config": config,
            "role": role,
            "worker_count": worker_count,
            "worker_id": worker_id,
            "prelude": prelude,
            "launch": launch,
        }
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, python, str(program), json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log if stderr is None else stderr,
                env=environment,
                **{"cwd": directory, **options},
            )
        self.pid = self.process.pid

    def do(self, python: str) -> Any:
        """Run Python in the engine (``launcher`` is its launcher) and return the result."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(python).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the engine ended: {self.process.wait()}\n{self.log()}")
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["value"]

    def interrupt(self, python: str) -> None:
        """Run Python in the engine from a signal handler, apart from :meth:`do`."""
        self.do(
            "import signal; scope = globals()\n"
            f"signal.signal(signal.SIGALRM, lambda *_: exec({python!r}, scope))"
        )
        self.process.send_signal(signal.SIGALRM)

    def log(self) -> str:
        """Return the engine's log."""
        return self.log_path.read_bytes().decode(errors="surrogateescape")

    def records(self, name: str = "") -> list[tuple[str, str, str]]:
        """Return level, plugin and text of each record, of one plugin if a name is given."""
        found = [
            match.groups()
            for line in self.log().splitlines()
            if (match := RECORD.fullmatch(line)) is not None
        ]
        return [record[:3] for record in found if not name or record[1] == name]

    def texts(self, name: str) -> list[str]:
        """Return the texts that a plugin wrote, without the supervisor's records about it."""
        return [
            match[3]
            for line in self.log().splitlines()
            if (match := RECORD.fullmatch(line)) is not None
            and match[2] == name
            and match[4] != "supervisor.py"
        ]

    def wait_log(self, pattern: str, seconds: float = 10.0) -> re.Match[str]:
        """Wait until the log matches ``pattern``."""
        return self.wait_for(
            lambda: re.search(pattern, self.log(), re.MULTILINE), seconds, f"log: {pattern}"
        )

    def status(self, name: str = "all_x") -> dict[str, Any]:
        """Return the supervisor's status of one plugin; empty as long as there is none."""
        status = self.do("launcher.status(10)") or {"plugins": ()}
        return next((plugin for plugin in status["plugins"] if plugin["name"] == name), {})

    @property
    def control(self) -> str:
        """The path of the supervisor's control socket."""
        run = self.log_path.parent / "run"
        found = wait_until(lambda: list(run.glob(f"*.{self.pid}.*/control.sock")))
        return str(found[0])

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """Send a request to the supervisor and return the answer."""
        return ask(self.control, json.dumps({"op": op, **request}).encode() + b"\n")

    def supervisor(self) -> int:
        """Return the pid of the supervisor that wrote last."""
        self.wait_log(SUPERVISOR)
        return int(re.findall(SUPERVISOR, self.log())[-1])

    def plugin_pid(self, name: str) -> int:
        """Return the pid that a plugin was last started with."""
        self.wait_log(rf"\[{re.escape(name)}\] Started, pid \d+")
        return int(re.findall(rf"\[{re.escape(name)}\] Started, pid (\d+)", self.log())[-1])

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal the engine and wait for its exit."""
        self.process.send_signal(number)
        self.process.wait(20)

    def wait_for(self, condition: Callable[[], T], seconds: float = 10.0, what: str = "") -> T:
        """Call :func:`wait_until`; a failure shows the log."""
        try:
            return wait_until(condition, seconds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def close(self) -> int:
        """Make the engine return from its main function, and wait for its exit."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        status = self.process.wait(20)
        self.process.stdout.close()
        return status


SUPERVISOR = r"\(supervisor\.py:(\d+):"
RECORD = re.compile(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] LMCache ([A-Z]+): \[(.*?)\] (.*) "
    r"\(([^()]*):\d+:lmcache_plugin_adapter\.[\w.]+\)",
)


def connect(path: str) -> socket.socket:
    """Return a connection to a control socket, also at a path that is too long for one."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    directory = os.open(os.path.dirname(path), os.O_PATH)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection


def ask(path: str, request: bytes) -> dict[str, Any]:
    """Send one request to a control socket and return the answer."""
    with connect(path) as connection:
        connection.sendall(request)
        data = b""
        while not data.endswith(b"\n"):
            part = connection.recv(65536)
            if not part:
                raise ConnectionError
            data += part
        answer: dict[str, Any] = json.loads(data)
        return answer


def dead_run_id() -> str:
    """Return the run token of an engine that has ended."""
    from lmcache_plugin_adapter.contract.run_token import new_run_id

    namespace, pid, _, chance = new_run_id().split(".")
    return f"{namespace}.{pid}.1.{chance}"  # it started at another time than this process


STAYS = "trap '' TERM; echo up; while [ ! -e {} ]; do sleep 0.1; done"
"""A plugin that stops only when a file appears."""


@contextlib.contextmanager
def all_places(path: str, may_stop: Path) -> Iterator[list[socket.socket]]:
    """Have clients take all places of a control socket: followers, and some that wait for a stop.

    Its plugin is :data:`STAYS`, which stops afterwards.
    """
    requests = [{"op": "logs", "all": True, "lines": 0, "follow": True}] * 24
    requests += [{"op": "stop", "all": True, "wait": True}] * 8
    with contextlib.ExitStack() as stack:
        clients = []
        for request in requests:
            clients.append(stack.enter_context(connect(path)))
            clients[-1].sendall(json.dumps(request).encode() + b"\n")
            if request["op"] == "logs":
                assert b"names" in clients[-1].recv(65536)
        yield clients
        may_stop.touch()


def survivors(directory: Path) -> Iterator[str]:
    """Yield pid, state and command line of each process of a test that still runs."""
    for pid, command in marked(str(directory)).items():
        yield f"{pid} {state_of(pid)} {command}"
