# SPDX-License-Identifier: Apache-2.0
"""Start, stop, restart, reload and logs, as asked for through the control socket."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
from harness import alive, build_hang_shim, connect, gone, marked, wait_until

UP = "trap 'echo goodbye; exit' TERM; echo up; while :; do sleep 30 & wait $!; done"


@pytest.fixture
def one(plugin, engine):
    """An engine with two plugins that are up."""
    plugin("all_a.sh", UP)
    plugin("all_b.sh", UP)
    started = engine()
    started.wait_for(lambda: started.log().count("] up ") == 2)
    return started


def states(one) -> dict[str, str]:
    """Return each plugin's state by name."""
    return {plugin["name"]: plugin["state"] for plugin in one.ask("status")["plugins"]}


def pid_of(one, name: str) -> int:
    """Return a plugin's pid as the supervisor has it: the log may lag behind."""
    return next(p["pid"] for p in one.ask("status")["plugins"] if p["name"] == name)


def test_stop_and_start_one(one) -> None:
    """One plugin stops and starts; the other never notices."""
    first, other = pid_of(one, "all_a"), pid_of(one, "all_b")
    answer = one.ask("stop", names=["all_a"], wait=True)
    assert answer["plugins"] == [{"name": "all_a", "state": "stopped"}]
    assert gone(first)
    assert alive(other)
    assert states(one) == {"all_a": "stopped", "all_b": "running"}
    assert one.ask("stop", names=["all_a"], wait=True)["ok"]
    assert one.ask("start", names=["all_a"], wait=True)["plugins"][0]["state"] == "running"
    assert alive(pid_of(one, "all_a"))
    assert pid_of(one, "all_b") == other


def test_stop_all_and_start_all(one) -> None:
    """All of them, waited for: the pre-stop hook of a container."""
    pids = [pid_of(one, "all_a"), pid_of(one, "all_b")]
    assert one.ask("stop", all=True, wait=True)["ok"]
    assert all(gone(pid) for pid in pids)
    assert one.ask("start", all=True, wait=True)["ok"]
    assert set(states(one).values()) == {"running"}


def test_restart(one) -> None:
    """A restart warns, waits for the end, and starts again at once."""
    first = pid_of(one, "all_a")
    assert one.ask("restart", names=["all_a.sh"], wait=True)["plugins"][0]["state"] == "running"
    assert gone(first)
    one.wait_log(r"\] goodbye ")
    assert pid_of(one, "all_a") != first


def test_two_at_once_are_both_answered(one) -> None:
    """Who waits for a stop is answered, although somebody else starts it again at once."""
    with connect(one.control) as stops, connect(one.control) as restarts:
        stops.sendall(b'{"op": "stop", "names": ["all_a"], "wait": true}\n')
        restarts.sendall(b'{"op": "restart", "all": true, "wait": true}\n')
        assert json.loads(stops.recv(65536))["ok"]
        answer = json.loads(restarts.recv(65536))
    assert [plugin["state"] for plugin in answer["plugins"]] == ["running", "running"]


def test_status_says_who_and_why(plugin, engine) -> None:
    """Who the engine process is, and why a plugin does not run."""
    plugin("all_x.sh", UP, mode=0o777)
    plugin("all_y", b"\x7fNOT-AN-ELF\n")
    one = engine(worker_count=4, worker_id=2)
    one.wait_for(lambda: states(one) == {"all_x": "refused", "all_y": "failed"})
    answer = one.ask("status")
    assert (answer["engine_pid"], answer["identity"]) == (one.pid, "worker 2")
    assert [answer[key] for key in ("role", "worker_id", "worker_count")] == ["worker", 2, 4]
    assert (answer["dp_rank"], answer["dp_size"]) == (0, 1)
    refused, failed = answer["plugins"]
    assert "chmod" in refused["reason"]
    assert failed["reason"].startswith("cannot run /")


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_reload_whose_search_is_killed(plugin, plugins, engine, tmp_path) -> None:
    """Whoever asked for it is told, and the plugins run on."""
    plugin("all_a.sh", UP)
    answers = tmp_path / "answers"
    answers.touch()
    env = {"LD_PRELOAD": build_hang_shim(tmp_path), "HUNG_DIRECTORY": str(plugins)}
    one = engine(env={**env, "ANSWERS": str(answers)})
    one.wait_log(r"\] up ")
    pid, supervisor = pid_of(one, "all_a"), one.supervisor()
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    wait_until(lambda: children.read_text().split() == [str(pid)])
    answers.unlink()  # a search waits now, and has found nothing when it is killed
    with connect(one.control) as connection:
        connection.sendall(b'{"op": "reload"}\n')
        (search,) = wait_until(lambda: set(children.read_text().split()) - {str(pid)})
        os.kill(int(search), signal.SIGKILL)
        answer = json.loads(connection.recv(65536))
    answers.touch()
    assert answer["error"] == "the search for plugins failed; the log has the reason"
    assert alive(pid)
    assert one.ask("reload")["unchanged"] == ["all_a"]


