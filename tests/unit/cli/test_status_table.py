# SPDX-License-Identifier: Apache-2.0
"""The table of status: what is shown of many processes, on terminals of any size."""

from __future__ import annotations

import re

import pytest

from lmcache_plugin_adapter.cli.status import table
from lmcache_plugin_adapter.cli.status.columns import COLUMNS, STYLES, Row, table_lines
from lmcache_plugin_adapter.cli.status.report import StatusReport
from lmcache_plugin_adapter.cli.supervisors.resource_usage import Usage
from lmcache_plugin_adapter.cli.supervisors.search import Address
from lmcache_plugin_adapter.cli.supervisors.status_answer import (
    ShownPlugin,
    SupervisorStatus,
    _fields_of,
)
from lmcache_plugin_adapter.cli.supervisors.survey import Survey
from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.contract.plugin_status import PluginStatus

REASON = "'/etc/lmcache/plugins/worker_push.sh' can be written by everyone: " + "chmod go-w " * 9


def plugin(name: str, state: State = State.RUNNING, **fields: object) -> ShownPlugin:
    """Return the status of a plugin that runs, or is in another state."""
    values: dict[str, object] = {
        "name": name,
        "path": f"/plugins/{name}.sh",
        "package": None,
        "command": "bash",
        "state": state,
        "reason": None,
        "pid": 4_000_000 if state is State.RUNNING else None,
        "uptime": 90_061.0 if state is State.RUNNING else None,
        "restarts": 0,
        "last_exit": None,
        "next_start_in": None,
        "last_success": None,
        "ready": None,
        "status_text": None,
        "lines": 0,
        "lines_dropped": 0,
        "bytes": 0,
    }
    return ShownPlugin(**{**values, **fields})  # type: ignore[arg-type]


def supervisor(rank: int, *plugins: ShownPlugin, engine: int = 0) -> SupervisorStatus:
    """Return the status of a worker's supervisor."""
    return SupervisorStatus(
        address=Address(f"/run/{rank}", 0),
        version="0",
        supervisor_pid=3_000_000 + rank,
        engine_pid=engine or 2_000_000 + rank,
        identity="scheduler" if rank < 0 else f"worker {rank}",
        role="worker",
        worker_id=rank,
        worker_count=8,
        dp_rank=0,
        dp_size=1,
        uptime=5.0,
        stopping=False,
        plugins=plugins,
    )


def report(*supervisors: SupervisorStatus, names: tuple[str, ...] = ()) -> StatusReport:
    """Return a report of supervisors, with the resource usage of running plugins."""
    survey = Survey(supervisors=list(supervisors))
    usage = {4_000_000: Usage(3, 12.5, 123 << 20)}
    return StatusReport(survey, names, survey.plugins(names), usage)


@pytest.fixture
def eight() -> StatusReport:
    """Eight workers of three plugins: one failed, one refused everywhere, one restarted."""
    workers = []
    for rank in range(8):
        push = plugin("worker_push", State.REFUSED, reason=REASON)
        gpu = plugin("worker_gpu_stats", lines=1_234_567, lines_dropped=1_000, restarts=3)
        other = plugin("all_heartbeat")
        if rank == 5:
            other = plugin("all_heartbeat", State.FAILED, reason="cannot run", last_exit=125)
        workers.append(supervisor(rank, other, gpu, push))
    return report(*workers)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    """Make stdout a terminal of a size, without colours."""
    monkeypatch.setenv("NO_COLOR", "1")

    def resize(columns: int, lines: int) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(lines))
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    return resize


def shown(one: StatusReport, *, wide: bool = False) -> list[str]:
    """Return the lines that the terminal shows."""
    text = table.to_table(one, None, wide=wide)
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


def test_order_and_summary(terminal, eight) -> None:
    """What needs attention comes first; the summary counts each state."""
    terminal(200, 100)
    lines = shown(eight)
    assert lines[0] == "24 plugins, 1 failed, 8 refused, 15 running"
    assert lines[1].split()[:3] == ["process", "plugin", "state"]
    assert lines[2].startswith("worker 5  all_heartbeat     failed ")
    assert all(" refused " in line for line in lines[3:11])
    assert [line[:8] for line in lines[3:11]] == [f"worker {rank}" for rank in range(8)]
    assert lines[26] == "all_heartbeat (worker 5): cannot run"
    assert lines[27].startswith("worker_push (worker 0 and 7 more): '/etc/")
    assert len(lines) == 28


