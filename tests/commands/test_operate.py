# SPDX-License-Identifier: Apache-2.0
"""status, logs, start, stop, restart and reload, as operators type them, on real engines."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from cli_under_test import COMMAND, command, environment
from harness import STAYS, Engine, alive, all_places, gone, wait_until

from lmcache_plugin_adapter.cli import manage
from lmcache_plugin_adapter.cli.main import app
from lmcache_plugin_adapter.cli.options import read_seconds
from lmcache_plugin_adapter.cli.status.columns import duration
from lmcache_plugin_adapter.cli.status.report import make_report
from lmcache_plugin_adapter.cli.supervisors import search
from lmcache_plugin_adapter.cli.supervisors.client import request_all
from lmcache_plugin_adapter.cli.supervisors.resource_usage import UsageTable, command_line
from lmcache_plugin_adapter.cli.supervisors.survey import Selector
from lmcache_plugin_adapter.linux.procfs import ProcessTable
from lmcache_plugin_adapter.messages.wording import size

UP = "trap 'echo goodbye; exit' TERM; echo up; while :; do sleep 30 & wait $!; done"


class Done(NamedTuple):
    """What came of a command."""

    status: int
    out: str
    err: str


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Callable[..., Done]:
    """Run a command in this process, with the engines of this test only."""
    root = str(tmp_path / "run")
    monkeypatch.setattr(search, "candidates", lambda _environ: [root])
    monkeypatch.setenv("LMCACHE_PLUGINS_RUNTIME_DIR", root)
    monkeypatch.setattr(search, "_USERS_ROOTS", ())
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def do(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as ended:
            app([str(word) for word in arguments])
        out, err = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return do


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (
            ["run", "--for", "10x"],
            ["'--for'", "'10x'", "such as 30s", "units are"],
        ),
        (["run", "--for", "-1"], ["'--for'", "'-1'", "such as 30s"]),
        (["stop", "x", "--timeout", "soon"], ["'--timeout'", "'soon'", "such as 30s"]),
        (["status", "--engine", "x"], ["'--engine'", "status --help'"]),
        (["logs", "--level", "loud"], ["'--level'", "'loud'", "'warning'"]),
        (["new", "x"], ["'--role'", "new --help'"]),
        (["nosuch"], ["'nosuch'"]),
        (["--nosuch"], ["--nosuch"]),
    ],
    ids=" ".join,
)
def test_a_mistake_in_the_command_line_is_one_line(run, monkeypatch, words, texts) -> None:
    """Also on a small terminal, which no box fits."""
    monkeypatch.setenv("TERMINAL_WIDTH", "40")
    done = run(*words)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for text in texts:
        assert text in done.err


@pytest.mark.parametrize(
    ("text", "seconds"), [("10", 10), ("1.5", 1.5), ("500ms", 0.5), ("1m", 60), ("1h30m", 5400)]
)
def test_durations_of_the_command_line(text, seconds) -> None:
    """As in settings; a bare number is seconds, as ever."""
    assert read_seconds(text) == seconds


@pytest.mark.parametrize("name", ["", "status", "stop", "run", "check"])
def test_help_shows_what_to_type(run, monkeypatch, name) -> None:
    """Flags take no value, and a list of names has brackets once."""
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    done = run(*filter(None, [name]), "--help")
    assert done.status == 0
    assert "<bool>" not in done.out
    assert "[[" not in done.out
    assert "]...]" not in done.out
    if name in ("status", "stop"):
        usage = next(line for line in done.out.splitlines() if "Usage:" in line)
        assert usage.split()[-1].lower() == "[names]..."


@pytest.fixture
def workers(plugin, engine) -> list[Engine]:
    """Two workers with a plugin each that runs everywhere, and one on the first only."""
    plugin("all_x.sh", UP)
    plugin("worker_0_y.sh", UP)
    engines = [engine(worker_count=2) for _ in range(2)]
    for one in engines:
        one.wait_log(r"\[all_x\] up ")
    engines[0].wait_log(r"\[worker_0_y\] up ")
    return engines


def test_a_multiprocess_server_is_shown_and_acted_on(run, plugin, engine) -> None:
    """LMCache's server is a host as any other: by its role, with its own plugins only."""
    plugin("server_x.sh", UP)
    plugin("all_y.sh", UP)
    plugin("worker_z.sh", UP)
    one = engine(role="server", worker_count=1, worker_id=0)
    one.wait_for(lambda: one.log().count("] up ") == 2)
    (shown,) = json.loads(run("status", "--json").out)["supervisors"]
    assert (shown["role"], shown["worker_id"], shown["worker_count"]) == ("server", 0, 1)
    assert [each["name"] for each in shown["plugins"]] == ["all_y", "server_x"]
    assert run("status").out.splitlines()[2].startswith("server   all_y ")
    assert run("stop", "--role", "server", "--all", "--wait").status == 0
    assert run("status", "--check", "server_x").status == 1


