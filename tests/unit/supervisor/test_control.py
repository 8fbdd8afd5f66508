# SPDX-License-Identifier: Apache-2.0
"""The control socket answers its own user, in bounded time and memory, whatever it is sent."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from harness import STAYS, all_places, ask, connect, dead_run_id, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmcache_plugin_adapter.cli.supervisors.client import request_all
from lmcache_plugin_adapter.cli.supervisors.search import Address
from lmcache_plugin_adapter.contract.run_token import engine_is_gone, new_run_id
from lmcache_plugin_adapter.contract.runtime_dir import (
    InstanceDir,
    candidates,
    open_root,
    remove_stale,
    why_unusable,
)
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.supervisor.control.server import ControlServer


@pytest.fixture
def path(plugin, engine, tmp_path) -> str:
    """The control socket of an engine with one plugin."""
    plugin("all_x.sh", "echo up; exec sleep 60")
    engine().wait_log(r"\] up ")
    (instance,) = (tmp_path / "run").iterdir()
    return str(instance / "control.sock")


def test_status(path) -> None:
    """Status tells what runs."""
    answer = ask(path, b'{"op": "status"}\n')
    assert answer["ok"] is True
    assert answer["protocol"] == 1
    (plugin,) = answer["plugins"]
    assert (plugin["name"], plugin["state"]) == ("all_x", "running")


def test_unknown_op_and_garbage_are_errors(path) -> None:
    """What is no request is answered with what is wrong; the supervisor goes on."""
    assert ask(path, b'{"op": "dance"}\n')["error"].startswith(
        "unknown op 'dance': known are logs, "
    )
    for garbage in (b"\n", b"[]\n", b"{}\n", b"\xff\n", b"[" * 50_000 + b"\n", b'{"op": []}\n'):
        answer = ask(path, garbage)
        assert answer["ok"] is False
        assert answer["error"]
    assert ask(path, b'{"op": "status"}\n')["ok"]


def test_endless_request_is_cut_off(path) -> None:
    """A request over the limit ends the connection."""
    with pytest.raises((ConnectionError, BrokenPipeError)):
        ask(path, b"x" * 1_000_000)
    assert ask(path, b'{"op": "status"}\n')["ok"]


def test_answers_wait_for_who_does_not_read(path) -> None:
    """Thousands of requests in one go cost the supervisor no memory for their answers."""
    status = ask(path, b'{"op": "status"}\n')
    memory = Path(f"/proc/{status['supervisor_pid']}/status")
    with connect(path) as connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.sendall(b'{"op": "status"}\n' * 300_000)
        assert ask(path, b'{"op": "status"}\n')["ok"]
        grown = int(re.findall(r"VmHWM:\s+(\d+)", memory.read_text())[0])
        assert grown < 40_000
        connection.settimeout(5)
        assert connection.recv(100)


def test_no_free_descriptor_is_no_busy_loop(monkeypatch, tmp_path) -> None:
    """A client that cannot be let in waits; the supervisor sleeps meanwhile."""
    errors: list[BaseException] = []
    loop = Loop(errors.append)
    server = ControlServer(loop, {"status": lambda _request, _client: {}})
    server.listen(str(tmp_path), "control.sock")

    class Full:
        """A listener for which no descriptor is free."""

        def __init__(self, listener: socket.socket) -> None:
            self.listener = listener
            self.calls: list[float] = []

        def fileno(self) -> int:
            return self.listener.fileno()

        def _accept(self) -> None:
            self.calls.append(time.monotonic())
            if len(self.calls) == 2:
                loop.stop()
            raise OSError(errno.EMFILE, "Too many open files")

        def close(self) -> None:
            self.listener.close()

    full = Full(server._listener)  # type: ignore[arg-type]
    server._listener = full  # type: ignore[assignment]
    with connect(str(tmp_path / "control.sock")):
        loop.run()
    server.close()
    first, second = full.calls
    assert second - first >= 1
    assert not errors


def test_many_and_silent_clients(path) -> None:
    """Clients that say nothing hold nobody up; too many are turned away."""
    silent = [connect(path) for _ in range(31)]
    assert ask(path, b'{"op": "status"}\n')["ok"]
    for connection in silent:
        connection.close()
    wait_until(lambda: ask(path, b'{"op": "status"}\n')["ok"])


def refused(path: str) -> bool:
    """Ask for the status; tell whether the answer is that there are too many clients."""
    (reply,) = request_all([Address(os.path.dirname(path), os.getuid())], {"op": "status"})
    assert reply.answer or reply.problem, "it must not look as if nobody were there"
    return "serves 32 clients already" in (reply.problem or "")


def test_idle_clients_make_room_for_others(path) -> None:
    """Clients that ask nothing give way, the longest idle first, and are told why."""
    idle = [connect(path) for _ in range(32)]
    idle[0].sendall(b'{"op": "status"}\n')
    assert b"all_x" in idle[0].recv(65536)
    wait_until(lambda: not refused(path))
    assert b"serves 32 clients already" in idle[1].recv(65536)
    assert idle[1].recv(1) == b""
    for connection in (idle[0], *idle[2:]):
        connection.sendall(b'{"op": "status"}\n')
        assert b"all_x" in connection.recv(65536)
    for connection in idle:
        connection.close()


def test_too_many_that_wait_for_something(plugin, engine, tmp_path) -> None:
    """Who waits stays; one too many is told so, and not that no supervisor runs."""
    may_stop = tmp_path / "may-stop"
    plugin("all_x.sh", STAYS.format(may_stop))
    one = engine({"stop_grace": 60})
    one.wait_log(r"\] up ")
    with all_places(one.control, may_stop) as clients:
        past = time.monotonic() + 1.2
        wait_until(lambda: time.monotonic() > past)
        assert refused(one.control)
        clients[0].close()
        wait_until(lambda: not refused(one.control))


def test_socket_that_a_killed_supervisor_left_half_made(tmp_path) -> None:
    """Neither the socket nor what was to become it is in the way."""
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as left:
            directory = os.open(tmp_path, os.O_PATH)
            left.bind(f"/proc/self/fd/{directory}/control.sock.new")
            os.close(directory)
        server = ControlServer(Loop(print), {})
        server.listen(str(tmp_path), "control.sock")
        server.close()
    assert os.listdir(tmp_path) == ["control.sock"]


def test_clients_that_do_not_wait_for_the_answer(path) -> None:
    """A command that is interrupted, again and again, is the supervisor's death in no case."""
    before = ask(path, b'{"op": "status"}\n')["supervisor_pid"]
    for _ in range(20):
        with connect(path) as connection:
            connection.sendall(b'{"op": "status"}\n' * 3)
    assert ask(path, b'{"op": "status"}\n')["supervisor_pid"] == before


