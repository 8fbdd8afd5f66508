# SPDX-License-Identifier: Apache-2.0
"""Locations that were given to LMCache's server keep LMCache's rule; ours keep roles."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_under_test import command
from harness import Engine

MODULE = """
import types
from lmcache_plugin_adapter.server_module import build_server_modules

def build(given, locations):
    runtime = types.SimpleNamespace(locations=list(locations), extra_config={})
    config = types.SimpleNamespace(runtime_plugin_config=runtime)
    context = types.SimpleNamespace(
        server_context=None, mp_config=config, coordinator_config=None, modules=(), config=given)
    return build_server_modules(context), runtime
"""
# As LMCache's own examples are named, and each role word.
EXAMPLES = ("mp_plugin.sh", "mp_heartbeat.sh", "worker_0_x.sh", "scheduler_x.sh", "server_x.sh")
TEXT = """\
trap 'echo goodbye; exit' TERM
echo "up as <$LMCACHE_RUNTIME_PLUGIN_ROLE>"
sleep 600 & wait
"""


def write(directory: Path, *names: str) -> str:
    """Write plugins and return their directory."""
    directory.mkdir(exist_ok=True)
    for name in names:
        (directory / name).write_text(TEXT)
    return str(directory)


@pytest.fixture
def server(engine: Callable[..., Engine]) -> Callable[..., Engine]:
    """Return a function that starts a server with our module."""

    def start(given: dict[str, Any], *locations: str) -> Engine:
        one = engine(launch=False, prelude=MODULE)
        one.do(f"module, runtime = build({given!r}, {list(locations)!r})")
        assert one.do("runtime.locations") == []
        return one

    return start


def running(one: Engine, number: int) -> dict[str, str]:
    """Return the role that each plugin was told, once so many run."""
    one.wait_for(lambda: one.log().count("] up as <") >= number, 30)

    def known() -> list[str]:
        plugins = one.do("module.report_status()['runtime_plugins']['plugins']")
        return [plugin["name"] for plugin in plugins if plugin["state"] == "running"]

    one.wait_for(lambda: len(known()) == number, 30, "all in the status")
    return {name: one.texts(name)[0].split("<")[1].rstrip(">") for name in known()}


def test_every_file_of_lmcaches_locations_runs(
    server: Callable[..., Engine], tmp_path: Path
) -> None:
    """Whatever the role word in its name; no file is told a role."""
    one = server({}, write(tmp_path / "theirs", *EXAMPLES))
    assert running(one, 5) == {name.removesuffix(".sh"): "" for name in EXAMPLES}
    one.do("module.close()")
    one.wait_for(lambda: one.log().count("] goodbye ") == 5, 30)


def test_both_kinds_side_by_side(server: Callable[..., Engine], tmp_path: Path) -> None:
    """Each keeps its rule, one status shows both, and both stop with the server."""
    theirs = write(tmp_path / "theirs", "mp_plugin.sh", "worker_x.sh")
    ours = write(tmp_path / "ours", "server_y.sh", "worker_y.sh", "all_y.sh")
    one = server({"runtime_plugin_locations": [ours, theirs]}, theirs)
    assert running(one, 4) == {
        "mp_plugin": "",
        "worker_x": "",
        "server_y": "SERVER",
        "all_y": "SERVER",
    }
    one.do("module.close()")
    one.wait_for(lambda: one.log().count("] goodbye ") == 4, 30)
    assert one.log().count("] Started,") == 4


def test_the_setting_decides_for_all(server: Callable[..., Engine], tmp_path: Path) -> None:
    """With ``filter_by_role: true`` roles count everywhere."""
    theirs = write(tmp_path / "theirs", *EXAMPLES)
    one = server({"runtime_plugins": {"filter_by_role": True}}, theirs)
    assert running(one, 1) == {"server_x": "SERVER"}
    for name in ("mp_plugin.sh", "mp_heartbeat.sh"):
        assert name in os.listdir(theirs)


def test_a_file_that_is_left_out_is_one_warning(
    server: Callable[..., Engine], tmp_path: Path
) -> None:
    """LMCache runs helper modules as well; the line has the name to give them."""
    theirs = write(tmp_path / "theirs", "mp_plugin.sh", "_helper.sh", ".hidden.py")
    one = server({}, theirs)
    running(one, 1)
    for name, right in (("_helper.sh", "helper.sh"), (".hidden.py", "hidden.py")):
        one.wait_log(rf"WARNING: .*/{name}' does not run: .* name it '{right}'", 30)
        assert one.log().count(f"/{name}'") == 1


def checked(tmp_path: Path, *arguments: str) -> dict[str, str]:
    """Return the status of each file by ``check --server``."""
    result = command("check", "--server", "--json", *arguments, cwd=tmp_path)
    report = json.loads(result.stdout)
    return {os.path.basename(file["path"]): file["status"] for file in report["files"]}


def test_check_says_the_same(tmp_path: Path) -> None:
    """With the server's option beside the module's configuration, or without one."""
    theirs = write(tmp_path / "theirs", "mp_plugin.sh", "worker_x.sh", "_helper.sh")
    ours = write(tmp_path / "ours", "server_y.sh", "worker_y.sh")
    option = ("--runtime-plugin-locations", theirs)
    first = {"mp_plugin.sh": "runs", "worker_x.sh": "runs", "_helper.sh": "ignored"}
    assert checked(tmp_path, *option) == first
    (tmp_path / "module.json").write_text(json.dumps({"runtime_plugin_locations": [ours]}))
    both = checked(tmp_path, *option, "-c", "module.json")
    assert both == {**first, "server_y.sh": "runs", "worker_y.sh": "elsewhere"}
    table = command("check", "--server", *option, cwd=tmp_path).stdout
    assert "name it 'helper.sh'" in " ".join(table.split())