def test_status_table(run, workers) -> None:
    """A summary, one table, one line a plugin; --wide adds columns and the engine processes."""
    done = run("status")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "3 plugins, 3 running"
    assert " ".join(lines[1].split()) == "process plugin state pid up lines CPU memory"
    assert [line.split()[:4] for line in lines[2:]] == [
        ["worker", "0", "all_x", "running"],
        ["worker", "0", "worker_0_y", "running"],
        ["worker", "1", "all_x", "running"],
    ]
    assert lines[2].split()[4] == str(workers[0].plugin_pid("all_x"))
    assert lines[2].split()[-1] == "MiB"
    assert "\x1b" not in done.out
    assert "worker_0_y" not in run("status", "--worker-id", 1).out
    assert "worker_0_y" not in run("status", "--rank=1").out
    assert "worker 0" not in run("status", "--rank", 1, "--dp", 0).out
    assert "worker 0" in run("status", "--dp-rank", 0).out
    assert "worker 1" not in run("status", "worker_0_y").out
    wide = run("status", "--wide").out.splitlines()
    titles = "process plugin state pid up restarts last exit lines dropped CPU memory package"
    assert " ".join(wide[1].split()) == titles
    assert wide[6].split()[:3] == ["process", "engine", "supervisor"]
    assert wide[7].split()[:3] == ["worker", "0", str(workers[0].pid)]
    assert "engine_program.py" in wide[7]


def test_failure_with_its_reason(run, plugin, engine) -> None:
    """A plugin that gives up has its last line as the reason, in each output; logged once."""
    plugin("all_a.sh", UP)
    plugin("all_x.sh", "echo first; echo '<3>url is missing'; exit 125")
    plugin("all_silent.sh", "exit 125")
    one = engine()
    one.wait_log(r"\[all_x\] Exited with code 125")
    one.wait_log(r"\[all_silent\] Exited with code 125 .*; it printed nothing ")
    assert one.log().count("url is missing") == 1
    lines = run("status").out.splitlines()
    assert lines[0] == "3 plugins, 2 failed, 1 running"
    assert [line.split()[2] for line in lines[2:5]] == ["all_silent", "all_x", "all_a"]
    assert lines[5:] == [
        "all_silent (worker 0): exited with code 125",
        "all_x (worker 0): exited with code 125: url is missing",
    ]
    assert run("status", "--check", "all_x").out == (
        f"all_x on worker 0 of engine {one.pid}: failed: exited with code 125: url is missing\n"
    )
    (document,) = json.loads(run("status", "all_x", "--json").out)["supervisors"]
    assert document["plugins"][0]["reason"] == "exited with code 125: url is missing"


def test_reason_of_what_prints_into_a_file(plugin, engine, tmp_path) -> None:
    """The engine's log has no line of the plugin, so its last line stands with its exit."""
    plugin("all_x.sh", "echo '<3>url is missing'; exit 125")
    one = engine({"log": str(tmp_path / "logs")})
    one.wait_log(r"Exited with code 125 .*; last output: url is missing ")


def test_status_json(run, workers, plugin) -> None:
    """Exactly the keys that the documentation names."""
    pid = workers[0].plugin_pid("all_x")
    wait_until(lambda: len(ProcessTable().with_descendants([pid])) == 2)  # bash and its sleep
    done = run("status", "--json", "--engine", workers[0].pid)
    document = json.loads(done.out)
    (one,) = document["supervisors"]
    page = (Path(__file__).parents[2] / "docs" / "reference" / "json-documents.md").read_text()
    section = page.partition("## `status --json`")[2].partition("\n## ")[0]
    for key in (*document, *one, *one["plugins"][0]):
        assert f"`{key}`" in section, key
    assert document["version"] == 1
    assert one["engine_pid"] == workers[0].pid
    assert one["role"] == "worker"
    assert one["supervisor_memory_bytes"] > 1_000_000
    first = one["plugins"][0]
    assert (first["name"], first["state"], first["lines"]) == ("all_x", "running", 1)
    assert first["processes"] == 2
    assert first["memory_bytes"] > 100_000


