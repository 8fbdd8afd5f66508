# SPDX-License-Identifier: Apache-2.0
"""The fixture: what it shows is what happens, and nothing is left behind."""

from __future__ import annotations

import inspect
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lmcache_plugin_adapter.kit import testing as kit_testing
from lmcache_plugin_adapter.kit.testing.setup import engine_process
from lmcache_plugin_adapter.kit.testing.trial import Trial

if TYPE_CHECKING:
    from lmcache_plugin_adapter.kit.testing import RunPlugin

SHELL = "#!/bin/sh\n"


def script(tmp_path: Path, name: str, text: str) -> Path:
    """Write a plugin."""
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_plugin_in_any_language(run_plugin: RunPlugin, tmp_path: Path) -> None:
    """Its lines have their levels; how it ended is known."""
    path = script(tmp_path, "scheduler_x.sh", SHELL + "echo '<4>careful'; echo plain; exit 3")
    plugin = run_plugin(path)
    assert plugin.wait_exit() == 3
    assert plugin.lines == [("warning", "careful"), ("info", "plain")]
    assert plugin.returncode == plugin.stop() == 3
    assert any(report.text.startswith("Started, pid") for report in plugin.reports)


def test_the_authors_directory_stays_as_it_is(run_plugin: RunPlugin, tmp_path: Path) -> None:
    """The engine has a directory of its own."""
    path = script(tmp_path, "scheduler_x.sh", SHELL + "pwd")
    plugin = run_plugin(path)
    assert plugin.wait_exit() == 0
    assert Path(plugin.lines[0].text).is_dir()
    assert list(tmp_path.iterdir()) == [path]


def test_the_type_has_the_arguments() -> None:
    """Those of a trial, with the same defaults, so that type checkers find mistakes."""
    shown = inspect.signature(kit_testing.RunPlugin.__call__).parameters
    real = inspect.signature(Trial.__init__).parameters
    assert list(shown) == [name for name in real if name != "directory"]
    assert all(shown[name].default == real[name].default for name in shown)
    assert all(shown[name].annotation == real[name].annotation for name in shown)


def test_its_process_is_known_and_gone_afterwards(run_plugin: RunPlugin, tmp_path: Path) -> None:
    """Stopped in order, it is told with SIGTERM."""
    path = script(tmp_path, "worker_x.sh", SHELL + "echo ready; exec sleep 600")
    plugin = run_plugin(path, role="worker", worker_id=3, worker_count=8)
    plugin.wait_for("ready")
    assert plugin.pid is not None
    os.kill(plugin.pid, 0)
    assert plugin.returncode is None
    assert plugin.stop() == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(plugin.pid, 0)


def test_the_grace_period_is_kept(run_plugin: RunPlugin, tmp_path: Path) -> None:
    """Then SIGKILL."""
    path = script(
        tmp_path, "worker_x.sh", SHELL + "trap '' TERM; echo ready; while :; do sleep 600; done"
    )
    plugin = run_plugin(path, role="worker", stop_grace=0.3)
    plugin.wait_for("ready")
    assert plugin.stop() == -signal.SIGKILL


def test_the_engine_can_be_killed(run_plugin: RunPlugin, tmp_path: Path) -> None:
    """The plugin hears of it all the same."""
    path = script(
        tmp_path,
        "all_x.sh",
        SHELL + "trap 'echo goodbye; exit 4' TERM; echo ready; sleep 600 & wait $!",
    )
    plugin = run_plugin(path)
    plugin.wait_for("ready")
    plugin.engine.kill()
    assert plugin.wait_exit() == 4
    assert plugin.lines[-1].text == "goodbye"


def test_the_engine_can_be_stuck(run_plugin: RunPlugin, tmp_path: Path) -> None:
    """Stopped by a signal, and it goes on later; the end of the test frees it."""
    path = script(tmp_path, "all_x.sh", SHELL + "echo ready; exec sleep 600")
    plugin = run_plugin(path)
    plugin.wait_for("ready")
    plugin.engine.signal(signal.SIGSTOP)
    assert plugin.returncode is None


def test_lines_can_be_waited_for_and_passed_over(run_plugin: RunPlugin, tmp_path: Path) -> None:
    """By text or by pattern; a line that does not come fails with the log."""
    path = script(
        tmp_path, "all_x.sh", SHELL + "for i in 1 2 3; do echo round $i; done; exec sleep 600"
    )
    plugin = run_plugin(path)
    assert plugin.wait_for(re.compile(r"round [23]")).text == "round 2"
    plugin.wait_for("round 3")
    assert plugin.wait_for("round", since=1).text == "round 2"
    with pytest.raises(AssertionError, match=r"not within 0.1 s: line 'round 9'(.|\n)*round 3"):
        plugin.wait_for("round 9", timeout=0.1)
    with pytest.raises(AssertionError, match="its end"):
        plugin.wait_exit(timeout=0.1)
    plugin.stop()
    with pytest.raises(
        AssertionError, match=r"the plugin has exited \(-15\) without line 'round 9'"
    ):
        plugin.wait_for("round 9", timeout=60)


