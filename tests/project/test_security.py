# SPDX-License-Identifier: Apache-2.0
"""Other users and foreign input: what they may not read, replace, connect to or run."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from harness import wait_until

from lmcache_plugin_adapter.contract.run_token import new_run_id
from lmcache_plugin_adapter.contract.runtime_dir import (
    InstanceDir,
    open_root,
    remove_stale,
    why_unusable,
)
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.planner.plugin_environment import write_config_file
from lmcache_plugin_adapter.supervisor.control.server import ControlServer
from lmcache_plugin_adapter.supervisor.processes.orphans import previous_supervisor

PACKAGE = Path(__file__).parents[2] / "lmcache_plugin_adapter"
STRANGER = 12345

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")


@pytest.mark.parametrize(
    ("mode", "usable"),
    [
        (0o700, True),
        (0o500, os.getuid() == 0),  # root may write all the same
        (0o710, False),
        (0o701, False),
        (0o750, False),
        (0o770, False),
        (0o777, False),
        (0o1777, False),
    ],
)
def test_modes_of_the_runtime_directory(tmp_path, mode, usable) -> None:
    """A directory that other users may enter is not used, with or without the sticky bit."""
    path = tmp_path / "run"
    path.mkdir()
    path.chmod(mode)
    assert (why_unusable(str(path)) is None) is usable


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_runtime_directory_of_somebody_else(tmp_path, mode) -> None:
    """If another user owns the directory, the next place is used."""
    path = tmp_path / "run"
    path.mkdir()
    path.chmod(mode)
    os.chown(path, STRANGER, STRANGER)
    root, reasons = open_root({"LMCACHE_PLUGINS_RUNTIME_DIR": str(path)})
    assert root != str(path)
    assert f"it belongs to user {STRANGER}" in reasons[0]
    assert os.listdir(path) == []


@pytest.mark.parametrize("kind", ["directory", "file", "nothing"])
def test_link_in_place_of_the_runtime_directory(tmp_path, kind) -> None:
    """No link is followed."""
    target = tmp_path / "target"
    if kind == "directory":
        target.mkdir(mode=0o700)
    elif kind == "file":
        target.touch()
    link = tmp_path / "run"
    link.symlink_to(target)
    root, reasons = open_root({"LMCACHE_PLUGINS_RUNTIME_DIR": str(link)})
    assert root != str(link)
    assert "not a directory" in reasons[0]
    assert kind != "directory" or os.listdir(target) == []


def test_link_in_place_of_an_instance(tmp_path) -> None:
    """It is neither used nor removed."""
    run_id = new_run_id()
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").touch()
    (tmp_path / f"{run_id}.worker-0").symlink_to(target)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        InstanceDir(str(tmp_path), run_id, "worker-0")
    remove_stale(str(tmp_path))
    assert os.listdir(target) == ["kept"]


def test_link_in_place_of_the_socket_is_replaced(tmp_path) -> None:
    """The link's target is not changed."""
    target = tmp_path / "target"
    target.write_text("kept")
    (tmp_path / "control.sock").symlink_to(target)
    server = ControlServer(Loop(print), {})
    server.listen(str(tmp_path), "control.sock")
    found = os.lstat(tmp_path / "control.sock")
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert target.read_text() == "kept"
    server.close()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_link_in_place_of_the_configuration_is_replaced(tmp_path, umask) -> None:
    """The file is new and private with any umask; the link's target is unchanged."""
    target = tmp_path / "target"
    target.write_text("kept")
    (tmp_path / "config.json").symlink_to(target)
    before = os.umask(umask)
    try:
        path, problems = write_config_file(str(tmp_path), "config.json", "secret")
    finally:
        os.umask(before)
    assert problems == []
    assert path is not None
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
    assert stat.S_ISREG(os.lstat(path).st_mode)
    assert target.read_text() == "kept"


@pytest.mark.parametrize(
    ("uid", "served"),
    [(os.getuid(), True), (0, True), (STRANGER, False), (65534, False), (4_000_000_000, False)],
)
def test_peers_are_judged_by_their_credentials(tmp_path, monkeypatch, uid, served) -> None:
    """Only the same user and root get an answer, whatever the file modes allow."""
    if uid in (0, os.getuid()):
        served = True
    server = ControlServer(Loop(print), {"status": lambda _request, _client: {}})
    server.listen(str(tmp_path), "control.sock")

    judged = "lmcache_plugin_adapter.supervisor.control.server.peer_of"
    monkeypatch.setattr(judged, lambda _connection: (1, uid))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "control.sock"))
        server._accept()
        assert bool(server._clients) is served
        server.close()