def test_status_says_how_it_ended(run, plugin, engine) -> None:
    """Exit code or signal by name; and why something does not run at all."""
    plugin("all_code.sh", "exit 7")
    plugin("all_signal.sh", "kill -KILL $$")
    plugin("all_open.sh", UP, mode=0o777)
    one = engine({"restart": "never"})
    one.wait_log("code 7")
    one.wait_log("SIGKILL")
    done = run("status")
    assert "code 7" in done.out
    assert "SIGKILL" in done.out
    assert "all_open (worker 0): '" in done.out
    assert "chmod go-w" in done.out
    plugins = json.loads(run("status", "--json").out)["supervisors"][0]["plugins"]
    by_name = {entry["name"]: entry for entry in plugins}
    assert by_name["all_code"]["last_exit_code"] == 7
    assert by_name["all_signal"]["last_exit_signal"] == "SIGKILL"
    assert by_name["all_signal"]["last_exit_code"] is None


def test_a_selector_that_matches_nothing(run, workers) -> None:
    """All but a stop, which has nothing to do then, report it in the same way."""
    for words in (("status",), ("logs",), ("restart",), ("reload",)):
        done = run(*words, "--worker-id", 9)
        text = "error: the options select none of 2 supervisors\n"
        assert done == (1, "", text), words
    document = json.loads(run("status", "--worker-id", 9, "--json").out)
    assert document["problems"] == ["the options select none of 2 supervisors"]
    assert run("status", "nosuch").out == ""


def test_nothing_runs(run) -> None:
    """No supervisor: status says so, a stop of all is done, the others are errors."""
    assert run("status").out.startswith("No supervisor runs (searched ")
    assert json.loads(run("status", "--json").out)["supervisors"] == []
    assert run("stop", "--all", "--wait").status == 0
    for words in (("start", "--all"), ("restart", "--all"), ("reload",), ("logs",), ("stop", "x")):
        done = run(*words)
        assert done.status == 1
        assert "error: no supervisor runs" in done.err
    assert run("status", "--check").status == 1


def test_supervisor_that_serves_too_many(run, plugin, engine, tmp_path) -> None:
    """It is not taken for one that does not run: a hook that stops all must not say it is done."""
    may_stop = tmp_path / "may-stop"
    plugin("all_x.sh", STAYS.format(may_stop))
    one = engine({"stop_grace": 60})
    one.wait_log(r"\] up ")
    with all_places(one.control, may_stop):
        done = run("stop", "--all", "--wait")
        assert done.status == 1
        assert "error: the supervisor serves 32 clients already" in done.err
        told = run("status").out
    for text in (done.out, done.err, told):
        assert "o supervisor runs" not in text
        assert "othing to stop" not in text
    one.wait_for(lambda: one.status().get("state") == "stopped")


def test_probe(run, plugin, engine) -> None:
    """Exit 0 when all runs or is done with code 0; else 1 and what is wrong."""
    plugin("all_up.sh", UP)
    plugin("all_done.sh", "exit 0")
    plugin("all_bad.sh", "exit 9")
    one = engine({"restart": "never"})
    one.wait_log(r"\] up ")
    one.wait_log("code 9")
    one.wait_log("code 0")
    assert run("status", "--check", "all_up", "all_done") == (0, "2 plugins are healthy\n", "")
    done = run("status", "--check")
    assert done.status == 1
    assert done.out == f"all_bad on worker 0 of engine {one.pid}: exited with code 9\n"
    done = run("status", "--check", "all_upp")
    assert (done.status, done.out) == (1, "unknown plugin 'all_upp'; did you mean 'all_up'?\n")


def test_unknown_names_are_suggested(run, workers) -> None:
    """Nothing happens, and what was meant is said."""
    for op in ("stop", "start", "restart", "logs", "status"):
        done = run(op, "all_xx")
        assert done.status == 2
        assert done.err == "error: unknown plugin 'all_xx'; did you mean 'all_x'?\n"
    assert all(alive(one.plugin_pid("all_x")) for one in workers)