@pytest.mark.parametrize("location", ["/plugins", "/other/../plugins", "plugins"])
def test_reload_while_a_location_does_not_answer(plugin, engine, tmp_path, location) -> None:
    """What was found there runs on, however the location is written."""
    plugin("all_a.sh", UP)
    (tmp_path / "other").mkdir()
    hung = f"{tmp_path}/{location.lstrip('/')}"
    answers = tmp_path / "answers"
    answers.touch()
    one = engine(
        locations=[hung if location.startswith("/") else location],
        env={
            "LD_PRELOAD": build_hang_shim(tmp_path),
            "HUNG_DIRECTORY": hung,
            "ANSWERS": str(answers),
        },
    )
    one.wait_log(r"\] up ")
    pid = pid_of(one, "all_a")
    answers.unlink()
    answer = one.ask("reload")
    answers.touch()
    assert (answer["unchanged"], answer["stopped"]) == (["all_a"], [])
    assert alive(pid)


def test_stopped_twice_is_still_killed(plugin, engine) -> None:
    """A second stop does not cancel the grace period of the first."""
    plugin("all_x.sh", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    one = engine({"stop_grace": 0.5})
    one.wait_log(r"\] up ")
    pid = pid_of(one, "all_x")
    for _ in range(3):
        one.ask("stop", names=["all_x"])
    wait_until(lambda: gone(pid), 4)  # less than the default


@pytest.mark.parametrize("code", [0, 1])
def test_start_of_one_whose_leftovers_are_being_ended(plugin, engine, tmp_path, code) -> None:
    """It starts as soon as nothing is left of it, whatever its restart policy says."""
    left = tmp_path / "left"
    plugin(
        "all_x.py",
        "import os, signal, sys, time\n"
        f"if os.path.exists({str(left)!r}):\n    print('again', flush=True); signal.pause()\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"if os.fork():\n    open({str(left)!r}, 'w'); sys.exit({code})\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n",
    )
    one = engine({"stop_grace": 60, "backoff": {"initial": 60, "max": 60}})
    one.wait_log(rf"Exited with code {code} .* it left 1 process behind")
    with connect(one.control) as connection, connection.makefile() as answers:
        connection.sendall(b'{"op": "start", "all": true, "wait": true}\n')
        assert one.ask("status")["plugins"][0]["state"] == "clearing"
        (tmp_path / "go").touch()
        assert json.loads(answers.readline())["plugins"][0]["state"] == "running"
    one.wait_log(r"\[all_x\] again ")


@pytest.fixture
def slow(plugin, engine, tmp_path):
    """An engine with a plugin that ends when ``go`` is there; what writes its file anew."""

    def write(says: str) -> None:
        plugin(
            "all_x.py",
            "import os, signal, sys, time\n"
            "def stop(*_):\n"
            f"    while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
            "    sys.exit()\n"
            "signal.signal(signal.SIGTERM, stop)\n"
            f"print({says!r}, flush=True)\n"
            "while True: time.sleep(0.1)\n",
        )

    write("up")
    one = engine({"stop_grace": 60})
    one.wait_log(r"\] up ")
    yield one, write
    (tmp_path / "go").touch()


@pytest.mark.parametrize("op", ["start", "restart"])
def test_start_of_one_that_is_being_replaced(slow, tmp_path, op) -> None:
    """Only the new one starts, once: what a reload ends does not come back beside it."""
    one, write = slow
    write("new")
    assert one.ask("reload")["restarted"] == ["all_x"]
    assert states(one) == {"all_x": "stopping"}
    one.ask(op, names=["all_x"])
    (tmp_path / "go").touch()
    one.wait_log(r"\] new ")
    assert states(one) == {"all_x": "running"}
    one.ask("stop", all=True, wait=True)
    assert not [line for line in marked(str(tmp_path)).values() if "all_x.py" in line]
    assert one.log().count("[all_x] Started") == 2


def test_reload_that_takes_another_one_back(slow, plugins, tmp_path) -> None:
    """What the first reload began to end runs again, as it is there again."""
    one, _ = slow
    (plugins / "all_x.py").rename(tmp_path / "away.py")
    assert one.ask("reload")["stopped"] == ["all_x"]
    assert states(one) == {"all_x": "stopping"}
    (tmp_path / "away.py").rename(plugins / "all_x.py")
    assert one.ask("reload")["unchanged"] == ["all_x"]
    (tmp_path / "go").touch()
    one.wait_for(lambda: one.log().count("[all_x] up ") == 2)
    assert states(one) == {"all_x": "running"}


def test_stop_of_one_that_waits_for_its_restart(plugin, engine) -> None:
    """In backoff, the status has the reason; a stop means no restart."""
    plugin("all_x.sh", "echo connecting; echo cannot reach db; exit 1")
    one = engine({"backoff": {"initial": 60, "max": 60}})
    one.wait_log("starting again")
    one.wait_for(lambda: one.status()["state"] == "backing-off")
    assert one.status()["reason"] == "exited with code 1: cannot reach db"
    assert one.ask("stop", names=["all_x"])["plugins"][0]["state"] == "stopped"
    assert one.status()["reason"] is None


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"names": ["all_aa"]}, "unknown plugin 'all_aa'; did you mean 'all_a'?"),
        ({"names": ["zzz"]}, "unknown plugin 'zzz'"),
        ({"names": [3]}, "unknown plugin 3"),
        ({"names": []}, "no plugin is named; name some, or request all"),
        ({}, "no plugin is named; name some, or request all"),
    ],
)
def test_wrong_names(one, request_, error) -> None:
    """A wrong request changes nothing and says what is meant."""
    for op in ("start", "stop", "restart", "logs"):
        assert one.ask(op, **request_)["error"] == error
    assert set(states(one).values()) == {"running"}


