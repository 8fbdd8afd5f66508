# SPDX-License-Identifier: Apache-2.0
"""Readiness and watchdog (``notify``), with the tools that speak systemd's protocol."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import types
from pathlib import Path
from typing import Any

import pytest
from cli_under_test import command
from harness import ask

from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.linux.event_loop import Loop
from lmcache_plugin_adapter.supervisor import plugin as plugin_module
from lmcache_plugin_adapter.supervisor.run_watchers.notifications import Notifications, parse

ON = {"notify": True, "nice": 0, "backoff": {"initial": 0.05, "max": 0.2, "reset_after": 30}}

PYTHON = """\
import os, signal, sys, time
import sdnotify
notifier = sdnotify.SystemdNotifier(debug=True)
notify = notifier.notify
def stay():
    while True:
        signal.pause()
"""


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"READY=1", {"READY": "1"}),
        (b"READY=1\nSTATUS=a = b\n", {"READY": "1", "STATUS": "a = b"}),
        (b"STATUS=1\nSTATUS=2", {"STATUS": "2"}),
        (b"\n\xff\nnonsense\n=", {"": ""}),
        (b"STATUS=\xff", {"STATUS": "\\xff"}),
        (b"", {}),
    ],
)
def test_a_message_is_lines_of_assignments(message: bytes, expected: dict[str, str]) -> None:
    """Anything else in it is ignored."""
    assert parse(message) == expected


def test_a_plugin_is_ready_when_it_says_so(plugin, engine, tmp_path) -> None:
    """``status`` shows that and the text; ``start --wait`` waits for it."""
    go = tmp_path / "go"
    plugin(
        "all_x.py",
        f"{PYTHON}notify('STATUS=loading\\n')\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.02)\n"
        "notify('READY=1\\nSTATUS=serving 7 clients')\nstay()\n",
    )
    one = engine(ON)
    status = one.wait_for(lambda: (s := one.status()).get("status_text") and s, 20)
    assert (status["state"], status["ready"]) == ("running", False)
    assert status["status_text"] == "loading"
    environ = {"LMCACHE_PLUGINS_RUNTIME_DIR": str(tmp_path / "run")}
    done = command("status", "--check", env=environ)
    assert done.returncode == 1
    assert "all_x on worker 0" in done.stdout
    assert "running, not ready: loading" in done.stdout
    go.touch()
    assert one.ask("start", all=True, wait=True)["plugins"][0]["state"] == "running"
    status = one.status()
    assert (status["ready"], status["status_text"]) == (True, "serving 7 clients")
    one.wait_log(r"INFO: \[all_x\] Ready after ")
    assert command("status", "--check", env=environ).returncode == 0
    shown = command("status", env=environ).stdout
    assert "ready" in shown
    assert "serving 7 clients" in shown


def test_without_the_setting_there_is_no_socket(plugin, engine, tmp_path) -> None:
    """Nor is the engine's handed on, whose service manager is another one."""
    plugin("all_x.sh", "env; echo done; exec sleep 60")
    env = {"NOTIFY_SOCKET": "/run/systemd/notify", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    one = engine(env=env)
    one.wait_for(lambda: "done" in one.texts("all_x"), 20)
    assert not [text for text in one.texts("all_x") if text.startswith(("NOTIFY", "WATCHDOG"))]
    assert one.status()["ready"] is None


def test_systemd_notify_works_unchanged(plugin, engine) -> None:
    """It waits until its message has been read, and exits."""
    if not shutil.which("systemd-notify"):
        pytest.skip("no systemd-notify: it is in Debian's package systemd")
    plugin(
        "all_x.sh",
        "systemd-notify --ready --status='from a shell' || echo failed $?\n"
        "echo notified; exec sleep 60",
    )
    one = engine(ON)
    one.wait_for(lambda: "notified" in one.texts("all_x"), 20)
    status = one.wait_for(lambda: (s := one.status()).get("ready") and s, 20)
    assert status["status_text"] == "from a shell"
    assert one.texts("all_x") == ["notified"]


def test_a_plugin_that_is_not_ready_in_time_fails(plugin, engine) -> None:
    """SIGABRT, as from a watchdog, so that it can dump its stacks; then the restart policy."""
    plugin("all_x.py", f"{PYTHON}import faulthandler; faulthandler.enable()\nstay()\n")
    one = engine({**ON, "ready_timeout": "1500ms"})
    one.wait_log(r"\[all_x\] Not ready within 1.5 s \(ready_timeout\): ending it with SIGABRT", 20)
    one.wait_log(r"\[all_x\] Killed by SIGABRT after .*; starting again in", 20)
    one.wait_for(lambda: any("in stay" in text for text in one.texts("all_x")), 20)


def test_a_plugin_may_extend_its_time(plugin, engine) -> None:
    """EXTEND_TIMEOUT_USEC counts from when it is sent."""
    plugin(
        "all_x.py",
        f"{PYTHON}notify('EXTEND_TIMEOUT_USEC=30000000')\ntime.sleep(2.5)\n"
        "notify('READY=1')\nstay()\n",
    )
    one = engine({**ON, "ready_timeout": 2})
    one.wait_log(r"\[all_x\] Ready after [2-9]\.", 30)


def test_a_watchdog_that_is_not_fed_ends_the_run(plugin, engine) -> None:
    """Fed, it lets the plugin run for longer than its time."""
    plugin(
        "all_x.py",
        f"{PYTHON}notify('READY=1')\n"
        "assert os.environ['WATCHDOG_PID'] == str(os.getpid())\n"
        "for _ in range(6):\n"
        "    time.sleep(int(os.environ['WATCHDOG_USEC']) / 4e6); notify('WATCHDOG=1')\n"
        "print('hangs now'); stay()\n",
    )
    one = engine({**ON, "watchdog": "2s"})
    one.wait_for(lambda: "hangs now" in one.texts("all_x"), 20)
    one.wait_log(r"No WATCHDOG=1 within 2 s \(watchdog\): ending it with SIGABRT", 20)
    one.wait_log(r"Killed by SIGABRT after .*; starting again in", 20)


def test_a_plugin_may_report_that_it_has_failed(plugin, engine) -> None:
    """``WATCHDOG=trigger`` is an expired watchdog."""
    plugin("all_x.py", f"{PYTHON}notify('READY=1'); notify('WATCHDOG=trigger'); stay()\n")
    one = engine({**ON, "restart": "never"})
    one.wait_log(r"Reported a failure of its own \(WATCHDOG=trigger\): ending it", 20)
    one.wait_for(lambda: one.status().get("state") == "exited", 20)
    assert one.status()["reason"] == "reported a failure of its own (WATCHDOG=trigger)"


def test_a_plugin_that_stops_on_its_own_is_not_ready(plugin, engine) -> None:
    """After STOPPING=1 its grace period runs, and no watchdog."""
    plugin(
        "all_x.py",
        f"{PYTHON}notify('READY=1'); notify('STOPPING=1\\nSTATUS=stops'); stay()\n",
    )
    one = engine({**ON, "watchdog": 300, "stop_grace": 1})
    one.wait_log(r"INFO: \[all_x\] Reports after \S+ m?s that it stops", 20)
    one.wait_log(r"Did not exit within 1 s of STOPPING=1 \(stop_grace\): ending it", 20)


def test_a_plugin_that_is_stopped_may_report_that_it_stops(plugin, engine) -> None:
    """As sd_notify(3) wants it; the log does not claim that it does so of its own accord."""
    plugin(
        "all_x.py",
        f"{PYTHON}signal.signal(signal.SIGTERM, lambda *_: (notify('STOPPING=1'), sys.exit()))\n"
        "notify('READY=1'); stay()\n",
    )
    one = engine(ON)
    one.wait_log(r"\[all_x\] Ready after ", 20)
    assert one.ask("stop", all=True, wait=True)["plugins"][0]["state"] == "stopped"
    assert one.status()["ready"] is False
    one.wait_log(r"\[all_x\] Reports after .* that it stops", 20)
    one.wait_log(r"\[all_x\] Stopped: exited with code 0", 20)
    assert "on its own" not in one.log()


def test_the_last_words_of_a_run_are_read(plugin, engine) -> None:
    """Also if the plugin exits at once."""
    plugin("all_x.py", f"{PYTHON}notify('READY=1\\nSTATUS=done')\n")
    one = engine(ON)
    status = one.wait_for(lambda: (s := one.status()).get("state") == "exited" and s, 20)
    assert (status["status_text"], status["ready"]) == ("done", False)
    one.wait_log(r"\[all_x\] Ready after ", 20)  # the log is written on a thread of its own


def test_messages_of_others_are_ignored(plugin, engine) -> None:
    """The kernel tells who has sent a message."""
    plugin("all_x.sh", "echo $NOTIFY_SOCKET; exec sleep 60")
    one = engine(ON)
    (path,) = one.wait_for(lambda: one.texts("all_x"), 20)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", path)
        one.wait_log(
            rf"\[all_x\] Ignored a notification from process {os.getpid()} of user {os.getuid()}"
        )
        assert one.status()["ready"] is False
        sender.sendto(b"x" * 5000, path)
        sender.sendto(b"READY=1", path)
    assert one.status()["ready"] is False
    assert one.log().count("Ignored a notification") == 1


def test_a_socket_ends_with_its_run(plugin, engine, tmp_path) -> None:
    """Each run has one of its own; descriptors that messages bring are closed."""
    plugin(
        "all_x.py",
        f"{PYTHON}import socket\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "s.connect(os.environ['NOTIFY_SOCKET'])\n"
        "for _ in range(50): socket.send_fds(s, [b'STATUS=x'], [0, 1, 2])\n"
        "notify('READY=1'); stay()\n",
    )
    one = engine(ON)

    def sockets() -> list[str]:
        return [path.name for path in tmp_path.glob("run/*/notify.*")]

    one.wait_for(lambda: one.status().get("ready"), 20)
    (first,) = sockets()
    before = len(os.listdir(f"/proc/{one.supervisor()}/fd"))
    assert before < 40
    one.ask("restart", all=True, wait=True)
    one.wait_for(lambda: one.status().get("ready"), 20)
    (second,) = sockets()
    assert first != second
    one.ask("stop", all=True, wait=True)
    assert sockets() == []


def test_a_long_path_has_a_short_form(plugin, engine, tmp_path) -> None:
    """A socket's address has room for 107 bytes only."""
    plugin("all_x.py", f"{PYTHON}notify('READY=1'); print(os.environ['NOTIFY_SOCKET']); stay()\n")
    root = tmp_path / ("long" * 20) / ("path" * 20)
    root.mkdir(parents=True)
    one = engine(ON, env={"LMCACHE_PLUGINS_RUNTIME_DIR": str(root / "run")})
    one.wait_log(r"\[all_x\] Ready after ", 20)
    (address,) = one.wait_for(lambda: one.texts("all_x"), 20)
    assert address.startswith(f"/proc/{one.supervisor()}/fd/")


def test_without_a_runtime_directory_a_plugin_counts_as_ready() -> None:
    """It runs all the same, and one line says so."""
    logged: list[str] = []

    events = types.SimpleNamespace(log=lambda _level, text, _name: logged.append(text))
    services: Any = types.SimpleNamespace(instance=None, events=events)
    planned: Any = types.SimpleNamespace(credentials=None)
    notifications = Notifications(services, "all_x", planned, lambda *_: None, lambda: None)
    assert notifications.environment() == {}
    assert notifications.ready
    assert logged == [
        "No notifications (notify), so it counts as ready: there is no runtime directory"
    ]


@pytest.fixture
def services(tmp_path, mocker) -> Any:
    """What a plugin's notifications need of its supervisor."""
    fd = os.open(tmp_path, os.O_RDONLY)
    instance = types.SimpleNamespace(fd=fd, file=lambda name: f"{tmp_path}/{name}")
    yield mocker.Mock(loop=Loop(print), instance=instance, sockets={})
    os.close(fd)


def test_the_socket_is_private_without_a_change_of_the_umask(services, mocker) -> None:
    """The writer threads create files at the same time, and the umask is that of the process."""
    umask = mocker.spy(os, "umask")
    planned: Any = types.SimpleNamespace(credentials=None, watchdog=None)
    notifications = Notifications(services, "all_x", planned, lambda *_: None, lambda: None)
    before = os.umask(0)
    try:
        (address,) = notifications.environment().values()
    finally:
        os.umask(before)
    assert umask.call_count == 2
    assert os.stat(address).st_mode & 0o777 == 0o600
    notifications.run_ended()
    assert not os.path.lexists(address)


def test_a_report_that_arrives_with_the_end_of_its_time_counts(services) -> None:
    """It may wait to be read, if the supervisor was stopped or busy."""
    planned: Any = types.SimpleNamespace(credentials=None, watchdog=None, ready_timeout=0.0)
    failures: list[str] = []
    notifications = Notifications(
        services, "all_x", planned, lambda cause, _: failures.append(cause), lambda: None
    )
    (address,) = notifications.environment().values()
    notifications.run_started(os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", address)
    notifications._elapsed()
    assert notifications.ready
    assert failures == []
    notifications.run_ended()


def test_a_run_that_cannot_start_leaves_no_socket(services, tmp_path, mocker) -> None:
    """It is closed at once, not with the next attempt."""
    problem = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    mocker.patch.object(plugin_module, "spawn", side_effect=problem)
    mocker.patch.object(plugin_module, "PluginOutput")
    services.stopping, services.environment, services.reaper.first_processes = False, {}, {}
    planned = mocker.Mock(
        refused=None,
        backoff=(60.0, 60.0, 60.0),
        every=None,
        timeout=None,
        credentials=None,
        watchdog=None,
        environment={},
        hidden=(),
    )
    one = plugin_module.Plugin(services, "all_x", planned, lambda _: None)
    one.start()
    assert one.state is State.BACKING_OFF
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("parts", [(), ("long" * 20, "path" * 20)], ids=["short", "long"])
def test_a_socket_that_somebody_removes_is_made_again(plugin, engine, tmp_path, parts) -> None:
    """At the same address, as that of a running plugin cannot change."""
    go = tmp_path / "go"
    plugin(
        "all_x.py",
        f"GO = {str(go)!r}\n{PYTHON}notify('READY=1')\n"
        "while True:\n    time.sleep(0.1)\n    if not os.path.exists(GO): continue\n"
        "    if 'connected' in open(GO).read(): notify('STATUS=connected')\n"
        "    else: sdnotify.SystemdNotifier().notify('STATUS=again')\n",
    )
    run = tmp_path.joinpath(*parts, "run")
    run.parent.mkdir(parents=True, exist_ok=True)
    one = engine(ON, env={"LMCACHE_PLUGINS_RUNTIME_DIR": str(run)})
    one.wait_log(r"\[all_x\] Ready after ", 20)
    shutil.rmtree(run)
    one.wait_log("made again", 20)
    for text in ("again", "connected"):
        go.write_text(text)
        one.wait_for(lambda text=text: status_text(run) == text, 20)
    (socket_of_run,) = run.glob("*/notify.*")
    go.unlink()
    socket_of_run.unlink()
    one.wait_for(lambda: one.log().count("made again") == 2, 20)
    assert socket_of_run.exists()


def status_text(run: Path) -> str | None:
    """Return the status text of the plugin."""
    (path,) = run.glob("*/control.sock")
    (found,) = ask(str(path), b'{"op": "status"}\n')["plugins"]
    return found["status_text"]


def test_a_plugin_without_its_socket_is_not_hung(services) -> None:
    """Its messages cannot arrive; its time begins again with the new socket."""
    planned: Any = types.SimpleNamespace(credentials=None, watchdog=60.0, ready_timeout=60.0)
    failures: list[str] = []
    notifications = Notifications(
        services, "all_x", planned, lambda cause, _: failures.append(cause), lambda: None
    )
    address = notifications.environment()[b"NOTIFY_SOCKET"]
    notifications.run_started(os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", address)
        notifications._receive()
        os.unlink(address)
        notifications._due = 0.0
        notifications._elapsed()
        assert failures == []
        (make_again,) = services.sockets.values()
        make_again()
        sender.sendto(b"STATUS=here", address)
    notifications._due = 0.0
    notifications._elapsed()
    assert notifications.text == "here"
    assert failures == ["No WATCHDOG=1 within 60 s (watchdog)"]
    notifications.run_ended()
    assert services.sockets == {}