def test_a_path_names_a_plugin(run, workers, monkeypatch, tmp_path) -> None:
    """Relative to the working directory, through a link too, as shells complete it."""
    path = Path(workers[0].status("worker_0_y")["path"])
    monkeypatch.chdir(path.parent.parent)
    folder = path.parent.name
    assert run("status", "--check", f"{folder}/{path.name}").status == 0
    assert run("logs", f"./{folder}/{path.name}").out.endswith("] up\n")
    done = run("restart", f"./{folder}/../{folder}/{path.name}", "--wait")
    assert (done.status, done.out.count(": running")) == (0, 1)
    (tmp_path / "link").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    assert run("stop", "./link", "--wait").out.endswith(": stopped\n")
    done = run("stop", f"{folder}/all_x.sh")
    assert "runs 2 times" in done.err
    assert run("stop", "./nosuch.sh").status == 2


def test_more_than_one_needs_to_be_meant(run, workers) -> None:
    """A name on several engines, or no name at all, needs --all or a selector."""
    done = run("stop", "all_x")
    assert done.status == 2
    assert "'all_x' runs 2 times" in done.err
    done = run("stop")
    assert (done.status, done.err) == (
        2,
        "error: no plugin is named: name some, or stop all with --all\n",
    )
    assert all(alive(one.plugin_pid("all_x")) for one in workers)
    assert run("stop", "worker_0_y", "--wait").status == 0
    assert run("stop", "--worker-id", 1, "--wait").out.endswith(": stopped\n")
    assert gone(workers[1].plugin_pid("all_x"))
    assert alive(workers[0].plugin_pid("all_x"))


def test_stop_start_restart_all(run, workers) -> None:
    """Waited for, with the states they came to."""
    pids = [one.plugin_pid("all_x") for one in workers]
    done = run("stop", "--all", "--wait")
    assert (done.status, done.out.count(": stopped")) == (0, 3)
    assert all(gone(pid) for pid in pids)
    done = run("start", "all_x", "--all", "--wait")
    assert (done.status, done.out.count(": running")) == (0, 2)
    done = run("restart", "all_x.sh", "--all", "--wait")
    assert (done.status, done.out.count(": running")) == (0, 2)
    assert not {one.status("all_x")["pid"] for one in workers} & {None, *pids}


def test_start_that_fails_is_an_error(run, plugin, engine) -> None:
    """What cannot run is no success once it is waited for, and the reason is printed."""
    plugin("all_x", b"\x7fNOT-AN-ELF\n")
    plugin("all_open.sh", UP, mode=0o777)
    one = engine()
    one.wait_log("Cannot run")
    done = run("start", "all_x", "--wait")
    assert done.status == 1
    assert f"all_x on worker 0 of engine {one.pid}: failed: cannot run " in done.out
    done = run("restart", "all_x")
    assert (done.status, ": restart requested (" in done.out) == (0, True)
    for words in ([], ["--wait"]):
        assert (
            f"all_open on worker 0 of engine {one.pid}: refused: '"
            in run("start", "all_open", *words).out
        )


def test_logs_of_what_never_ran(run, plugin, engine) -> None:
    """A note gives the reason why there is no line."""
    plugin("all_open.sh", UP, mode=0o777)
    plugin("all_silent.sh", "exit 125")
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\[all_silent\] Exited with code 125")
    one.wait_log(r"\] up ")
    done = run("logs", "all_open")
    assert (done.status, done.out, done.err.count("\n")) == (0, "", 1)
    assert done.err.startswith(
        f"note: all_open on worker 0 of engine {one.pid} has never started: '"
    )
    silent = f"note: all_silent on worker 0 of engine {one.pid} has printed nothing"
    assert run("logs", "all_silent").err == f"{silent}: exited with code 125\n"
    assert run("logs", "all_x").err == ""