def test_several_requests_on_one_connection(path) -> None:
    """A connection may be used again."""
    with connect(path) as connection:
        for _ in range(3):
            connection.sendall(b'{"op": "status"}\n')
            assert b"all_x" in connection.recv(65536)


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.binary(max_size=200).map(lambda raw: raw.replace(b"\n", b" ") + b"\n"))
def test_any_line_is_answered(path, line) -> None:
    """Whatever line comes, one line of JSON goes back."""
    assert ask(path, line)["protocol"] == 1


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
def test_other_users_are_not_let_in(path) -> None:
    """Another user cannot connect, even if the directories let them through."""
    for directory in (os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
        os.chmod(directory, 0o755)
    os.chmod(path, 0o666)
    program = (
        "import os, socket, sys\nos.setuid(12345)\ns = socket.socket(socket.AF_UNIX)\n"
        "s.connect('control.sock')\ns.sendall(b'{\"op\": \"status\"}\\n')\nprint(s.recv(100))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=os.path.dirname(path),
        capture_output=True,
        check=False,
        timeout=10,
    )
    assert b"all_x" not in done.stdout


def test_candidates_begin_with_the_chosen_directory() -> None:
    """The variable comes first, then /run, /dev/shm and /tmp."""
    uid = os.getuid()
    assert candidates({"LMCACHE_PLUGINS_RUNTIME_DIR": "/x"}) == [
        "/x",
        f"/run/lmcache-plugins-{uid}",
        f"/dev/shm/lmcache-plugins-{uid}",
        f"/tmp/lmcache-plugins-{uid}",
    ]


def test_the_socket_is_private_without_a_change_of_the_umask(tmp_path, mocker) -> None:
    """The writer threads create files at the same time, and the umask is that of the process."""
    umask = mocker.spy(os, "umask")
    server = ControlServer(Loop(print))
    before = os.umask(0)
    try:
        server.listen(str(tmp_path), "control.sock")
    finally:
        os.umask(before)
        server.close()
    assert umask.call_count == 2
    assert (tmp_path / "control.sock").stat().st_mode & 0o777 == 0o600


def test_directory_that_others_may_enter_is_not_used(tmp_path) -> None:
    """Mode, kind and links are checked; the reason names the mend."""
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "private").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "private")
    (tmp_path / "file").touch()
    assert "chmod 700" in (why_unusable(str(tmp_path / "open")) or "")
    assert why_unusable(str(tmp_path / "private")) is None
    assert why_unusable(str(tmp_path / "link")) == "it is not a directory"
    assert why_unusable(str(tmp_path / "file")) == "it is not a directory"
    assert why_unusable(str(tmp_path / "none"))


def test_unusable_choice_falls_through(tmp_path) -> None:
    """The next candidate is taken, and why the first was not is known."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    root, reasons = open_root({"LMCACHE_PLUGINS_RUNTIME_DIR": str(tmp_path / "open")})
    assert root != str(tmp_path / "open")
    assert "chmod 700" in reasons[0]


def test_only_what_nobody_holds_is_removed(tmp_path) -> None:
    """Directories that a supervisor holds stay, and so do names that are not ours."""
    held = InstanceDir(str(tmp_path), new_run_id(), "worker-0")
    awaited = InstanceDir(str(tmp_path), new_run_id(), "worker-1")
    os.close(awaited.fd)  # its supervisor was killed; the engine, this process, lives
    left = tmp_path / f"{dead_run_id()}.worker-0"
    left.mkdir()
    (left / "config.json").touch()
    (tmp_path / "something").mkdir()
    assert remove_stale(str(tmp_path)) == 1
    kept = [os.path.basename(one.path) for one in (held, awaited)]
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "something"])
    held.remove()
    assert sorted(os.listdir(tmp_path)) == sorted([kept[1], "something"])


def test_directory_that_is_held_for_a_moment_is_removed(tmp_path) -> None:
    """A killed supervisor, and a child of it before its exec, hold the lock until they are dead."""
    held = InstanceDir(str(tmp_path), dead_run_id(), "worker-0")
    assert remove_stale(str(tmp_path)) == 0
    dying = threading.Timer(0.5, os.close, [held.fd])
    dying.start()
    assert remove_stale(str(tmp_path), seconds=20) == 1
    dying.join()
    assert os.listdir(tmp_path) == []


def test_run_ids() -> None:
    """A token tells whether its engine is gone; what is no token tells nothing."""
    assert not engine_is_gone(new_run_id())
    assert new_run_id() != new_run_id()
    for odd in ("", "a.b.c.d", "1.2", "....", "4026531836.x.1.2"):
        assert not engine_is_gone(odd)
