# SPDX-License-Identifier: Apache-2.0
"""Real servers for the gallery's tests: Debian's packages, unpacked, started on loopback."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # as a program; pytest has it there

from harness import gone, wait_until

NEEDS = {
    "logrotate": ("libpopt0",),
    "rsyslog": ("libestr0", "libfastjson4"),
    "systemd-journal-remote": (
        *("systemd", "libsystemd-shared", "libmicrohttpd12", "libkmod2", "libip4tc2"),
    ),
}
"""Packages that a package needs and few machines have."""

PACKAGES = (
    "etcd-server",
    "logrotate",
    "prometheus",
    "prometheus-alertmanager",
    "prometheus-node-exporter",
    "prometheus-pushgateway",
    "rsyslog",
    "rsyslog-gnutls",
    "systemd-journal-remote",
    "victoria-metrics",
)
"""All that tests ask for; this file, run as a program, fetches them before any test waits."""

_TRIES = 3
_FAILED_SECONDS = 600.0
"""How long a package that could not be had is not asked for again, by no worker."""


def _cache() -> Path:
    """Return the directory in which packages are kept from run to run, made if missing."""
    candidates = [os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")]
    candidates.append(f"{tempfile.gettempdir()}/cache-{os.getuid()}")
    for candidate in filter(os.path.isabs, candidates):
        place = Path(candidate) / "lmcache-plugin-adapter-tests"
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            if os.access(place, os.W_OK | os.X_OK):
                return place
    raise AssertionError(f"no place for Debian's packages among {candidates}")


def _unpack(package: str) -> Path:
    """Return the directory with a Debian package's files, downloaded once for this machine."""
    trouble = fetch(package, 1)
    if trouble:
        pytest.skip(f"no {package}: {trouble}")
    return _cache() / _name(package)


def _name(package: str) -> str:
    """Return the name of a package's directory: another set of libraries is another one."""
    return "+".join((package, *NEEDS.get(package, ())))


def fetch(package: str, tries: int = _TRIES) -> str:
    """Have a Debian package's files in the cache; return what went wrong."""
    cache = _cache()
    root, failed = cache / _name(package), cache / f"{_name(package)}.failed"
    if root.exists():
        return ""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        return "it comes from Debian's packages, and this is no Debian"
    # One at a time, of all workers: apt-get's lists are for one, too.
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.exists():
            return ""
        with contextlib.suppress(OSError):
            if tries == 1 and time.time() - failed.stat().st_mtime < _FAILED_SECONDS:
                return failed.read_text()
        for number in range(tries):
            time.sleep(5 * number)  # the mirror's trouble may be over then
            trouble = _fetch(package, root)
            if not trouble:
                return ""
        failed.write_text(trouble)
        return trouble


def _fetch(package: str, root: Path) -> str:
    with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
        wanted = [package, *NEEDS.get(package, ())]
        trouble = _download(wanted, scratch)
        archives = list(Path(scratch).glob("*.deb"))
        if not trouble and len(archives) < len(wanted):
            trouble = f"apt-get found {len(archives)} of {len(wanted)}"
        unpacked = Path(scratch) / "unpacked"
        for archive in () if trouble else archives:
            trouble = trouble or _run(["dpkg", "-x", str(archive), str(unpacked)], scratch)
        if not trouble:
            unpacked.rename(root)
    return trouble