@pytest.mark.parametrize(("operation", "limit"), [("stop", 0.2), ("restart", 0)])
def test_wait_has_a_limit(run, plugin, engine, operation, limit) -> None:
    """The plugin needs longer: the command says so, does not blame the supervisor; it goes on."""
    plugin("all_x.sh", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    one = engine({"stop_grace": 2})
    one.wait_log(r"\] up ")
    done = run(operation, "all_x", "--wait", "--timeout", f"{limit}s")
    label = f"worker 0 of engine {one.pid}"
    assert done == (
        1,
        "",
        f"error: all_x on {label}: still stopping after {limit:g} s; the {operation} continues\n",
    )
    goal = "stopped" if operation == "stop" else "running"
    one.wait_for(lambda: one.status("all_x")["state"] == goal)


def test_a_supervisor_that_is_suspended_is_blamed(run, plugin, engine) -> None:
    """It answered the first question, and does not answer the request any more."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    found = make_report().survey
    os.kill(found.supervisors[0].supervisor_pid, signal.SIGSTOP)
    try:
        replies = request_all([found.supervisors[0].address], {"op": "status"}, 0.2)
    finally:
        os.kill(found.supervisors[0].supervisor_pid, signal.SIGCONT)
    assert replies[0].timed_out
    assert replies[0].problem is not None
    assert replies[0].problem.endswith("does not answer within 0.2 s (is it suspended?)")


def test_reload_that_takes_long(run, plugin, engine, monkeypatch) -> None:
    """A slow search is not a supervisor that does not answer."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    monkeypatch.setattr(manage, "RELOAD_SECONDS", 0)
    done = run("reload")
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        f"error: worker 0 of engine {one.pid}: still searching the locations after 0 s; "
        "the supervisor applies what it finds later\n"
    )


