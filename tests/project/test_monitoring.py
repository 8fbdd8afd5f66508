# SPDX-License-Identifier: Apache-2.0
"""Alert rules and dashboard use metrics that exist, in queries that Prometheus accepts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmcache_plugin_adapter.contract.plugin_states import State
from lmcache_plugin_adapter.supervisor.metrics import series

MONITORING = Path(__file__).parents[2] / "configs" / "monitoring"
PROMTOOL = shutil.which("promtool")
NAMES = {f"{name}_total" if name in series.COUNTERS else name for name in series.HELP}

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian: apt-get install prometheus)"
)


def rules() -> list[dict[str, Any]]:
    """Return all alert rules."""
    document = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard."""
    document: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    found: list[dict[str, Any]] = document["panels"]
    return found


def queries() -> list[str]:
    """Return the queries of the dashboard."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def promtool(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    return subprocess.run(
        [str(PROMTOOL), *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in rules()), *queries()])
def test_only_metrics_that_exist(query: str) -> None:
    """Their metrics are the supervisor's, and their states are those of the state machine."""
    used = set(re.findall(r"lmcache_plugin_\w+", query))
    assert used
    assert used <= NAMES
    for values in re.findall(r'state[!=]=?~?"([^"]*)"', query):
        assert set(values.split("|")) <= {state.value for state in State}


def test_dashboard_shows_every_metric() -> None:
    """Each metric has a panel; panels do not overlap, and their ids differ."""
    assert {name for query in queries() for name in re.findall(r"lmcache_plugin_\w+", query)} == (
        NAMES
    )
    cells: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not mine & cells, panel["title"]
        cells |= mine
    assert len({panel["id"] for panel in panels()}) == len(panels())


@needs_promtool
def test_rules_by_promtool() -> None:
    """The rules are valid, and fire when they should, not before."""
    done = promtool("check", "rules", "--lint-fatal", "alerts.yml", cwd=MONITORING)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout
    done = promtool("test", "rules", "alerts_test.yml", cwd=MONITORING)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_queries_of_the_dashboard_by_promtool(tmp_path: Path) -> None:
    """Prometheus can parse each of them."""
    group = [
        {"record": f"q{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries())
    ]
    (tmp_path / "q.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": group}]})
    )
    done = promtool("check", "rules", "q.yml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@needs_promtool
def test_page_by_promtool() -> None:
    """The metrics' names and help follow Prometheus' conventions."""
    page = "".join(
        f"# HELP {name} {series.HELP[name.removesuffix('_total')]}\n"
        f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}\n{name} 1\n"
        for name in sorted(NAMES)
    )
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"],
        input=page,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
