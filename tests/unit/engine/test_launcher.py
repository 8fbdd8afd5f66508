# SPDX-License-Identifier: Apache-2.0
"""The launcher in its engine: constant cost, one copy of each plugin, no exception."""

from __future__ import annotations

import enum
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from harness import build_hang_shim, gone, wait_until

from lmcache_plugin_adapter import RuntimePluginLauncher
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.contract.launch_spec import LaunchSpec
from lmcache_plugin_adapter.linux.procfs import ProcessTable


class Connector(enum.Enum):
    """An enum with numbers as values, as in vLLM."""

    SCHEDULER = 0
    WORKER = 1


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("scheduler", Role.SCHEDULER),
        ("Worker", Role.WORKER),
        ("SERVER", Role.SERVER),
        (Connector.WORKER, Role.WORKER),
        ("KVConnectorRole.SCHEDULER", Role.SCHEDULER),
        (Role.WORKER, Role.WORKER),
        (None, None),
        ("", None),
    ],
)
def test_roles(role, expected) -> None:
    """A role is a string in any case, an enum, or None."""
    assert RuntimePluginLauncher(object(), role, 2, 1).identity.role is expected


def test_unknown_role_names_what_is_accepted() -> None:
    """The error names the accepted roles."""
    with pytest.raises(ValueError, match="unknown role 'driver': accepted are 'scheduler', "):
        RuntimePluginLauncher(object(), "driver", 1, 0)


def test_spec_survives_the_way() -> None:
    """The supervisor reads the spec that the engine wrote, undecodable bytes included."""
    spec = LaunchSpec(
        ProcessIdentity(Role.WORKER, 1, 4, 1, 2),
        ["/plugins", os.fsdecode(b"/odd\xff")],
        '{"a": "\\n\u00e9"}',
        42,
        "run",
        "/python",
        (("warning", "odd"),),
    )
    assert LaunchSpec.from_bytes(spec.to_bytes()) == spec


@pytest.mark.parametrize("data", [b"", b"{}", b"{}\n", b"[]\n{}", b'{"identity": 1}\n'])
def test_broken_spec_is_refused(data) -> None:
    """Any other data is a ``ValueError``."""
    with pytest.raises(ValueError, match="spec"):
        LaunchSpec.from_bytes(data)


def test_launching_twice_runs_one_copy(plugin, engine) -> None:
    """Each file runs once, with any number of launches and launchers of one role."""
    plugin("all_x.sh", "echo up; exec sleep 60")
    one = engine()
    one.do(
        "others = [RuntimePluginLauncher(config, 'WORKER', 1, 0) for _ in range(3)]\n"
        "[each.launch_plugins() for each in [launcher, *others] for _ in range(3)]"
    )
    one.wait_log(r"\] up ")
    assert one.log().count("Started") == 1


def test_two_roles_in_one_process(plugin, engine) -> None:
    """A process that is scheduler and worker runs and stops each role's plugins."""
    plugin("all_x.sh", "echo as $LMCACHE_RUNTIME_PLUGIN_ROLE; exec sleep 60")
    one = engine(role="worker")
    one.do("other = RuntimePluginLauncher(config, 'scheduler', 1, 0); other.launch_plugins()")
    one.wait_log(r"\] as WORKER ")
    one.wait_log(r"\] as SCHEDULER ")
    one.do("other.stop_plugins()")
    assert len(one.do("launcher.status(10)['plugins']")) == 1
    assert one.do("other.status()") is None


def test_launch_after_stop_starts_again(plugin, engine) -> None:
    """A stopped launcher can launch again."""
    plugin("all_x.sh", "echo up; exec sleep 60")
    one = engine()
    one.wait_log(r"\] up ")
    one.do("launcher.stop_plugins(); launcher.launch_plugins()")
    one.wait_for(lambda: one.log().count("] up ") == 2)


def test_status_without_a_launch_is_none() -> None:
    """A launcher without a launch has no status; its stop does nothing."""
    launcher = RuntimePluginLauncher(object(), "worker", 1, 0)
    assert launcher.status() is None
    launcher.stop_plugins()