def test_engine_that_ends_during_a_stop(run, plugin, engine) -> None:
    """The supervisor that went with it has stopped its plugins: no error."""
    plugin("all_x.sh", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    one = engine({"stop_grace": 0.5})
    one.wait_log(r"\] up ")
    one.process.send_signal(signal.SIGKILL)
    done = run("stop", "--all", "--wait")
    assert done.status == 0, done


def test_reload(run, workers, plugin) -> None:
    """What changed is said for each engine."""
    plugin("worker_1_z.sh", UP)
    done = run("reload")
    assert done.status == 0
    first, second = done.out.splitlines()
    assert first == f"worker 0 of engine {workers[0].pid}: 2 unchanged"
    assert second == f"worker 1 of engine {workers[1].pid}: started worker_1_z; 1 unchanged"


def test_logs(run, plugin, engine) -> None:
    """The last lines of all engines by time, and whose they are."""
    plugin("all_x.sh", "for i in 1 2 3 4; do echo line $i; done; exec sleep 60")
    engines = [engine() for _ in range(2)]
    for one in engines:
        one.wait_log("line 4")
    done = run("logs", "all_x", "--engine", engines[0].pid, "-n", 2)
    assert (done.status, done.err) == (0, "")
    assert [line.split("] ")[1] for line in done.out.splitlines()] == ["line 3", "line 4"]
    lines = run("logs").out.splitlines()
    assert len(lines) == 8
    times = [line.partition(" [")[0] for line in lines]
    assert sorted(times) == times
    assert sum(f"[all_x on worker 1 of engine {engines[1].pid}]" in line for line in lines) == 4
    assert run("logs", "-n", 0).out == ""
    assert len(run("logs", "-n", 3).out.splitlines()) == 3


def test_logs_selected(run, plugin, engine) -> None:
    """By time and level, of all stored lines; -n counts the lines that are left."""
    plugin("all_x.sh", "echo '<4>old'; for i in $(seq 300); do echo $i; done; exec sleep 60")
    one = engine()
    one.wait_log(r"\] 300 ")
    assert [line.split("] ")[1] for line in run("logs", "--level", "warning").out.splitlines()] == [
        "old"
    ]
    assert len(run("logs", "--since", "1h").out.splitlines()) == 301
    assert len(run("logs", "--since", "1h", "-n", "5").out.splitlines()) == 5
    assert run("logs", "--since", "2199-01-01").out == ""
    done = run("logs", "--since", "soon")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: --since is 'soon': accepted are ")
    (line,) = run("logs", "--json", "-n", "1").out.splitlines()
    document = json.loads(line)
    page = Path(__file__).parents[2] / "docs" / "reference" / "json-documents.md"
    section = page.read_text().partition("## `logs --json`")[2].partition("\n## ")[0]
    for key in document:
        assert f"`{key}`" in section, key
    assert (document["plugin"], document["process"], document["text"]) == (
        "all_x",
        "worker 0",
        "300",
    )
    assert (document["engine_pid"], document["level"]) == (one.pid, "info")
    (record,) = run("logs", "--format", "lmcache", "--level", "warning").out.splitlines()
    assert "] LMCache WARNING: [all_x] old (all_x.sh:" in record
    assert record in one.log() or record.partition(" LMCache ")[2] in one.log()
    assert run("logs", "--format", "short", "-n", "1").out == "worker 0 | all_x | 300\n"


def start(tmp_path: Path, *words: str, **options) -> subprocess.Popen[str]:
    """Start a command as a process that sees this test's engines."""
    env = environment(LMCACHE_PLUGINS_RUNTIME_DIR=str(tmp_path / "run"))
    return subprocess.Popen(
        [*COMMAND, *words], env=env, stdout=subprocess.PIPE, text=True, **options
    )


def test_logs_followed(plugin, engine, tmp_path) -> None:
    """New lines come at once; Ctrl-C ends it; so does the end of the pipe it writes to."""
    plugin(
        "all_x.sh",
        f"echo first; until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo second; exec sleep 60",
    )
    one = engine()
    one.wait_log("first")
    pid = str(one.pid)
    follower = start(tmp_path, "logs", "-f", "--engine", pid)
    broken = start(tmp_path, "logs", "-f", "--engine", pid)
    assert follower.stdout is not None
    assert broken.stdout is not None
    for process in (follower, broken):
        assert process.stdout.readline().endswith("] first\n")
    broken.stdout.close()
    assert broken.wait(10) == 0  # at once, not with the next line
    (tmp_path / "go").touch()
    assert follower.stdout.readline().endswith("] second\n")
    follower.send_signal(signal.SIGINT)
    assert follower.wait(10) == 130
    follower.stdout.close()


def test_follower_ends_with_the_engine(plugin, engine, tmp_path) -> None:
    """The last lines are there, and the command ends by itself."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    with start(tmp_path, "logs", "-f", "--engine", str(one.pid)) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline().endswith("] up\n")
        one.close()
        assert follower.stdout.read().endswith("] goodbye\n")
        assert follower.wait(10) == 0


def test_follower_sees_later_plugins(plugin, engine, tmp_path) -> None:
    """Without names, those that a reload finds as well."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    with start(tmp_path, "logs", "-f", "--engine", str(one.pid)) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline().endswith("[all_x] up\n")
        plugin("all_y.sh", UP)
        assert one.ask("reload")["started"] == ["all_y"]
        assert follower.stdout.readline().endswith("[all_y] up\n")
        one.close()
        assert follower.wait(20) == 0


@pytest.mark.parametrize("names", [(), ("all_x",)], ids=["all", "by name"])
def test_follower_goes_on_with_the_next_supervisor(plugin, engine, tmp_path, names) -> None:
    """One line on stderr reports it; the command ends with the engine."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    with start(
        tmp_path, "logs", "-f", *names, "--engine", str(one.pid), stderr=subprocess.PIPE
    ) as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        for number in range(2):
            assert follower.stdout.readline().endswith("[all_x] up\n")
            os.kill(one.ask("status")["supervisor_pid"], signal.SIGKILL)
            line = follower.stderr.readline()
            assert line == (
                f"note: worker 0 of engine {one.pid}: another supervisor has taken its place\n"
            ), number
        assert follower.stdout.readline().endswith("[all_x] up\n")
        one.close()
        assert follower.wait(20) == 0


def test_watch_as_json(plugin, engine, tmp_path) -> None:
    """One document a line, again and again."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    with start(tmp_path, "status", "--watch", "--json", "--engine", str(one.pid)) as watch:
        assert watch.stdout is not None
        for _ in range(2):
            (supervisor,) = json.loads(watch.stdout.readline())["supervisors"]
            assert supervisor["engine_pid"] == one.pid
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 130


def test_watch_on_a_terminal(plugin, engine, tmp_path) -> None:
    """Redrawn on a screen of its own, a narrow one too; Ctrl-C gives the screen back."""
    plugin("all_x.sh", UP)
    one = engine()
    one.wait_log(r"\] up ")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 60, 0, 0))
    env = environment(LMCACHE_PLUGINS_RUNTIME_DIR=str(tmp_path / "run"), TERM="xterm")
    words = ("status", "--watch", "--engine", str(one.pid))
    watch = subprocess.Popen([*COMMAND, *words], env=env, stdin=theirs, stdout=theirs, stderr=2)
    os.close(theirs)
    shown = b""
    while shown.count(b"all_x") < 2:
        shown += os.read(ours, 65536)
    watch.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert watch.wait(10) == 130
    assert shown.startswith(b"\x1b[?1049h")  # the other screen
    assert shown.endswith(b"\x1b[?25h\x1b[?1049l")  # the cursor, the screen
    assert b"\x1b[32mrunning" in shown


