# SPDX-License-Identifier: Apache-2.0
"""What a plugin's process gets: environment, descriptors, signals, session, CPUs."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from pathlib import Path

import pytest

PROBE = """
import json, os, signal, sys
status = [l.split(":\\t", 1) for l in open("/proc/self/status").read().splitlines()]
status = dict(pair for pair in status if len(pair) == 2)
json.dump({
    "env": dict(os.environ),
    "argv": sys.argv,
    "executable": sys.executable,
    "cwd": os.getcwd(),
    "fds": {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{fd}")},
    "stdin": sys.stdin.read(),
    "ignored": int(status["SigIgn"], 16),
    "blocked": int(status["SigBlk"], 16),
    "sid": os.getsid(0), "pgid": os.getpgid(0), "pid": os.getpid(),
    "cpus": sorted(os.sched_getaffinity(0)),
    "nofile": __import__("resource").getrlimit(7),
    "umask": os.umask(0),
    "no_new_privs": status["NoNewPrivs"],
}, open(os.environ["PROBE"] + ".new", "w"))
os.rename(os.environ["PROBE"] + ".new", os.environ["PROBE"])
signal.pause()
"""


@pytest.fixture
def probe(tmp_path, plugin, engine):
    """Run a plugin that writes down all it finds, and return that and its engine."""

    def run(name="worker_probe.py", settings=None, **options):
        plugin(name, PROBE)
        answer = tmp_path / "answer.json"
        options["env"] = {"PROBE": str(answer), **options.get("env", {})}
        started = engine(settings, **options)
        started.wait_for(answer.exists, what="the probe's answer")
        return json.loads(answer.read_text()), started

    return run


def test_variables_of_a_worker(probe, tmp_path) -> None:
    """A worker's plugin gets every variable of the contract, and the older names."""
    found, started = probe(
        role="Worker",
        worker_count=4,
        worker_id=2,
        extra_config={"mine": {"key": "värde"}},
        env={"PROMETHEUS_MULTIPROC_DIR": "/somewhere"},
    )
    env = found["env"]
    assert env["LMCACHE_RUNTIME_PLUGIN_ROLE"] == env["LMCACHE_PLUGIN_ROLE"] == "WORKER"
    assert env["LMCACHE_RUNTIME_PLUGIN_WORKER_ID"] == env["LMCACHE_PLUGIN_WORKER_ID"] == "2"
    assert env["LMCACHE_RUNTIME_PLUGIN_WORKER_COUNT"] == "4"
    assert env["LMCACHE_PLUGIN_WORKER_COUNT"] == "4"
    assert env["LMCACHE_RUNTIME_PLUGIN_CONFIG"] == env["LMCACHE_PLUGIN_CONFIG"]
    assert env["LMCACHE_RUNTIME_PLUGIN_DP_RANK"] == "0"
    assert env["LMCACHE_RUNTIME_PLUGIN_DP_SIZE"] == "1"
    assert env["LMCACHE_RUNTIME_PLUGIN_ENGINE_PID"] == str(started.pid)
    assert env["LMCACHE_RUNTIME_PLUGIN_NAME"] == "worker_probe"
    assert env["PYTHONUNBUFFERED"] == "1"
    assert "PROMETHEUS_MULTIPROC_DIR" not in env
    assert env["LMCACHE_RUNTIME_PLUGIN_PROMETHEUS_MULTIPROC_DIR"] == "/somewhere"
    config = json.loads(env["LMCACHE_RUNTIME_PLUGIN_CONFIG"])
    assert config["extra_config"]["mine"] == {"key": "värde"}
    assert config["runtime_plugin_locations"] == [str(tmp_path / "plugins")]


def test_variables_of_a_scheduler(probe) -> None:
    """The scheduler's id is -1, whatever the launcher was given."""
    found, _ = probe("all_probe.py", role="SCHEDULER", worker_count=2, worker_id=0)
    assert found["env"]["LMCACHE_RUNTIME_PLUGIN_ROLE"] == "SCHEDULER"
    assert found["env"]["LMCACHE_RUNTIME_PLUGIN_WORKER_ID"] == "-1"


def test_config_file_is_private_and_the_same(probe) -> None:
    """CONFIG_FILE holds what CONFIG holds, readable by the user alone."""
    found, _ = probe()
    path = Path(found["env"]["LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == found["env"]["LMCACHE_RUNTIME_PLUGIN_CONFIG"]


def test_config_over_the_kernel_limit(probe) -> None:
    """A configuration of 2 MB: CONFIG is reduced, the file has it all, a warning says so."""
    found, started = probe(prelude='config.values["big"] = "x" * 2_000_000')
    reduced = json.loads(found["env"]["LMCACHE_RUNTIME_PLUGIN_CONFIG"])
    assert sorted(reduced) == ["extra_config", "runtime_plugin_locations"]
    whole = json.loads(Path(found["env"]["LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE"]).read_text())
    assert len(whole["big"]) == 2_000_000
    started.wait_log(r"LMCache WARNING: .*CONFIG")


def test_stdin_is_empty_and_no_descriptor_is_inherited(probe) -> None:
    """A plugin has descriptors 0 to 2 and nothing of the engine's, open or inheritable."""
    found, _ = probe(
        prelude="import os; keep = [open('/etc/passwd') for _ in range(50)]\n"
        "[os.set_inheritable(f.fileno(), True) for f in keep]"
    )
    assert found["stdin"] == ""
    fds = {int(fd): target for fd, target in found["fds"].items()}
    assert fds[0] == "/dev/null"
    assert fds[1] == fds[2]
    assert fds[1].startswith("pipe:")
    # The fourth is the probe's own: the directory it lists.
    assert not [target for fd, target in fds.items() if fd > 2 and "/proc/" not in target]


def test_signals_are_at_their_defaults(probe) -> None:
    """Signals that the engine ignores or blocks are neither ignored nor blocked in plugins."""
    found, _ = probe(
        prelude="import signal\n"
        "[signal.signal(s, signal.SIG_IGN) for s in (signal.SIGHUP, signal.SIGTERM,"
        " signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD, signal.SIGRTMIN)]\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2])"
    )
    # Python itself ignores SIGPIPE and SIGXFSZ in the probe. The C library ignores its own
    # signals 32 and 33 in what it spawns, as Python 3.13 has it spawn the engine.
    own = sum(1 << (number - 1) for number in (signal.SIGPIPE, signal.SIGXFSZ, 32, 33))
    assert found["ignored"] & ~own == 0
    assert found["blocked"] == 0


def test_leads_its_own_session_and_group(probe) -> None:
    """Ctrl-C on the engine's terminal does not reach a plugin."""
    found, _ = probe()
    assert found["sid"] == found["pgid"] == found["pid"]


def test_runs_in_the_engine_s_directory(probe, tmp_path) -> None:
    """The working directory is the engine's, as with LMCache's launcher."""
    found, _ = probe()
    assert found["cwd"] == str(tmp_path)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_is_not_pinned_to_the_engine_s_cores(probe) -> None:
    """A pinned engine's plugins may run on every CPU there is."""
    found, _ = probe(prelude="import os; os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])")
    assert set(found["cpus"]) >= os.sched_getaffinity(0)


def test_limits_and_umask_are_the_engine_s(probe) -> None:
    """What the supervisor raises for itself does not reach plugins."""
    found, _ = probe(
        prelude="import os, resource; os.umask(0o027)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(7)[1]))"
    )
    assert found["nofile"][0] == 128
    assert found["umask"] == 0o027


def test_python_is_the_engine_s_and_comes_first_in_path(probe) -> None:
    """A ``.py`` runs with the engine's interpreter, whose directory leads PATH."""
    found, _ = probe(env={"PATH": "/usr/bin:/bin"})
    assert found["executable"] == sys.executable
    assert found["env"]["PATH"] == f"{os.path.dirname(sys.executable)}:/usr/bin:/bin"


def test_arguments_and_variables_of_its_own(probe) -> None:
    """``args`` and ``env`` of one plugin reach that plugin."""
    found, _ = probe(
        settings={"plugins": {"worker_probe": {"args": ["--verbose", "a b"], "env": {"K": "v"}}}}
    )
    assert found["argv"][1:] == ["--verbose", "a b"]
    assert found["env"]["K"] == "v"


def test_hidden_variables(probe) -> None:
    """A plugin lacks them; the contract's, and those of its settings, stay."""
    found, _ = probe(
        settings={"env_hide": ["*SECRET*", "PYTHON*", "LMCACHE_*"]},
        env={"MY_SECRET": "x", "OPEN": "y"},
    )
    assert "MY_SECRET" not in found["env"]
    assert found["env"]["OPEN"] == "y"
    assert found["env"]["PYTHONUNBUFFERED"] == "1"
    assert found["env"]["LMCACHE_RUNTIME_PLUGIN_NAME"] == "worker_probe"


def test_no_new_privileges_without_another_user(probe) -> None:
    """By itself, for an engine of any user."""
    found, _ = probe(settings={"no_new_privs": True})
    assert found["no_new_privs"] == "1"