@pytest.mark.parametrize("locations", [None, [], ""])
def test_without_locations_nothing_is_started(engine, locations) -> None:
    """Without locations, no process starts."""
    one = engine(locations=locations or [])
    assert one.do("launcher.launch_plugins()") is True
    assert one.do("launcher.status()") is None
    assert one.log() == ""


def test_switched_off_nothing_is_started(plugin, engine) -> None:
    """With ``enabled: false``, no process starts."""
    plugin("all_x.sh", "exec sleep 60")
    one = engine({"enabled": False})
    assert one.do("launcher.status()") is None


def test_locations_of_the_settings_are_enough(plugin, plugins, engine) -> None:
    """``extra_config.runtime_plugins.locations`` counts where LMCache's key is empty."""
    plugin("all_x.sh", "echo up; exec sleep 60")
    engine({"locations": [str(plugins)]}, locations=[]).wait_log(r"\] up ")


def test_role_none_filters_nothing(plugin, engine) -> None:
    """Without a role, each file runs and gets an empty role."""
    for name in ("scheduler_a.sh", "worker_7_b.sh", "all_c.sh"):
        plugin(name, 'echo "role=[$LMCACHE_RUNTIME_PLUGIN_ROLE]"; exec sleep 60')
    one = engine(role=None)
    one.wait_for(lambda: one.log().count("role=[]") == 3)


def test_configuration_that_cannot_be_json(plugin, engine) -> None:
    """If ``to_json()`` raises, plugins get a smaller configuration, and a warning is logged."""
    plugin("all_x.sh", 'echo "$LMCACHE_RUNTIME_PLUGIN_CONFIG"; exec sleep 60')
    one = engine(prelude="def fail(): raise TypeError('a set is no JSON')\nconfig.to_json = fail")
    one.wait_log(r"WARNING: .*Cannot turn LMCache's configuration into JSON.*a set is no JSON")
    match = one.wait_log(r'\[all_x\] (\{"runtime_plugin_locations".*\}) \(')
    assert "extra_config" in json.loads(match[1])


def test_no_interpreter_is_said_and_raises_nothing(plugin, engine) -> None:
    """Where no supervisor can be started, launching returns False and logs one line."""
    plugin("all_x.sh", "exec sleep 60")
    one = engine(launch=False)
    assert (
        one.do("setattr(__import__('sys'), 'executable', '/none') or launcher.launch_plugins()")
        is False
    )
    assert one.log().count("Cannot launch runtime plugins: cannot start the supervisor") == 1
    assert (
        one.do("setattr(__import__('sys'), 'executable', '') or launcher.launch_plugins()") is False
    )


def test_launch_does_not_wait_for_discovery(plugin, engine) -> None:
    """Launching returns before the search, so 1,000 plugins cost the engine what one does."""
    for number in range(1000):
        plugin(f"scheduler_{chr(97 + number % 26)}{number}.sh", "")
    one = engine(launch=False)
    one.do(
        "from time import perf_counter\n"
        "seconds = []\n"
        "for each in (RuntimePluginLauncher(config, 'worker', 3, rank) for rank in range(3)):\n"
        "    began = perf_counter()\n"
        "    each.launch_plugins()\n"
        "    seconds.append(perf_counter() - began)"
    )
    assert min(one.do("seconds")) < 1.0


def test_engine_keeps_no_child_and_one_thread(plugin, engine) -> None:
    """The engine has one more thread and no child; after the stop, no more thread."""
    plugin("all_x.sh", "echo up; exec sleep 60")
    one = engine()
    one.wait_log(r"\] up ")

    one.do("None")  # it has launched
    children = Path(f"/proc/{one.pid}/task/{one.pid}/children")
    one.wait_for(lambda: children.read_text() == "", what="no child")
    assert ProcessTable().with_descendants([one.pid]) == {one.pid}
    assert len(os.listdir(f"/proc/{one.pid}/task")) == 2
    one.wait_for(
        lambda: one.do("launcher._keeper.connection.pidfd") >= 0, what="the supervisor is known"
    )
    descriptors = len(os.listdir(f"/proc/{one.pid}/fd"))
    for _ in range(5):
        one.do("launcher.stop_plugins(); launcher.launch_plugins()")
        one.wait_for(lambda: one.do("bool((launcher.status() or {}).get('plugins'))"))
    one.wait_for(lambda: len(os.listdir(f"/proc/{one.pid}/fd")) <= descriptors)
    one.do("launcher.stop_plugins()")
    one.wait_for(lambda: len(os.listdir(f"/proc/{one.pid}/task")) == 1)


