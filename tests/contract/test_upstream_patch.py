# SPDX-License-Identifier: Apache-2.0
"""The patch of docs/contributing/upstream, applied to the real sources of LMCache."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lmcache_plugin_adapter.hosts import upstream_names as upstream

ROOT = Path(__file__).parents[2]
PATCH = ROOT / "docs" / "contributing" / "upstream" / "lmcache-0.5.6.patch"

pytestmark = pytest.mark.skipif(
    upstream.installed_version("lmcache") != "0.5.6", reason="the patch is for LMCache 0.5.6"
)

# Notes what it is told, then waits for its end.
PLUGIN = """\
trap 'echo goodbye >> "$OUT/$$.note"; exit' TERM
who="$LMCACHE_RUNTIME_PLUGIN_ROLE|$LMCACHE_RUNTIME_PLUGIN_WORKER_ID"
echo "$who|$LMCACHE_RUNTIME_PLUGIN_RUN_ID" > "$OUT/$$.note"
sleep 600 & wait
"""
PRELUDE = """\
import json, os, pathlib, sys, time
out = pathlib.Path(os.environ["OUT"])

def notes(number, word=""):
    deadline = time.monotonic() + 60
    while True:
        found = [path.read_text() for path in out.glob("*.note")]
        found = [text for text in found if text.endswith("\\n") and word in text]
        if len(found) >= number:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)

def untouched():
    from lmcache.v1.plugin.runtime_plugin_launcher import RuntimePluginLauncher
    home = RuntimePluginLauncher.launch_plugins.__module__
    assert home == "lmcache.v1.plugin.runtime_plugin_launcher", home
    assert "lmcache_plugin_adapter.hosts.vllm.lmcache_launcher" not in sys.modules
"""
SERVER = """
sys.path.insert(0, os.environ["CONTRACT"])
from test_server_contract import lmcaches_launcher, parse
configs = parse("--runtime-plugin-locations", sys.argv[1], "--runtime-plugin-config", sys.argv[2])
launcher = lmcaches_launcher(configs)
launcher.launch_plugins()
print(json.dumps(notes(1)), flush=True)
untouched()
launcher.stop_plugins()
if launcher._inner.__class__.__module__.startswith("lmcache_plugin_adapter"):
    notes(1, "goodbye")
print(json.dumps(launcher._inner.__class__.__name__))
"""
IN_PROCESS = """
import types
from lmcache_plugin_adapter.hosts.vllm import hook
hook.register()
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
assert KVConnectorFactory.create_connector.__func__.__module__ == hook.FACTORY_MODULE
assert not hasattr(KVConnectorFactory.create_connector.__func__, "__wrapped__")
from lmcache.integration.vllm import vllm_service_factory
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.manager import LMCacheManager
values = {"runtime_plugin_locations": [sys.argv[1]], "extra_config": json.loads(sys.argv[2])}
parallel = types.SimpleNamespace(
    tensor_parallel_size=2, data_parallel_rank_local=0, data_parallel_size_local=1)
factory = vllm_service_factory.VllmServiceFactory(
    LMCacheEngineConfig.from_dict(values), types.SimpleNamespace(parallel_config=parallel),
    "scheduler")
launcher = factory.maybe_create_runtime_plugin_launcher()
nothing = type("Nothing", (), {"__getattr__": lambda *_: lambda *_a, **_k: None})
class Services(nothing):
    def maybe_create_runtime_plugin_launcher(self):
        return launcher
manager = LMCacheManager(factory.lmcache_config, Services())
manager.start_services()
print(json.dumps(notes(1)), flush=True)
untouched()
manager.stop_services()
if type(launcher).__module__.startswith("lmcache_plugin_adapter"):
    notes(1, "goodbye")
print(json.dumps(type(launcher).__name__))
"""


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with LMCache as the patch makes it, and this package's metadata."""
    home = tmp_path_factory.mktemp("patched")
    real = Path(upstream.package_directory("lmcache"))
    shutil.copytree(real, home / "lmcache", copy_function=os.symlink)
    for name in re.findall(r"^--- a/(\S+)$", PATCH.read_text(), re.MULTILINE):
        (home / name).unlink()
        shutil.copy(real.parent / name, home / name)
    command = ["git", "apply", "--verbose", str(PATCH)]
    subprocess.run(
        command, cwd=home, check=True, env={**os.environ, "GIT_CEILING_DIRECTORIES": "/"}
    )
    info = home / "lmcache_plugin_adapter-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-launcher\nVersion: 0\n")
    group = '[project.entry-points."lmcache.runtime_plugin_launchers"]\n'
    line = (ROOT / "pyproject.toml").read_text().partition(group)[2].splitlines()[0]
    (info / "entry_points.txt").write_text(
        f"[lmcache.runtime_plugin_launchers]\n{line.replace(chr(34), '')}\n"
    )
    return home


def run(patched: Path, tmp_path: Path, program: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Run a program beside the patched LMCache; return the notes and the launcher's class."""
    for name in ("plugins", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "plugins" / "all_note.sh").write_text(PLUGIN)
    path = [
        str(patched),
        str(ROOT),
        str(ROOT / "tests"),
        *filter(None, [os.environ.get("PYTHONPATH")]),
    ]
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "OUT": str(tmp_path / "out"),
        "CONTRACT": str(ROOT / "tests" / "contract"),
        "LMCACHE_PLUGINS_RUNTIME_DIR": str(tmp_path / "run"),
    }
    command = [sys.executable, "-c", PRELUDE + program]
    done = subprocess.run(
        [*command, str(tmp_path / "plugins"), json.dumps(settings)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    notes, name = [json.loads(line) for line in done.stdout.splitlines() if line[:1] in '["'][-2:]
    return notes, name


OURS = [{}, {"runtime_plugin_launcher": "supervised"}]
OURS += [
    {"runtime_plugin_launcher": "lmcache_plugin_adapter.hosts.chosen_launcher:create_launcher"}
]
THEIRS = [{"runtime_plugin_launcher": "builtin"}, {"runtime_plugins": {"enabled": False}}]
THEIRS += [{"runtime_plugin_launcher": "none.such:thing"}, {"runtime_plugin_launcher": "other"}]


@pytest.mark.parametrize(
    ("program", "told"), [(SERVER, "|0|"), (IN_PROCESS, "SCHEDULER|-1|")], ids=["server", "vllm"]
)
@pytest.mark.parametrize("settings", OURS, ids=["installed", "named", "by module"])
def test_ours_runs_the_plugins(
    patched: Path, tmp_path: Path, program: str, told: str, settings: dict[str, Any]
) -> None:
    """Chosen by LMCache, told its role and ids, stopped with its services."""
    (note,), name = run(patched, tmp_path, program, settings)
    assert name == "ChosenLauncher"
    assert note.startswith(told)
    assert len(note.strip()) > len(told), "it has no run token"


@pytest.mark.parametrize("program", [SERVER, IN_PROCESS], ids=["server", "vllm"])
@pytest.mark.parametrize("settings", THEIRS, ids=["builtin", "disabled", "no module", "unknown"])
def test_lmcaches_own_runs_them_otherwise(
    patched: Path, tmp_path: Path, program: str, settings: dict[str, Any]
) -> None:
    """As the configuration says, and whenever no other can be had."""
    notes, name = run(patched, tmp_path, program, settings)
    assert name == "RuntimePluginLauncher"
    assert len(notes) == 1
    assert notes[0].strip().endswith("|")  # no run token
