# SPDX-License-Identifier: Apache-2.0
"""Supervisors are found and asked, whatever stands in their place."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness import connect, dead_run_id

from lmcache_plugin_adapter.cli.logs import command as logs
from lmcache_plugin_adapter.cli.logs import source
from lmcache_plugin_adapter.cli.logs.formats import to_json as line_to_json
from lmcache_plugin_adapter.cli.logs.printer import Filter, Printer
from lmcache_plugin_adapter.cli.status.json_document import to_json
from lmcache_plugin_adapter.cli.status.report import make_report
from lmcache_plugin_adapter.cli.supervisors import client, connection, search
from lmcache_plugin_adapter.cli.supervisors.client import request_all
from lmcache_plugin_adapter.cli.supervisors.search import Address, find_supervisors
from lmcache_plugin_adapter.cli.supervisors.survey import Selector, survey
from lmcache_plugin_adapter.contract.run_token import new_run_id
from lmcache_plugin_adapter.contract.runtime_dir import InstanceDir

UP = "echo up; exec sleep 60"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one runtime directory there is."""
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    monkeypatch.setattr(search, "candidates", lambda _environ: [str(path)])
    monkeypatch.setenv("LMCACHE_PLUGINS_RUNTIME_DIR", str(path))
    monkeypatch.setattr(search, "_USERS_ROOTS", (str(tmp_path),))
    return path


@pytest.fixture
def place(root: Path) -> Callable[[], Path]:
    """Make the directory of a supervisor that does not exist."""

    def make() -> Path:
        path = root / f"{dead_run_id()}.worker-0"
        path.mkdir(mode=0o700)
        return path

    return make


def bind(listener: socket.socket, directory: Path) -> None:
    """Make a control socket, whatever the length of its path."""
    here = os.open(directory, os.O_PATH)
    listener.bind(f"/proc/self/fd/{here}/control.sock")
    os.close(here)


@pytest.fixture
def answering(place) -> Iterator[Callable[[bytes], Path]]:
    """Have somebody answer at a control socket with what is given."""
    with contextlib.ExitStack() as stack:

        def start(answer: bytes) -> Path:
            path = place()
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            bind(listener, path)
            listener.listen()

            def serve() -> None:
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)

            threading.Thread(target=serve, daemon=True).start()
            return path

        yield start


def test_finds_and_asks_all(root, plugin, engine) -> None:
    """Scheduler and workers, in order; pids are known to be ours."""
    plugin("all_x.sh", UP)
    engines = [engine(role=role, worker_count=2) for role in ("worker", "worker", "scheduler")]
    for one in engines:
        one.wait_log(r"\] up ")
    found = survey(Selector())
    assert [one.identity for one in found.supervisors] == ["scheduler", "worker 0", "worker 1"]
    assert all(one.sees_same_pids for one in found.supervisors)
    assert (found.problems, found.failures) == ([], [])
    only = survey(Selector(rank=1))
    assert [one.engine_pid for one in only.supervisors] == [engines[1].pid]
    assert only.others == 2


def test_dead_socket_is_cleared_away(root, place) -> None:
    """What a killed supervisor left goes; nobody is told of it."""
    path = place()
    with socket.socket(socket.AF_UNIX) as dead:
        bind(dead, path)
    (path / "config.json").touch()
    empty = place()
    found = survey(Selector())
    assert (found.supervisors, found.failures) == ([], [])
    assert not path.exists()
    assert not empty.exists()


def test_place_of_an_engine_that_lives_is_not_cleared_away(root) -> None:
    """Its next supervisor takes over what is in it: until then, nobody says that nothing runs."""
    left = root / f"{new_run_id()}.worker-0"
    left.mkdir(mode=0o700)
    (left / "stopped").touch()
    (failure,) = survey(Selector()).failures
    assert failure == f"the supervisor at '{left}' was killed, and another is about to start"
    assert (left / "stopped").exists()


def test_place_that_is_held_is_not_cleared_away(root) -> None:
    """A supervisor that is about to listen keeps its directory."""
    held = InstanceDir(str(root), new_run_id(), "worker-0")
    (reply,) = request_all(find_supervisors({}).addresses, {"op": "status"})
    assert (reply.answer, reply.problem) == (None, None)
    assert os.path.isdir(held.path)
    held.remove()