def test_completion_of_names(plugin, engine, tmp_path) -> None:
    """A shell completes what runs."""
    plugin("all_completed.sh", UP)
    engine().wait_log(r"\] up ")
    done = command(
        env={
            "LMCACHE_PLUGINS_RUNTIME_DIR": str(tmp_path / "run"),
            "_LMCACHE_PLUGINS_COMPLETE": "complete_bash",
            "COMP_WORDS": "lmcache-plugins restart all_com",
            "COMP_CWORD": "2",
        }
    )
    assert done.stdout.split() == ["all_completed"]


def test_work_of_a_status(run, plugin, engine) -> None:
    """20 plugins of an engine take a share of 100 ms that lets 8 engines stay below it."""
    import time

    for number in range(20):
        plugin(f"all_p{number:02}.sh", "exec sleep 60")
    one = engine()
    one.wait_for(lambda: one.log().count("Started, pid") == 20)
    make_report()
    best = 1.0
    for _ in range(5):
        began = time.process_time()
        report = make_report()
        report.survey.print_problems(report.survey.unknown(report.names))
        best = min(best, time.process_time() - began)
    assert len(report.plugins) == 20
    assert best < 0.1 / 8 + 0.02  # the look at all of /proc is made once, not for each engine


def test_usage_counts_the_whole_tree(tmp_path) -> None:
    """Children and what left for the session count; CPU time of ended children too."""
    burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
    process = subprocess.Popen(
        ["bash", "-c", f"({burn}); sleep 60 & (sleep 60 &); echo up; wait"],
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    taken = UsageTable().tree(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert taken is not None
    assert taken.processes == 3
    assert taken.cpu_seconds > 0.05
    assert taken.memory_bytes > 1_000_000
    assert wait_until(lambda: UsageTable().tree(process.pid) is None)


def test_secrets_on_a_command_line_are_masked() -> None:
    """The engine's command is shown, its API key is not."""
    words = ["--api-key", "s3cret", "--port", "1", "--hf-token=s3cret", "--password"]
    program = [sys.executable, "-c", "input()", *words]
    with subprocess.Popen(program, stdin=subprocess.PIPE) as process:
        shown = wait_until(lambda: command_line(process.pid))
        process.kill()
    assert "s3cret" not in shown
    assert shown.endswith("--api-key *** --port 1 --hf-token=*** --password")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (75, "1m 15s"), (3700, "1h 1m"), (90_000, "1d 1h"), (None, "")],
)
def test_durations(seconds, text) -> None:
    """Two units at most."""
    assert duration(seconds) == text


def test_sizes() -> None:
    """In the unit that reads best."""
    assert [size(1 << 20), size(3 << 30)] == ["1.0 MiB", "3.0 GiB"]


def test_selectors() -> None:
    """Nothing is no selection; replica 0 is one."""
    assert not Selector()
    assert Selector(dp=0)


def test_other_containers_are_left_alone(run, plugin, engine) -> None:
    """Two containers may share /dev/shm and a user."""
    unshare = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("may not make namespaces")
    plugin("all_x.sh", UP)
    theirs = engine(prefix=unshare)
    theirs.wait_log(r"\] up ", 30)
    done = run("stop", "--all", "--wait")
    assert done.status == 0
    assert "no supervisor runs in this container (1 in others)" in done.out
    assert "1 supervisor of other containers left alone: --other-containers" in done.err
    mine = engine()
    mine.wait_log(r"\] up ", 30)
    done = run("stop", "--all", "--wait")
    assert done.status == 0
    assert done.out.count(": stopped") == 1
    assert theirs.status()["state"] == "running"
    assert run("stop", "--all", "--wait", "--other-containers").status == 0
    assert theirs.status()["state"] == "stopped"
