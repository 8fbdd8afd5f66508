# SPDX-License-Identifier: Apache-2.0
"""The context: what the environment says, typed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.contract.launch_spec import LaunchSpec
from lmcache_plugin_adapter.planner.plugin_environment import plugin_environment

if TYPE_CHECKING:
    from pathlib import Path

    from lmcache_plugin_adapter.kit.testing.trial import Trial

FULL = {
    "LMCACHE_RUNTIME_PLUGIN_ROLE": "WORKER",
    "LMCACHE_RUNTIME_PLUGIN_WORKER_ID": "3",
    "LMCACHE_RUNTIME_PLUGIN_WORKER_COUNT": "8",
    "LMCACHE_RUNTIME_PLUGIN_DP_RANK": "1",
    "LMCACHE_RUNTIME_PLUGIN_DP_SIZE": "2",
    "LMCACHE_RUNTIME_PLUGIN_ENGINE_PID": "4711",
    "LMCACHE_RUNTIME_PLUGIN_NAME": "worker_x",
    "LMCACHE_RUNTIME_PLUGIN_CONFIG": '{"chunk_size": 256}',
}


def read(environ: dict[str, str], path: str = "/p/worker_x.py") -> kit.Context:
    """Read a context out of an environment."""
    return kit.Context.from_environ(environ, path)


def test_every_variable_has_its_place() -> None:
    """With its type."""
    ctx = read(FULL)
    assert (ctx.role, ctx.worker_id, ctx.worker_count) == ("WORKER", 3, 8)
    assert (ctx.dp_rank, ctx.dp_size, ctx.engine_pid) == (1, 2, 4711)
    assert (ctx.name, ctx.host) == ("worker_x", os.uname().nodename)
    assert ctx.config == {"chunk_size": 256}
    assert ctx.label == "dp 1 worker 3"


@pytest.mark.parametrize(
    ("role", "worker_id", "dp_size", "label"),
    [
        (Role.SCHEDULER, -1, 1, "scheduler"),
        (Role.WORKER, 2, 1, "worker 2"),
        (Role.WORKER, 2, 4, "dp 0 worker 2"),
        (Role.SERVER, 0, 1, "server"),
        (None, 0, 1, "engine"),
    ],
)
def test_it_reads_what_the_supervisor_writes(
    role: Role | None, worker_id: int, dp_size: int, label: str
) -> None:
    """The label is the one that the log has."""
    identity = ProcessIdentity(role, worker_id, 4, 0, dp_size)
    spec = LaunchSpec(identity, None, '{"a": 1}', 4711, "run", "/usr/bin/python3")
    variables, _ = plugin_environment(spec, {}, None)
    ctx = read({name: value for name, value in variables.items() if value is not None})
    assert ctx.label == identity.label == label
    assert (ctx.worker_id, ctx.worker_count, ctx.dp_size) == (worker_id, 4, dp_size)
    assert ctx.engine_pid == 4711
    assert ctx.config["a"] == 1


def test_the_older_names_do() -> None:
    """LMCache's own launcher says no more than these, and says the role in its own case."""
    older = {
        "LMCACHE_PLUGIN_ROLE": "scheduler",
        "LMCACHE_PLUGIN_WORKER_ID": "-1",
        "LMCACHE_PLUGIN_WORKER_COUNT": "2",
        "LMCACHE_PLUGIN_CONFIG": "{}",
    }
    ctx = read(older, "/p/scheduler_y.py")
    assert (ctx.role, ctx.worker_id, ctx.worker_count) == ("SCHEDULER", -1, 2)
    assert (ctx.name, ctx.engine_pid, ctx.dp_size) == ("scheduler_y", None, 1)
    assert ctx.label == "scheduler"


def test_without_an_engine_it_says_how_to_try_the_plugin() -> None:
    """In one line."""
    with pytest.raises(kit.ContextError, match=r"not started by LMCache.*lmcache-plugins run"):
        read({})


def test_a_number_that_is_none_is_named() -> None:
    """With its variable."""
    with pytest.raises(kit.ContextError, match=r"RUNTIME_PLUGIN_WORKER_ID: found 'x'"):
        read({**FULL, "LMCACHE_RUNTIME_PLUGIN_WORKER_ID": "x"})


