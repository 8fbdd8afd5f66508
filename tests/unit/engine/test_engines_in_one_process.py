# SPDX-License-Identifier: Apache-2.0
"""Several engines in one process, as with several ``LLM`` objects: plugins end with the last."""

from __future__ import annotations

import pytest
from harness import alive, gone

SECOND = "second = RuntimePluginLauncher(config, 'worker', 1, 0); second.launch_plugins()"


@pytest.mark.parametrize(("first", "last"), [("launcher", "second"), ("second", "launcher")])
def test_plugins_end_with_the_last_engine(plugin, engine, first: str, last: str) -> None:
    """Whichever engine closes first, and however often it is closed."""
    plugin("all_x.sh", "echo up; exec sleep 600")
    one = engine()
    pid = one.plugin_pid("all_x")
    one.do(SECOND)
    one.do(f"{first}.stop_plugins(); {first}.stop_plugins(wait=False); {first}.stop_plugins()")
    assert alive(pid)
    assert one.status()["pid"] == pid
    one.do(f"{last}.stop_plugins()")
    assert gone(pid)
    assert one.log().count("Started") == 1


def test_an_engine_that_launches_twice_counts_once(plugin, engine) -> None:
    """A launcher is one user, however often it launches."""
    plugin("all_x.sh", "exec sleep 600")
    one = engine()
    pid = one.plugin_pid("all_x")
    one.do("launcher.launch_plugins(); launcher.launch_plugins(); launcher.stop_plugins()")
    assert gone(pid)


def test_an_engine_that_comes_after_the_last_one_starts_plugins(plugin, engine) -> None:
    """Engines one after the other, each with its own run."""
    plugin("all_x.sh", "exec sleep 600")
    one = engine()
    first = one.plugin_pid("all_x")
    one.do(f"launcher.stop_plugins(); {SECOND}")
    one.wait_for(lambda: one.log().count("Started") == 2, 30)
    second = one.plugin_pid("all_x")
    assert gone(first)
    one.do("launcher.stop_plugins()")  # it has none any more
    assert alive(second)
    one.do("second.stop_plugins()")
    assert gone(second)


def test_engines_that_close_at_once(plugin, engine) -> None:
    """Each in its own thread: the plugins end, and end once."""
    plugin("all_x.sh", "trap 'echo goodbye; exit' TERM; echo up; sleep 600 & wait")
    one = engine()
    one.wait_log(r"\] up ")
    pid = one.plugin_pid("all_x")
    one.do(
        "import threading\n"
        "others = [RuntimePluginLauncher(config, 'worker', 1, 0) for _ in range(16)]\n"
        "[each.launch_plugins() for each in others]\n"
        "threads = [threading.Thread(target=each.stop_plugins) for each in [launcher, *others]]\n"
        "[each.start() for each in threads]; [each.join() for each in threads]"
    )
    assert gone(pid)
    assert one.texts("all_x").count("goodbye") == 1


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"runtime_plugin_locations": ["/elsewhere"]}, "runtime_plugin_locations"),
        (
            {"extra_config": {"runtime_plugins": {"stop_grace": 1}}},
            "extra_config.runtime_plugins.stop_grace",
        ),
        ({"extra_config": {"runtime_plugins": {}, "port": 1}}, "extra_config.port"),
    ],
)
def test_a_second_engine_with_other_settings_is_one_warning(
    plugin, engine, values: dict[str, object], named: str
) -> None:
    """It names what has no effect; the first engine's plugins serve both."""
    plugin("all_x.sh", "exec sleep 600")
    one = engine()
    pid = one.plugin_pid("all_x")
    one.do(
        "import logging\n"
        "lines = []\n"
        "class Handler(logging.Handler):\n"
        "    def emit(self, record): lines.append((record.levelname, record.getMessage()))\n"
        "logging.getLogger('lmcache_plugin_adapter').addHandler(Handler())\n"
        f"values = {{**config.values, **{values!r}}}\n"
        "second = RuntimePluginLauncher(type(config)(values), 'worker', 1, 0)\n"
        "second.launch_plugins(); second.launch_plugins()"
    )
    ((level, text),) = one.do("lines")
    assert level == "WARNING"
    assert named in text
    one.do("launcher.stop_plugins()")
    assert alive(pid)
    one.do("second.stop_plugins()")
    assert gone(pid)


def test_a_fork_of_the_engine_leaves_the_count_alone(plugin, engine) -> None:
    """What a forked child closes, the engine has still."""
    plugin("all_x.sh", "exec sleep 600")
    one = engine()
    pid = one.plugin_pid("all_x")
    one.do(
        "import os\nchild = os.fork()\n"
        "if not child:\n    launcher.stop_plugins(); os._exit(0)\n"
        "os.waitpid(child, 0)"
    )
    assert alive(pid)
    one.do(SECOND)
    one.do("second.stop_plugins()")
    assert alive(pid)
