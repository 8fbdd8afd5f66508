"""Real servers for the gallery's tests: Debian's packages, unpacked, started on loopback."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import gone, wait_until

NEEDS = {"rsyslog": ("libestr0", "libfastjson4"), "rsyslog-gnutls": ()}
"""Libraries of a package that few machines have."""

CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "lmcache-plugin-adapter-tests"
)


def _unpack(package: str) -> Path:
    """Return the directory with a Debian package's files, downloaded once for this machine."""
    root = CACHE / package
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{package}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of one test run
        if root.exists():
            return root
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            pytest.skip(f"no {package}: it comes from Debian's packages, and this is no Debian")
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            wanted = [package, *NEEDS.get(package, ())]
            trouble = _download(wanted, scratch)
            archives = list(Path(scratch).glob("*.deb"))
            if trouble or not archives:
                pytest.skip(f"no {package}: {trouble or 'apt-get found nothing'}")
            unpacked = Path(scratch) / "unpacked"
            for archive in archives:
                subprocess.run(["dpkg", "-x", archive, unpacked], check=True, timeout=120)
            unpacked.rename(root)
    return root


def _download(packages: Sequence[str], directory: str) -> str:
    """Have apt-get fetch packages; return what went wrong."""
    own = ["-o", f"Dir::State::lists={CACHE}/lists", "-o", f"Dir::Cache={CACHE}/apt"]
    trouble = _apt(["download", *packages], directory)
    if trouble:  # the machine knows no packages, or old ones: ask anew, and change nothing of it
        (CACHE / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        trouble = _apt([*own, "update"], directory) or _apt(
            [*own, "download", *packages], directory
        )
    return trouble


def _apt(arguments: Sequence[str], directory: str) -> str:
    done = subprocess.run(
        ["apt-get", "-qq", *arguments],
        check=False,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=180,
    )
    return (done.stderr.strip() or f"status {done.returncode}") if done.returncode else ""


def debian_binary(package: str, program: str | None = None) -> Path:
    """Return the path of a program of a Debian package; skip the test where there is none.

    Args:
        package: As ``apt-get`` names it.
        program: File name of the program; the package's name if not given.
    """
    root = _unpack(package)
    name = program or package
    for directory in ("usr/bin", "usr/sbin", "bin", "sbin"):
        if (root / directory / name).exists():
            return root / directory / name
    raise AssertionError(f"package {package} has no program {name!r}")


def debian_directory(package: str, path: str) -> Path:
    """Return a directory of an unpacked Debian package, such as its modules'."""
    return _unpack(package) / path


def debian_environment(package: str) -> dict[str, str]:
    """Return the environment in which a package's programs find the libraries unpacked with it."""
    root = _unpack(package)
    libraries = sorted({str(one.parent) for one in root.glob("usr/lib/*-linux-gnu/*.so*")})
    paths = [*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(paths)} if paths else dict(os.environ)


def free_port() -> int:
    """Return a TCP port of loopback that nobody listened on a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


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
            wait_until(self._up, 30, f"{self._command[0]} listens: {self.log}")
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