def test_reload_touches_only_what_changed(one, plugin, plugins) -> None:
    """New files start, changed ones restart, removed ones stop, the others run on."""
    plugin("all_c.sh", UP)
    kept = pid_of(one, "all_a")
    assert one.ask("reload") == {
        "ok": True,
        "protocol": 1,
        "started": ["all_c"],
        "restarted": [],
        "stopped": [],
        "unchanged": ["all_a", "all_b"],
    }
    changed = pid_of(one, "all_b")
    plugin("all_b.sh.new", UP + "\n").rename(plugins / "all_b.sh")
    os.unlink(plugins / "all_c.sh")
    answer = one.ask("reload")
    assert (answer["restarted"], answer["stopped"]) == (["all_b"], ["all_c"])
    one.wait_for(lambda: states(one) == {"all_a": "running", "all_b": "running"})
    assert gone(changed)
    assert pid_of(one, "all_a") == kept
    one.wait_log(r"Reloaded: 0 started, 1 restarted, 1 stopped, 1 unchanged")


def test_reload_mends_a_refusal_and_a_failure(plugin, engine) -> None:
    """What was refused, or could not run, is tried anew."""
    refused = plugin("all_x.sh", UP, mode=0o777)
    plugin("all_y", b"\x7fNOT-AN-ELF\n")
    one = engine()
    one.wait_for(lambda: states(one) == {"all_x": "refused", "all_y": "failed"})
    refused.chmod(0o755)
    plugin("all_y", "#!/bin/sh\n" + UP)
    assert one.ask("reload")["restarted"] == ["all_x", "all_y"]
    one.wait_for(lambda: states(one) == {"all_x": "running", "all_y": "running"})