def test_the_configuration_is_taken_from_the_file_first(tmp_path: Path) -> None:
    """The variable may hold a part only."""
    path = tmp_path / "config.json"
    path.write_text('{"whole": true}')
    ctx = read({**FULL, "LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE": str(path)})
    assert ctx.config == {"whole": True}
    path.unlink()
    assert ctx.config == {"whole": True}  # read once
    assert read({**FULL, "LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE": str(path)}).config == {
        "chunk_size": 256
    }


def test_no_configuration_is_an_empty_one() -> None:
    """Neither variable is promised."""
    environ = {k: v for k, v in FULL.items() if not k.endswith("CONFIG")}
    assert read(environ).config == {}
    assert read(environ).raw_settings == {}


@pytest.mark.parametrize("text", ["{", "[1]", "null", "\ufffd"])
def test_a_configuration_that_cannot_be_read_is_named(text: str) -> None:
    """When it is asked for, and not before."""
    ctx = read({**FULL, "LMCACHE_RUNTIME_PLUGIN_CONFIG": text})
    with pytest.raises(kit.ContextError, match="cannot read LMCACHE_RUNTIME_PLUGIN_CONFIG"):
        ctx.config  # noqa: B018 - that is the question


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("worker_x", {"by": "stem"}),
        ("worker_x.py", {"by": "file name"}),
        ("a/worker_x.py", {"by": "path below the location"}),
    ],
)
def test_the_settings_are_found_as_the_supervisor_finds_them(
    key: str, settings: dict[str, str]
) -> None:
    """By the most specific name."""
    names = ["worker_x", "worker_x.py", "a/worker_x.py"]
    plugins = {name: {"settings": {"by": "other"}} for name in names[: names.index(key)]}
    plugins[key] = {"settings": settings}
    config = {"extra_config": {"runtime_plugins": {"plugins": plugins}}}
    environ = {**FULL, "LMCACHE_RUNTIME_PLUGIN_CONFIG": json.dumps(config)}
    assert read(environ, "/etc/plugins/a/worker_x.py").raw_settings == settings


@pytest.mark.parametrize("section", [3, "text", [1]])
def test_a_section_that_is_no_mapping_is_said(section: Any, capsys: Any) -> None:
    """And has no effect."""
    plugins = {"worker_x": {"settings": section}}
    config = {"extra_config": {"runtime_plugins": {"plugins": plugins}}}
    ctx = read({**FULL, "LMCACHE_RUNTIME_PLUGIN_CONFIG": json.dumps(config)})
    assert ctx.raw_settings == {}
    assert capsys.readouterr().out.startswith(
        "<3>Cannot use setting 'extra_config.runtime_plugins.plugins.worker_x.settings': found"
    )


PLUGIN = """\
import json, sys
from lmcache_plugin_adapter import kit
ctx = kit.context()
names = "role worker_id worker_count dp_rank dp_size engine_pid name label".split()
print(json.dumps({name: getattr(ctx, name) for name in names}))
print(json.dumps([ctx.config["chunk_size"], ctx.raw_settings]))
"""


def test_a_real_plugin_has_it(run_plugin: Any, tmp_path: Path) -> None:
    """Under a real supervisor."""
    path = tmp_path / "worker_2_real.py"
    path.write_text(PLUGIN)
    plugin: Trial = run_plugin(
        path,
        role="worker",
        worker_id=2,
        worker_count=4,
        config={"chunk_size": 64},
        settings={"deep": {"a": [1]}},
    )
    assert plugin.wait_exit() == 0
    first, second = (json.loads(line.text) for line in plugin.lines)
    assert first == {
        "role": "WORKER",
        "worker_id": 2,
        "worker_count": 4,
        "dp_rank": 0,
        "dp_size": 1,
        "engine_pid": plugin.engine.pid,
        "name": "worker_2_real",
        "label": "worker 2",
    }
    assert second == [64, {"deep": {"a": [1]}}]


def test_why_it_ends_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    """Before, there is nothing to read; nor where no file is named."""
    path = tmp_path / "ending"
    ctx = read({**FULL, "LMCACHE_RUNTIME_PLUGIN_ENDING_FILE": str(path)})
    assert ctx.ending == ""
    path.write_text("died\n")
    assert ctx.ending == "died"
    assert read(FULL).ending == ""
