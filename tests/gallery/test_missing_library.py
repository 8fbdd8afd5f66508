# SPDX-License-Identifier: Apache-2.0
"""The gallery without the libraries of its extra: one line says what to install, for good."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BODY = """
import sys
sys.modules[sys.argv[1]] = None
from lmcache_plugin_adapter.gallery.{package} import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("package", "library"),
    [
        ("alert_reporter", "msgspec"),
        ("log_reporter", "msgspec"),
        ("heartbeat", "msgspec"),
        ("metric_reporter", "msgspec"),
        ("metric_reporter", "cramjam"),
    ],
)
def test_a_library_that_is_missing_is_one_line(package: str, library: str) -> None:
    """No traceback, and no restart; LMCache does not bring cramjam."""
    settings = {"remote_write": {"url": "http://127.0.0.1:9"}}
    section = {"runtime_plugins": {"plugins": {"all_x": {"settings": settings}}}}
    config = {"internal_api_server_enabled": True, "extra_config": section}
    result = subprocess.run(
        [sys.executable, "-c", BODY.format(package=package), library],
        env={
            "LMCACHE_RUNTIME_PLUGIN_ROLE": "WORKER",
            "LMCACHE_RUNTIME_PLUGIN_WORKER_ID": "0",
            "LMCACHE_RUNTIME_PLUGIN_NAME": "all_x",
            "LMCACHE_RUNTIME_PLUGIN_CONFIG": json.dumps(config),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (125, "")
    assert result.stdout == (
        f"<3>Cannot run the plugin: it needs '{library}': "
        f"{sys.executable} -m pip install 'lmcache-plugin-adapter[gallery]'\n"
    )