def test_reload_under_load_loses_no_line(plugin, engine) -> None:
    """A plugin that prints all the while loses nothing by the reload of another."""
    plugin("all_x.sh", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; exec sleep 60")
    changing = plugin("all_y.sh", UP)
    one = engine({"rate_limit": "off"})
    one.wait_log(r"\[all_x\] 100 ")
    for number in range(5):
        changing.write_text(UP + "\n" * number)
        one.ask("reload")
    one.wait_log(r"\[all_x\] 20000 ", 30)
    assert one.texts("all_x") == [str(number) for number in range(1, 20_001)]


def test_logs_of_the_ring(one) -> None:
    """The last lines with time, level and name; then the connection ends."""
    with connect(one.control) as connection:
        connection.sendall(b'{"op": "logs", "all": true, "lines": 1}\n')
        received = b""
        while part := connection.recv(65536):
            received += part
    head, line = map(json.loads, received.splitlines())
    assert head["names"] == ["all_a", "all_b"]
    assert line["text"] == "up"
    assert line["level"] == 6
    assert abs(line["time"] - time.time()) < 60


def test_logs_of_many_lines(plugin, engine) -> None:
    """All that is kept comes, however much it is and however late it is read; then what is new."""
    names = [f"all_{letter}" for letter in "abcd"]
    for name in names:
        plugin(
            f"{name}.py",
            "import signal\nfor row in range(900):\n    print(row, 'x' * 1000)\n"
            "print('last', flush=True)\nsignal.pause()",
        )
    plugin("all_x.sh", UP)
    one = engine({"rate_limit": "off", "log_buffer_bytes": 1 << 20})
    for name in (*names, "all_x"):
        one.wait_log(rf"\[{name}\] (last|up) ", 60)
    with connect(one.control) as connection:
        connection.sendall(b'{"op": "logs", "all": true, "lines": 99999, "follow": true}\n')
        assert connection.recv(1, socket.MSG_PEEK)
        one.ask("stop", names=["all_x"], wait=True)
        received = b""
        while b'"goodbye"' not in received or not received.endswith(b"\n"):
            received += connection.recv(1 << 20)
    head, *lines = map(json.loads, received.splitlines())
    assert lines.pop()["text"] == "goodbye"
    assert head["lines"] == len(lines)
    for name in names:
        rows = [line["text"].split()[0] for line in lines if line["name"] == name]
        assert rows == [*map(str, range(900)), "last"]


def test_logs_followed(one) -> None:
    """New lines come as they are printed, until the client goes."""
    with connect(one.control) as connection:
        connection.sendall(b'{"op": "logs", "names": ["all_a"], "lines": 0, "follow": true}\n')
        assert b"names" in connection.recv(4096)
        one.ask("restart", names=["all_a"])
        received = b""
        while received.count(b'"text"') < 2 or not received.endswith(b"\n"):
            received += connection.recv(65536)
    assert [json.loads(line)["text"] for line in received.splitlines()] == ["goodbye", "up"]
    one.ask("restart", names=["all_a"], wait=True)
    assert one.ask("status")["ok"]


def test_follower_that_does_not_read_misses_lines_but_holds_nobody(
    plugin, engine, tmp_path
) -> None:
    """Its share of memory is bounded, and what it missed is counted."""
    plugin(
        "all_x.sh",
        f"echo up; until [ -e {tmp_path}/go ]; do sleep 0.05; done; seq 100000\n"
        f"until [ -e {tmp_path}/more ]; do sleep 0.05; done; echo more; exec sleep 60",
    )
    one = engine({"rate_limit": "off"})
    one.wait_log(r"\] up ")
    with connect(one.control) as connection:
        connection.sendall(b'{"op": "logs", "all": true, "follow": true}\n')
        assert connection.recv(1, socket.MSG_PEEK)  # it follows now
        (tmp_path / "go").touch()
        one.wait_log(r"\] 100000 ", 60)
        received = b""
        connection.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while part := connection.recv(1 << 20):
                received += part
        (tmp_path / "more").touch()
        connection.settimeout(10)
        while b'"more"' not in received or not received.endswith(b"\n"):
            received += connection.recv(1 << 20)
    lines = [json.loads(line) for line in received.splitlines()[1:]]
    assert lines[-1]["text"] == "more"
    assert len(lines) + sum(line.get("skipped", 0) for line in lines) == 100_002


def test_engine_that_ends_under_a_follower(plugin, engine) -> None:
    """A client that is connected, and does not read, delays no end and leaves no trace."""
    plugin("all_x.sh", "echo up; seq 100000; exec sleep 60")
    one = engine({"rate_limit": "off"})
    one.wait_log(r"\] up ")
    with connect(one.control) as connection:
        connection.sendall(b'{"op": "logs", "all": true, "follow": true}\n')
        one.wait_log(r"\] 5\d{4} ", 30)
        one.close()
        wait_until(lambda: not os.listdir(one.log_path.parent / "run"))
