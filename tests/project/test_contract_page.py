# SPDX-License-Identifier: Apache-2.0
"""The tables of ``docs/plugin-authors/contract.md`` are right, row by row."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from cli_under_test import ROOT, Running

from lmcache_plugin_adapter.configuration.variables_table import VARIABLES_SET
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.contract.variables import OLDER_NAMES
from lmcache_plugin_adapter.planner.file_names import PluginName, parse_name, runs_on

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (ROOT / "docs" / "plugin-authors" / "contract.md").read_text()
PROCESSES = {
    "the scheduler": ProcessIdentity(Role.SCHEDULER, -1, 2),
    "worker 0": ProcessIdentity(Role.WORKER, 0, 2),
    "worker 1": ProcessIdentity(Role.WORKER, 1, 2),
}
PLACES = {
    "the scheduler": {"the scheduler"},
    "worker 0": {"worker 0"},
    "every worker": {"worker 0", "worker 1"},
    "the scheduler and every worker": set(PROCESSES),
    "nowhere": set(),
}


def rows(mark: str) -> list[tuple[str, str]]:
    """Return the rows of the table below a mark, the first cell without backticks."""
    table = PAGE.split(f"<!-- test: {mark} -->\n\n")[1].split("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [(name.strip("`"), value) for name, value in cells[2:]]


@pytest.mark.parametrize(("file", "where"), rows("names"))
def test_names(file: str, where: str) -> None:
    """Each example runs on the processes of the page, and on no others."""
    name = parse_name(file)
    runs = {
        place
        for place, identity in PROCESSES.items()
        if isinstance(name, PluginName) and runs_on(name, identity)
    }
    where, _, reason = where.partition(":")
    assert runs == PLACES[where]
    suggested = re.search(r"suggests `(.+)`", reason)
    if suggested:
        assert not isinstance(name, PluginName)
        assert name.suggestion == suggested[1]


def test_environment_and_levels(tmp_path: Path) -> None:
    """A plugin gets the documented variables and no others; levels are as on the page."""
    levels = rows("levels")
    marks = "".join(f"echo '{'' if mark == 'none' else mark}level {mark}'\n" for mark, _ in levels)
    (tmp_path / "worker_0_x.sh").write_text(f"env > {tmp_path}/env\n{marks}")
    config = tmp_path / "lmcache.yaml"
    config.write_text(
        json.dumps({"runtime_plugin_locations": [str(tmp_path)], "extra_config": {"a": 1}})
    )
    with Running(tmp_path, "-c", config, "--tp", "2") as running:
        running.until_logged("level none")
        assert running.stop() == 0
        log = running.log
    for mark, level in levels:
        assert f"LMCache {level}: [worker_0_x] level {mark} (" in log
    lines = (tmp_path / "env").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    ours = {name for name in found if name.startswith(("LMCACHE_RUNTIME_", "LMCACHE_PLUGIN_"))}
    documented = {row.name for row in VARIABLES_SET} | set(OLDER_NAMES.values())
    absent = {"LMCACHE_RUNTIME_PLUGIN_PROMETHEUS_MULTIPROC_DIR"}  # the engine has none
    assert ours == {name for name in documented if name.startswith("LMCACHE_")} - absent
    for newer, name in OLDER_NAMES.items():
        assert found[name] == found[newer]
    assert found["LMCACHE_RUNTIME_PLUGIN_ROLE"] == "WORKER"
    assert found["LMCACHE_RUNTIME_PLUGIN_WORKER_ID"] == "0"
    assert found["LMCACHE_RUNTIME_PLUGIN_WORKER_COUNT"] == "2"
    assert found["PYTHONUNBUFFERED"] == "1"