def _download(packages: Sequence[str], directory: str) -> str:
    """Have apt-get fetch packages; return what went wrong."""
    cache = _cache()
    own = ["-o", f"Dir::State::lists={cache}/lists", "-o", f"Dir::Cache={cache}/apt"]
    trouble = _apt(["download", *packages], directory)
    if trouble:  # the machine knows no packages, or old ones: ask anew, and change nothing of it
        (cache / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        trouble = _apt([*own, "update"], directory) or _apt(
            [*own, "download", *packages], directory
        )
    return trouble


def _apt(arguments: Sequence[str], directory: str) -> str:
    return _run(["apt-get", "-qq", "-o", "Acquire::Retries=2", *arguments], directory)


def _run(command: Sequence[str], directory: str) -> str:
    """Run a command; return what went wrong."""
    try:
        done = subprocess.run(
            command, check=False, cwd=directory, capture_output=True, text=True, timeout=180
        )
    except subprocess.TimeoutExpired:
        return f"{command[0]} took more than 180 s"
    return (done.stderr.strip() or f"status {done.returncode}") if done.returncode else ""


def debian_binary(package: str, program: str | None = None) -> Path:
    """Return the path of a program of a Debian package; skip the test where there is none.

    Args:
        package: As ``apt-get`` names it.
        program: File name of the program; the package's name if not given.
    """
    root = _unpack(package)
    name = program or package
    for directory in ("usr/bin", "usr/sbin", "bin", "sbin", "lib/systemd", "usr/lib/systemd"):
        if (root / directory / name).exists():
            return root / directory / name
    raise AssertionError(f"package {package} has no program {name!r}")


def debian_directory(package: str, path: str) -> Path:
    """Return a directory of an unpacked Debian package, such as its modules'."""
    return _unpack(package) / path


def debian_environment(package: str) -> dict[str, str]:
    """Return the environment in which a package's programs find the libraries unpacked with it."""
    root = _unpack(package)
    libraries = sorted({str(one.parent) for one in root.glob("**/*.so*")})
    paths = [*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(paths)} if paths else dict(os.environ)


def free_port() -> int:
    """Return a TCP port of loopback that is this process's until it ends.

    Below those that the kernel gives to clients: none of them may come to have it while a test
    has its server stopped. And claimed by a name that ends with the process: other workers, of
    this run or another, take others.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = range(10_000, lowest) if lowest > 12_000 else range(10_000, 65_536)
    first = random.randrange(len(ports))
    for port in (*ports[first:], *ports[:first]):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0lmcache-plugin-adapter-tests-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        claim.detach()  # open, and so claimed, until this process ends
        return port
    raise AssertionError(f"no port of {ports} is free")


def listens(port: int) -> bool:
    """Whether somebody accepts connections on loopback's ``port``."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Server:
    """A server of the tests' own, which can be paused, killed and started again on its port.

    Args:
        command: Program and arguments; ``{port}`` and ``{data}`` are filled in.
        data: Its directory, made if missing.
        env: Its environment; the tests' own if not given.
        port: TCP port on loopback; a free one if not given.
        ports: Names of further ports to choose, for ``{NAME}`` in the command.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        data: Path,
        *,
        env: dict[str, str] | None = None,
        port: int | None = None,
        ports: Sequence[str] = (),
    ) -> None:
        self.data = data
        self.port = port or free_port()
        self.ports = {name: free_port() for name in ports}
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data / "server.log"
        places: dict[str, Any] = {"port": self.port, "data": data, **self.ports}
        self._command = [
            part.format(**places) if isinstance(part, str) else str(part) for part in command
        ]
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> Server:
        """Start it, and wait until it listens."""
        assert self._process is None, f"started twice: {self._command}"
        self.data.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.data,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if wait:
            try:
                wait_until(self._up, 60, f"{self._command[0]} listens: {self.log}")
            except AssertionError:
                self.stop()
                raise
        return self

    def _up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(
                f"{self._command} ended with {self._process.returncode}:\n{self.log.read_text()}"
            )
        return listens(self.port)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def pause(self) -> None:
        """SIGSTOP: connections are accepted by the kernel and never answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End it; its data stay, and ``start`` brings it back on the same port."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGCONT)
            os.killpg(self._process.pid, number)
        self._process.wait(20)
        self._process = None

    def forget(self) -> None:
        """End it and delete its data, save its log."""
        self.stop()
        for entry in self.data.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry != self.log:
                entry.unlink()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *error: object) -> None:
        pid = self._process.pid if self._process else None
        self.stop()
        assert pid is None or gone(pid)


@contextlib.contextmanager
def serving(*servers: Server) -> Iterator[None]:
    """Run several servers for the length of a test."""
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.enter_context(server)
        yield


if __name__ == "__main__":
    for name in sys.argv[1:] or PACKAGES:
        print(f"{name}: {fetch(name) or 'there'}", flush=True)