@pytest.mark.parametrize("columns", [300, 120, 100, 80, 60, 40, 25])
def test_only_whole_columns(terminal, eight, columns) -> None:
    """No line is too long, and each heading that is shown is a whole one."""
    terminal(columns, 100)
    lines = shown(eight)
    assert max(map(len, lines)) <= columns
    titles = {column.title for column in COLUMNS}
    assert set(re.split(r"\s{2,}", lines[1])) <= titles
    if columns == 80:
        assert lines[1].endswith("  CPU     memory")


def test_the_least_important_columns_go_first(eight) -> None:
    """Dropped lines before the last exit, then the pid; the name and the state stay."""
    rows = [Row(owner, one, Usage(1, 1.0, 1 << 20), 1.0) for owner, one in eight.plugins]
    gone: list[str] = []
    for width in range(300, 10, -1):
        titles = {cell[0].strip() for cell in table_lines(COLUMNS, rows, width)[0]}
        gone += [one.title for one in COLUMNS if one.title not in titles and one.title not in gone]
    assert gone[:4] == ["package", "dropped", "last exit", "pid"]
    assert gone[-1] == "process"
    assert {"plugin", "state"}.isdisjoint(gone)


def test_empty_columns_are_hidden(terminal) -> None:
    """A column of zeros, too; --wide shows them."""
    terminal(300, 50)
    one = report(supervisor(0, plugin("all_x", State.STOPPED)))
    assert shown(one)[1].split() == ["process", "plugin", "state"]
    assert len(shown(one, wide=True)[1].split()) == len(COLUMNS) + 1  # 'last exit' has two words


def test_low_terminal(terminal, eight) -> None:
    """The rows that do not fit are counted; the failures are not among them."""
    terminal(80, 24)
    lines = shown(eight)
    assert len(lines) <= 22
    (rest,) = (line for line in lines if line.startswith("+"))
    rows = lines.index(rest) - 2
    assert rest == f"+{24 - rows} rows ({24 - rows} running)"
    assert " failed " in lines[2]
    assert lines[-1].startswith("    ")  # the end of the last reason
    assert len(shown(eight, wide=True)) > 26
    for height in range(1, 40):
        terminal(80, height)
        assert len(shown(eight)) <= max(height - 2, 5)


def test_same_process_of_two_engines(terminal) -> None:
    """The engine's pid tells them apart."""
    terminal(80, 24)
    one = report(*(supervisor(0, plugin("all_x"), engine=pid) for pid in (77, 88)))
    assert [line[:21] for line in shown(one)[2:]] == [
        "worker 0 of engine 77",
        "worker 0 of engine 88",
    ]


def test_processes_without_plugins(terminal) -> None:
    """They are listed, unless plugins are named."""
    terminal(80, 24)
    workers = supervisor(0, plugin("all_x")), supervisor(1), supervisor(2)
    assert shown(report(*workers))[-1] == "no plugins: worker 1, worker 2"
    assert shown(report(*workers, names=("all_x",)))[-1].startswith("worker 0")
    assert shown(report(supervisor(1))) == ["0 plugins", "no plugins: worker 1"]


def test_long_names(terminal) -> None:
    """They are cut where the terminal is too narrow, so that other columns keep their place."""
    one = report(supervisor(0, plugin("all_" + "x" * 60)))
    terminal(80, 24)
    assert "…" in shown(one)[2]
    assert "MiB" in shown(one)[2]
    terminal(200, 24)
    assert "…" not in shown(one)[2]


def test_every_state_has_a_style() -> None:
    """Its place there is its place in the table."""
    assert set(STYLES) == set(State)


def test_every_field_of_a_status_is_read() -> None:
    """By its annotation, or with code of its own: a field of another type needs some."""
    known = {"package", "address", "plugins"}
    for status in (PluginStatus, SupervisorStatus):
        read = {name for name, _, _ in _fields_of(status)}
        assert set(status.__annotations__) - read <= known