def test_settings_configuration_and_environment_arrive(
    run_plugin: RunPlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing of LMCache's that the test itself was started with."""
    monkeypatch.setenv("LMCACHE_LOG_LEVEL", "ERROR")
    monkeypatch.setenv("GONE", "1")
    path = script(
        tmp_path,
        "all_x.sh",
        SHELL + 'echo "$HERE$GONE$LMCACHE_LOG_LEVEL"; echo "$LMCACHE_RUNTIME_PLUGIN_CONFIG"',
    )
    extra = {"mine": 1, "runtime_plugins": {"plugins": {"all_x": {"args": ["a"]}}}}
    plugin = run_plugin(
        path,
        config={"chunk_size": 5, "extra_config": extra},
        settings={"interval": 1},
        env={"HERE": "yes", "GONE": None},
    )
    plugin.wait_exit()
    first, second = (line.text for line in plugin.lines)
    assert first == "yes"
    for part in ('"chunk_size": 5', '"mine": 1', '"interval": 1', '"args": ["a"]'):
        assert part in second


def test_a_function_is_run_from_a_file_that_calls_it(run_plugin: RunPlugin) -> None:
    """As an installed plugin would."""
    plugin = run_plugin("platform:machine")
    assert plugin.name == "scheduler_platform"
    assert plugin.wait_exit() == 1  # sys.exit() of a text
    assert plugin.lines[-1].text == os.uname().machine


def test_an_installed_plugin_is_run_by_its_name(run_plugin: RunPlugin) -> None:
    """With settings under that name; without any, this one has nothing to do and says so."""
    plugin = run_plugin("pkg:scheduler_heartbeat", settings={"intervall": 3})
    assert plugin.wait_exit(timeout=30) == 125
    section = "extra_config.runtime_plugins.plugins.scheduler_heartbeat.settings"
    assert f"Unknown setting '{section}.intervall'" in plugin.lines[0].text


def test_several_at_a_time(run_plugin: RunPlugin, tmp_path: Path) -> None:
    """Each with an engine of its own."""
    path = script(tmp_path, "all_x.sh", SHELL + "echo ready; exec sleep 600")
    first, second = run_plugin(path), run_plugin(path, role="worker")
    for plugin in (first, second):
        plugin.wait_for("ready")
    assert first.engine.pid != second.engine.pid
    assert first.stop() == -signal.SIGTERM
    assert second.returncode is None


def test_a_restart_is_followed(run_plugin: RunPlugin, tmp_path: Path) -> None:
    """The last start and the last end count."""
    path = script(tmp_path, "all_x.sh", SHELL + "echo pid $$; exit 1")
    extra = {"runtime_plugins": {"backoff": {"initial": 0.01}}}
    plugin = run_plugin(path, restart="on-failure", config={"extra_config": extra})
    plugin.wait_for("pid", since=2)
    assert len({line.text for line in plugin.lines}) >= 3


@pytest.mark.parametrize("plugin", ["no_such_file.py", "."])
def test_a_file_that_is_not_there_is_named(run_plugin: RunPlugin, plugin: str) -> None:
    """Before anything is started."""
    with pytest.raises(FileNotFoundError, match=re.escape(plugin)):
        run_plugin(plugin)


@pytest.mark.parametrize(
    ("file", "role", "worker_id", "reason"),
    [
        ("worker_x.sh", "scheduler", -1, "'worker_x.sh' runs on every worker, not on scheduler"),
        ("worker_2_x.sh", None, 1, "'worker_2_x.sh' runs on worker 2, not on worker 1"),
        ("scheduler_0_x.sh", None, -1, "a scheduler has no worker id.*name it 'scheduler_x.sh'"),
        ("x.sh", None, -1, "cannot run 'x.sh': its name starts with no role"),
        ("pkg:wroker_x", None, -1, "cannot run 'wroker_x': .*name it 'worker_x'"),
    ],
)
def test_a_plugin_that_does_not_run_there_fails_at_once(
    file: str, role: str | None, worker_id: int, reason: str
) -> None:
    """The text says what to do."""
    with pytest.raises(ValueError, match=reason):
        engine_process(file, role, worker_id, 1)


@pytest.mark.parametrize(
    ("file", "role", "label"),
    [
        ("worker_x.sh", None, "worker 0"),
        ("pkg:worker_x", None, "worker 0"),
        ("worker_2_x.sh", None, "worker 2"),
        ("/plugins/all_3_x.sh", None, "worker 3"),
        ("worker_2_x.sh", "worker", "worker 2"),
        ("all_x.py", None, "scheduler"),
        ("all_x.py", "WORKER", "worker 0"),
        ("server_x.py", None, "server"),
        ("all_x.py", "server", "server"),
    ],
)
def test_the_name_selects_the_engine_process(file: str, role: str | None, label: str) -> None:
    """As ``lmcache-plugins run FILE`` does."""
    identity = engine_process(file, role, -1, 1)
    assert identity.label == label
    assert identity.worker_count > identity.worker_id


def test_a_worker_needs_no_role(run_plugin: RunPlugin, tmp_path: Path) -> None:
    """Its engine is the worker of its name."""
    path = script(tmp_path, "worker_1_x.sh", SHELL + "echo $LMCACHE_RUNTIME_PLUGIN_WORKER_ID")
    assert run_plugin(path).wait_for("1")


def test_what_does_not_end_is_killed_and_fails_the_test(
    run_plugin: RunPlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a supervisor that hangs: it goes, and its plugin with it."""
    from lmcache_plugin_adapter.kit.testing import trial

    path = script(tmp_path, "all_x.sh", SHELL + "echo ready; exec sleep 600")
    plugin = run_plugin(path, stop_grace=0.2)
    plugin.wait_for("ready")
    (supervisor,) = plugin._supervisors()
    os.kill(supervisor, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(trial, "_STOP_SECONDS", 1.0)
        with pytest.raises(AssertionError, match=r"still running 1\.2 s after SIGTERM"):
            plugin.stop()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{plugin.pid}/cwd").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_fixture_comes_with_the_package(pytestconfig: Any) -> None:
    """As a plugin of pytest, by its entry point."""
    assert pytestconfig.pluginmanager.has_plugin("lmcache_plugins")
