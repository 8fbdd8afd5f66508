# SPDX-License-Identifier: Apache-2.0
"""The package that ``docs/plugin-authors/packaging.md`` shows, built and installed with pip."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from cli_under_test import ROOT, Running, command

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = re.compile(r"<!-- example: (\S+) -->\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_example_runs(tmp_path: Path) -> None:
    """Its plugin runs and logs. Pip needs a package index for the build backend."""
    page = (ROOT / "docs" / "plugin-authors" / "packaging.md").read_text()
    examples = dict(_BLOCK.findall(page))
    assert len(examples) == 3
    for name, text in examples.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    project = str(tmp_path / "acme-plugins")
    subprocess.run([sys.executable, *install, project], check=True, timeout=100)
    env = {"PYTHONPATH": f"{ROOT}:{site}"}
    done = command("check", "-c", "lmcache.yaml", "--strict", "--json", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = json.loads(done.stdout)["files"]
    assert file["package"] == {
        "name": "acme-plugins",
        "version": "1.0",
        "entry_point": "acme_plugins.uptime:run",
        "file": str(site / "acme_plugins" / "uptime.py"),
    }
    with Running(tmp_path, "-c", "lmcache.yaml", "--tp", "2", cwd=tmp_path, env=env) as running:
        for rank in (0, 1):
            running.until_logged(f"LMCache INFO: [worker_acme_uptime] worker {rank} is up for 0 s")
        assert running.stop() == 0
        assert "Stopped: exited with code 0" in running.log
