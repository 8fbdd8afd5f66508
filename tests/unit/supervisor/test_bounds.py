# SPDX-License-Identifier: Apache-2.0
"""What a request and a large limit of descriptors may cost."""

from __future__ import annotations

import os

import pytest

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