def test_links_and_files_are_not_followed(root, place, plugin, engine) -> None:
    """A link to a real socket is refused with the reason; so is a plain file."""
    linked, plain = place(), place()
    locks = [os.open(path, os.O_RDONLY) for path in (linked, plain)]
    for lock in locks:
        fcntl.flock(lock, fcntl.LOCK_SH)  # the engine's supervisor clears away what nobody holds
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    (linked / "control.sock").symlink_to(one.control)
    (plain / "control.sock").touch()
    link = f"{new_run_id()}.worker-7"
    (root / link).symlink_to(os.path.dirname(one.control))
    found = survey(Selector())
    assert len(found.supervisors) == 1
    refused = sorted(found.failures)
    assert refused[0].startswith(f"cannot open '{root}/")
    assert all("it is not a socket of user" in text for text in refused[1:])
    assert len(refused) == 3
    for lock in locks:
        os.close(lock)
    for path in (linked, plain):  # nothing may be left there when the engine ends
        shutil.rmtree(path)
    (root / link).unlink()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b'{"ok": true, "protocol": 99}\n', "it speaks protocol 99, this command protocol 1"),
        (b'{"ok": true}\n', "it speaks no known protocol"),
        (b'{"ok": false, "protocol": 1, "error": "no"}\n', "no"),
        (b"[1]\n", "is no supervisor"),
        (b"\xff\n", "is no supervisor"),
        (b"[" * 100_000 + b"\n", "is no supervisor"),
        (b'{"ok": true, "protocol": 1}\n', "KeyError('version') in its status"),
        (
            json.dumps({"ok": True, "protocol": 1, "version": 3}).encode() + b"\n",
            "3 is no text",
        ),
    ],
)
def test_others_are_said_and_passed_over(answering, answer: bytes, problem: str) -> None:
    """Another version, or no supervisor at all: a reason, no traceback, and the rest goes on."""
    answering(answer)
    found = survey(Selector())
    assert found.supervisors == []
    assert problem in found.failures[0]


def test_one_that_ends_without_an_answer_is_gone(answering) -> None:
    """A supervisor that ends meanwhile is no error."""
    answering(b"")
    found = survey(Selector())
    assert (found.supervisors, found.failures) == ([], [])


def test_stopped_supervisor_holds_up_nobody(root, plugin, engine) -> None:
    """It is named after the time limit; the others have answered."""
    plugin("all_x.sh", UP)
    one, other = engine(), engine()
    for started in (one, other):
        started.wait_log(r"\] up ")
    os.kill(one.supervisor(), signal.SIGSTOP)
    try:
        began = time.monotonic()
        replies = request_all(find_supervisors({}).addresses, {"op": "status"}, 1.5)
        assert time.monotonic() - began < 10
    finally:
        os.kill(one.supervisor(), signal.SIGCONT)
    assert sorted(reply.answer is not None for reply in replies) == [False, True]
    (problem,) = [reply.problem for reply in replies if reply.problem]
    assert "does not answer within 1.5 s" in problem


def test_endless_answer_is_cut_off(answering, monkeypatch) -> None:
    """Memory is bounded."""
    monkeypatch.setattr(connection, "_ANSWER_BYTES", 1000)
    answering(b"x" * 100_000)
    assert "sends an answer without end" in survey(Selector()).failures[0]


def test_directory_of_others_is_passed_over(root, tmp_path, place) -> None:
    """Mode and owner of the runtime directory are checked; the reason is said."""
    place()
    root.chmod(0o755)
    assert find_supervisors({}).addresses == []
    assert "chmod 700" in find_supervisors({}).problems[0]
    root.chmod(0o700)
    (tmp_path / "run").rename(tmp_path / "other")
    (tmp_path / "run").symlink_to(tmp_path / "other")
    result = find_supervisors({})
    assert result.addresses == []
    assert result.problems[0].startswith(f"cannot search '{root}'")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to see other users")
def test_root_sees_all_users_and_checks_owners(root, tmp_path, place) -> None:
    """A directory named for a user must be that user's."""
    for name, owner in (("lmcache-plugins-12345", 12345), ("lmcache-plugins-12346", 1)):
        users = tmp_path / name
        users.mkdir(mode=0o700)
        (users / f"{new_run_id()}.worker-0").mkdir()
        os.chown(users, owner, owner)
    result = find_supervisors({})
    assert [one.uid for one in result.addresses] == [12345]
    assert "it belongs to user 1, not to user 12346" in result.problems[0]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
def test_who_answers_must_be_the_owner(answering) -> None:
    """Another user's process behind a socket is told nothing."""
    path = answering(b"{}\n")
    os.chown(path, 12345, 12345)
    os.chown(path / "control.sock", 12345, 12345)
    (reply,) = request_all([Address(str(path), 12345)], {"op": "status"})
    assert reply.problem is not None
    assert "user 0 answers there, not 12345" in reply.problem


def test_supervisor_in_a_pid_namespace_of_its_own(root, plugin, engine) -> None:
    """A container seen from its host: all that it says, and nothing of other processes."""
    unshare = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("may not make namespaces")
    plugin("all_x.sh", UP)
    one = engine(prefix=unshare)
    one.wait_log(r"\] up ")
    report = make_report()
    ((supervisor, shown),) = report.plugins
    assert not supervisor.sees_same_pids
    assert shown.state.value == "running"
    assert (report.usage, report.supervisor_usage, report.commands) == ({}, {}, {})
    assert json.loads(to_json(report, None, None))["supervisors"][0]["engine_command"] is None


