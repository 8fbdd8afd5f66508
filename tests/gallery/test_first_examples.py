# SPDX-License-Identifier: Apache-2.0
"""The first example of a page works as it stands, without any server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import wait_until

PAGES = Path(__file__).parents[2] / "docs" / "plugin-authors" / "gallery"
LOG = "/tmp/vllm.log"


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        ("log-reporter.md", r"Would deliver: \{.*EngineCore failed"),
        ("alert-reporter.md", r'Would send: \{.*"name": "EngineThreads"'),
    ],
)
def test_the_first_example_prints_what_it_would_send(
    page: str, printed: str, tmp_path: Path
) -> None:
    """Under the stand-in engines of ``run``; only the log is another file than the page's."""
    text = (PAGES / page).read_text(encoding="utf-8")
    example = re.search(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    command = re.search(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert example is not None
    assert command is not None
    own = str(tmp_path / "vllm.log")
    (tmp_path / "lmcache.yaml").write_text(example[1].replace(LOG, own))
    *first, run = command[1].replace(LOG, own).splitlines()
    for line in first:
        subprocess.run(["sh", "-c", line], check=True)
    assert run == "lmcache-plugins run --config lmcache.yaml"
    output = tmp_path / "output"
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "lmcache_plugin_adapter", *run.split()[1:]],
            cwd=tmp_path,
            env=environment,
            stdout=file,
            stderr=file,
        )
    try:
        wait_until(
            lambda: re.search(printed, output.read_text(errors="replace")),
            90,
            lambda: output.read_text(errors="replace"),
        )
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