@needs_root
def test_other_users_reach_nothing(plugin, engine, tmp_path) -> None:
    """The directory, the configuration and the socket are closed to other users."""
    plugin("all_x.sh", "echo up; exec sleep 60")
    one = engine(extra_config={"password": "s3cret"})
    one.wait_log(r"\] up ")
    (instance,) = (tmp_path / "run").iterdir()
    wait_until((instance / "config.json").exists)
    for path in (tmp_path, *tmp_path.parents):  # let them come as far as the door
        if path.owner() == "root" and path != Path("/") and str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o055)
    program = (
        "import os, sys\nos.setgroups([]); os.setgid(12345); os.setuid(12345)\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        os.listdir(path) if os.path.isdir(path) else open(path).read()\n"
        "    except OSError as error: print(type(error).__name__)\n"
        "    else: print('reached', path)\n"
    )
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-c", program]
        if not os.access(sys.executable, os.X_OK)
        else [sys.executable, "-c", program, tmp_path / "run", instance, instance / "config.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "reached" not in done.stdout
    assert done.stdout.count("PermissionError") + done.stdout.count("FileNotFoundError") == 3
    assert b"s3cret" not in Path(f"/proc/{one.supervisor()}/cmdline").read_bytes()


def test_nothing_is_ever_evaluated() -> None:
    """The package has no eval, exec, pickle, shell or unsafe YAML."""
    forbidden = re.compile(
        r"(?<![\w.])(eval|exec|compile|__import__)\(|pickle|shelve|os\.system|os\.popen"
        r"|shell=True|yaml\.(load|unsafe_load|full_load)\("
    )
    for path in PACKAGE.rglob("*.py"):
        if path.name in ("hung_paths.py", "run_entry_point.py"):
            continue  # what a child of its own sends it; an import, as `python -m` does it
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not forbidden.search(line), f"{path.name}:{number}: {line}"


def test_shell_characters_are_only_characters(plugin, engine, tmp_path) -> None:
    """No shell reads names, arguments or variables."""
    bait = f"$(touch {tmp_path.name}-a); `touch b` '\" ; touch c"
    plugin(f"all_$(touch d);'{chr(34)}.sh", 'echo "got: $1 $BAIT"; exec sleep 60')
    one = engine(
        {"plugins": {f"all_$(touch d);'{chr(34)}": {"args": [bait], "env": {"BAIT": bait}}}}
    )
    one.wait_log(r"\] got: ")
    assert f"got: {bait} {bait}" in one.log()
    names = {path.name for path in tmp_path.iterdir()}
    assert not names & {"b", "c", "d", f"{tmp_path.name}-a"}


def test_lock_that_somebody_holds_does_not_hang(tmp_path) -> None:
    """The directory is given up after a moment; plugins run without it."""
    run_id = new_run_id()
    path = tmp_path / f"{run_id}.worker-0"
    path.mkdir()
    holder = os.open(path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(OSError, match="another process holds its lock"):
        InstanceDir(str(tmp_path), run_id, "worker-0")
    os.close(holder)
    InstanceDir(str(tmp_path), run_id, "worker-0").remove()
    assert os.listdir(tmp_path) == []


FAKE_SUPERVISOR = """
import ctypes, time
ctypes.CDLL(None).prctl(15, b"lmcache-plugins", 0, 0, 0)
print(flush=True)
time.sleep(60)
"""


@needs_root
@pytest.mark.parametrize("user", [0, STRANGER])
def test_only_own_supervisors_are_waited_for(user) -> None:
    """A stranger cannot hold up a launch with a process that looks like a supervisor."""
    first, second = new_run_id(), new_run_id()
    command = ["/usr/bin/env", "python3", "-c", FAKE_SUPERVISOR, first, "worker 0"]
    fake = subprocess.Popen(command, stdout=subprocess.PIPE, user=user)
    assert fake.stdout is not None
    fake.stdout.readline()
    try:
        assert previous_supervisor(second, "worker 0") == (fake.pid if user == 0 else 0)
        assert previous_supervisor(second, "worker 1") == 0
    finally:
        fake.kill()
        fake.wait()
        fake.stdout.close()