def test_full_queue_of_connections_is_waited_for(root, plugin, engine) -> None:
    """Many commands at once all get their answer."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    silent = [connect(one.control) for _ in range(20)]
    (reply,) = request_all(find_supervisors({}).addresses, {"op": "status"})
    assert reply.answer is not None
    for idle in silent:
        idle.close()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
def test_user_with_a_high_number(place) -> None:
    """A user's number has 32 bits without a sign."""
    uid = 3_000_000_000
    path = place()
    os.chown(path, uid, uid)
    program = (
        "import os, socket\nos.setuid(3_000_000_000)\n"
        "listener = socket.socket(socket.AF_UNIX)\nlistener.bind('control.sock')\n"
        "listener.listen()\nprint('up', flush=True)\nconnection, _ = listener.accept()\n"
        "connection.recv(65536)\n"
        'connection.sendall(b\'{"ok": true, "protocol": 1, "it": "is me"}\\n\')'
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=path, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        (reply,) = request_all([Address(str(path), uid)], {"op": "status"})
        other.kill()
    assert reply.problem is None
    assert reply.answer is not None
    assert reply.answer["it"] == "is me"


def test_only_the_chosen_runtime_directory(tmp_path, monkeypatch) -> None:
    """With the variable set, supervisors elsewhere are not meant, whoever asks."""
    elsewhere = tmp_path / "lmcache-plugins-12345"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / f"{new_run_id()}.worker-0").mkdir()
    monkeypatch.setattr(search, "_USERS_ROOTS", (str(tmp_path),))
    chosen = str(tmp_path / "chosen")
    result = find_supervisors({"LMCACHE_PLUGINS_RUNTIME_DIR": chosen})
    assert (result.addresses, result.searched) == ([], [chosen])


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to see other users")
def test_other_users_are_left_alone_unless_asked_for(root, place) -> None:
    """Commands that change something; what they left alone is said."""
    place()
    os.chown(place(), 12345, 12345)
    os.chown(root, 12345, 12345)
    theirs = survey(Selector(), all_users=False)
    assert theirs.problems == ["skipped engines of user 12345: --all-users includes them"]
    assert survey(Selector()).problems == []


def test_a_supervisor_of_another_version(answering) -> None:
    """What it answers may differ: both versions are named."""
    answering(b'{"ok": true, "protocol": 1, "version": "99.0"}\n')
    (failure,) = survey(Selector()).failures
    assert "runs lmcache-plugin-adapter 99.0, this command is " in failure
    assert "restart the engine" in failure


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 4000], ids=lambda text: text[:9]
)
@pytest.mark.parametrize("key", ["uptime", "engine_pid", "worker_id"])
def test_numbers_are_finite_and_short(answering, key, number) -> None:
    """A process that is no supervisor causes one error, not a traceback."""
    answer = {
        "ok": True,
        "protocol": 1,
        "version": "1",
        "supervisor_pid": 1,
        "engine_pid": 1,
        "identity": "worker 0",
        "role": None,
        "worker_id": 0,
        "worker_count": 1,
        "dp_rank": 0,
        "dp_size": 1,
        "uptime": 1.0,
        "stopping": False,
        "plugins": [],
    }
    answer[key] = "HERE"
    answering(json.dumps(answer).replace('"HERE"', number).encode() + b"\n")
    found = survey(Selector())
    assert found.supervisors == []
    assert "is no supervisor" in found.failures[0]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to see other users")
def test_other_users_supervisor_cannot_make_root_wait(place, monkeypatch) -> None:
    """A wait without a limit has one where the supervisor is another user's."""
    monkeypatch.setattr(client, "FOREIGN_SECONDS", 0.2)
    path = place()
    with socket.socket(socket.AF_UNIX) as listener:
        bind(listener, path)
        listener.listen()
        monkeypatch.setattr(connection, "_check_peer", lambda *_: None)
        for each in (path, path / "control.sock"):
            os.chown(each, 12345, 12345)
        (reply,) = request_all([Address(str(path), 12345)], {"op": "stop"}, None)
    assert "does not answer within 0.2 s" in (reply.problem or "")


def test_stored_lines_without_end_are_cut_off(answering, capsys, monkeypatch) -> None:
    """A process that sends for ever neither fills the memory nor holds the command."""
    monkeypatch.setattr(source, "_STORED_BYTES", 1000)
    line = b'{"time": 1, "name": "x", "level": 6, "text": "%s"}\n' % (b"x" * 100)
    answering(b'{"ok": true, "protocol": 1, "lines": 999999}\n' + line * 100)
    supervisor = SimpleNamespace(
        label="worker 0",
        identity="worker 0",
        engine_pid=1,
        plugins=(),
        address=find_supervisors({}).addresses[0],
    )
    printer = Printer(Filter(), line_to_json, as_json=True)
    with contextlib.suppress(KeyboardInterrupt):
        assert logs._print_all([source.Source(supervisor, {"op": "logs"})], False, printer) == 1
    assert "sends stored lines without end" in capsys.readouterr().err