def test_stop_from_a_signal_handler_and_from_threads(plugin, engine) -> None:
    """A stop is safe from a signal handler and from several threads at once."""
    plugin("all_x.sh", "echo up; exec sleep 60")
    one = engine()
    one.wait_log(r"\] up ")
    pid = one.plugin_pid("all_x")
    one.do(
        "import signal, threading, os\n"
        "signal.signal(signal.SIGUSR1, lambda *_: launcher.stop_plugins())\n"
        "threads = [threading.Thread(target=launcher.stop_plugins) for _ in range(4)]\n"
        "[t.start() for t in threads]; os.kill(os.getpid(), signal.SIGUSR1)\n"
        "[t.join() for t in threads]"
    )
    assert gone(pid)


@pytest.mark.parametrize("wait", [True, False], ids=["waited for", "not waited for"])
def test_nothing_stays_open_after_a_stop(plugin, engine, wait) -> None:
    """The engine has as many descriptors as before its first launch."""
    plugin("all_x.sh", "echo up; exec sleep 60")
    one = engine(launch=False)
    count = f"len(__import__('os').listdir('/proc/{one.pid}/fd'))"
    before = one.do(count)
    one.do("launcher.launch_plugins()")
    one.wait_log(r"\] up ")
    assert one.do(count) > before
    one.do(f"launcher.stop_plugins(wait={wait})")
    one.wait_for(lambda: one.do(count) == before, what="no descriptor more")
    one.do("launcher.stop_plugins()")
    assert one.do("launcher.status()") is None


NO_WATCHER = """\
from lmcache_plugin_adapter.engine import supervisor_keeper
def refused(*_): raise RuntimeError("can't start new thread")
supervisor_keeper.start_new_thread = refused
"""


@pytest.mark.parametrize("prelude", ["", NO_WATCHER], ids=["watched", "unwatched"])
def test_engine_that_a_broken_pipe_kills(plugin, engine, prelude) -> None:
    """With SIGPIPE at its default, a request to an exited supervisor does not kill the engine."""
    plugin("all_x.sh", "echo up; exec sleep 60")
    one = engine(prelude=f"import signal\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)\n{prelude}")
    one.wait_log(r"\] up ")
    supervisor = one.supervisor()
    os.kill(supervisor, signal.SIGTERM)
    wait_until(lambda: gone(supervisor))
    assert one.do("launcher.status()") is None
    one.do("launcher.stop_plugins()")
    assert one.close() == 0


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_hung_location_holds_neither_engine_nor_other_plugins(plugin, engine, tmp_path) -> None:
    """The log names the hung directory; its plugins run once it answers, the others before."""
    plugin("all_x.sh", "echo up; exec sleep 60")
    hung = tmp_path / "hung"
    hung.mkdir()
    (hung / "all_late.sh").write_text("echo late; exec sleep 60")
    one = engine(
        locations=[str(hung), str(tmp_path / "plugins")],
        env={
            "LD_PRELOAD": build_hang_shim(tmp_path),
            "HUNG_DIRECTORY": str(hung),
            "ANSWERS": str(tmp_path / "answers"),
        },
    )
    one.wait_log(r"WARNING: \[lmcache-plugins\] Location '.*/hung' does not answer")
    one.wait_log(r"\[all_x\] up ")
    (tmp_path / "answers").touch()
    one.wait_log(r"\[all_late\] late ")
    assert one.log().count("[all_x] Started") == 1
