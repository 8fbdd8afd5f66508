# SPDX-License-Identifier: Apache-2.0
"""What requests and a large limit of descriptors may cost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from pathlib import Path

import pytest
from harness import connect, wait_until

from lmcache_plugin_adapter.supervisor.control.kept_lines import KeptLines
from lmcache_plugin_adapter.supervisor.output.ring import Ring
from lmcache_plugin_adapter.supervisor.planning import search


@pytest.mark.parametrize("op", ["logs", "stop"])
def test_name_that_is_repeated_counts_once(plugin, engine, op) -> None:
    """A request cannot multiply its answer."""
    plugin("all_x.sh", "echo up; exec sleep 60\n")
    one = engine()
    one.wait_log(r"\] up ", 30)
    answer = one.ask(op, names=["all_x", "all_x.sh"] * 3000, lines=0)
    if op == "logs":
        assert answer["names"] == ["all_x"]
    else:
        assert [each["name"] for each in answer["plugins"]] == ["all_x"]


def test_only_open_descriptors_are_closed(monkeypatch) -> None:
    """A limit of a million descriptors does not mean a million calls."""
    extra = os.dup(0)
    closed: list[int] = []
    monkeypatch.setattr(search.os, "close", closed.append)
    search._close_all_but({0, 1, 2}, 1_000_000_000)
    monkeypatch.undo()
    os.close(extra)
    assert extra in closed
    assert not {0, 1, 2} & set(closed)
    assert len(closed) < 10_000


def test_searches_of_many_reloads(plugin, engine) -> None:
    """Requests that come while a search runs share the next one; each has its answer."""
    plugin("all_x.sh", "echo up; exec sleep 60\n")
    one = engine()
    one.wait_log(r"\] up ", 30)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(one.control)) for _ in range(20)]
        for client in clients:
            client.sendall(b'{"op": "reload"}\n' * 3)
        for client in clients:
            answers = stack.enter_context(client.makefile())
            for _ in range(3):
                assert json.loads(answers.readline())["unchanged"] == ["all_x"]
    assert 1 <= one.log().count("Reloaded: ") < 60


@pytest.mark.parametrize("end", [b"\n", b""])
def test_client_that_sends_no_more_has_its_answers(plugin, engine, tmp_path, end) -> None:
    """One that has closed its sending side is served to the end, then the connection closes."""
    plugin("all_x.sh", "trap 'sleep 0.5; exit' TERM; echo up; while :; do sleep 0.05; done\n")
    one = engine()
    one.wait_log(r"\] up ", 30)
    with connect(one.control) as connection:
        connection.sendall(b'{"op": "stop", "all": true, "wait": true}\n{"op": "status"}' + end)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile() as answers:
            stopped, status = map(json.loads, answers)
    assert stopped["plugins"] == [{"name": "all_x", "state": "stopped"}]
    assert status["plugins"][0]["state"] == "stopped"


def test_client_that_leaves_while_it_waits(plugin, engine) -> None:
    """Its place is free at once, and the supervisor sleeps."""
    plugin("all_x.sh", "trap '' TERM; echo up; while :; do sleep 0.05; done\n")
    one = engine({"stop_grace": 10})
    one.wait_log(r"\] up ", 30)
    descriptors = f"/proc/{one.supervisor()}/fd"

    def sockets() -> int:
        count = 0
        for fd in os.listdir(descriptors):
            with contextlib.suppress(OSError):
                count += os.readlink(f"{descriptors}/{fd}").startswith("socket:")
        return count

    before = sockets()
    for request in (b'{"op": "stop", "all": true, "wait": true}\n', b'{"op": "logs"'):
        with connect(one.control) as connection:
            connection.sendall(request)
            wait_until(lambda: sockets() > before, 20)
        wait_until(lambda: sockets() == before, 20)


def test_logs_for_clients_that_do_not_read(plugin, engine) -> None:
    """However many lines are kept for however many clients: memory holds each once."""
    for letter in "abcd":
        plugin(f"all_{letter}.sh", "yes '' | head -c 900000; echo last; exec sleep 60\n")
    one = engine({"rate_limit": "off", "log_buffer_bytes": 1 << 20, "log": "stderr"})
    for letter in "abcd":
        one.wait_log(rf"\[all_{letter}\] last ", 60)
    memory = Path(f"/proc/{one.supervisor()}/status")

    def megabytes(field: str) -> int:
        return int(re.findall(rf"{field}:\s+(\d+)", memory.read_text())[0]) // 1024

    before = megabytes("VmHWM")
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(connect(one.control))
            client.sendall(b'{"op": "logs", "all": true, "lines": 10000000}\n')
            assert client.recv(1)
        assert one.ask("status")["ok"]
    assert megabytes("VmHWM") < before + 64


def ring_of(*blocks: tuple[float, str], limit: int = 10_000) -> Ring:
    """Return a ring that keeps these blocks, each with its time."""
    ring = Ring(limit)
    for when, text in blocks:
        ring.add(when, 6, text.encode())
    return ring


@pytest.mark.parametrize(
    ("count", "expected"), [(0, ""), (1, "f"), (3, "d e f"), (5, "b c d e f"), (99, "a b c d e f")]
)
def test_last_lines_of_several_rings(count, expected) -> None:
    """Ordered by time, and the last ones of all."""
    rings = [("x", ring_of((1, "a\nb"), (4, "e"))), ("y", ring_of((2, "c"), (3, "d"), (5, "f")))]
    lines = KeptLines([*rings, ("z", Ring(100))], count)
    texts = [text for _, _, _, text in lines]
    assert texts == expected.split()
    assert (lines.count, lines.missed) == (len(texts), 0)


def test_lines_that_are_dropped_before_they_are_read() -> None:
    """They are counted; newer ones are not sent in their place."""
    ring = ring_of((1, "a"), (2, "b\nc"), (3, "d"), limit=1000)
    lines = KeptLines([("x", ring)], 99)
    reader = iter(lines)
    assert next(reader)[3] == "a"
    ring.clear()
    ring.add(4, 6, b"e")
    assert list(reader) == []
    assert lines.missed == 3
