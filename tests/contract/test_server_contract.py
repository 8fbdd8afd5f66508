# SPDX-License-Identifier: Apache-2.0
"""Plugins of the multiprocess server with LMCache's own code, as far as a version has it."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import shlex
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness import wait_until

from lmcache_plugin_adapter.hosts.lmcache_server.module import _read, build_server_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
MULTIPROCESS = "lmcache.v1.multiprocess"


def has(module: str) -> bool:
    """Return whether this LMCache has a module of that name."""
    try:
        return importlib.util.find_spec(f"{MULTIPROCESS}.{module}") is not None
    except ImportError:
        return False


pytestmark = pytest.mark.skipif(
    not has("mp_runtime_plugin_launcher"), reason="this LMCache's server runs no plugins"
)
takes_modules = pytest.mark.skipif(
    not has("ext_server_module"), reason="this LMCache's server takes no modules"
)

DUMP = """\
import json, os, pathlib, signal, sys
here = pathlib.Path(os.environ["DUMP_DIR"])
name = pathlib.Path(sys.argv[0]).name
def goodbye(*_):
    (here / f"{name}.goodbye").touch()
    os._exit(0)
signal.signal(signal.SIGTERM, goodbye)
with open(here / f"{name}.new", "w") as out:
    json.dump({k: v for k, v in os.environ.items() if k.startswith("LMCACHE_")}, out)
os.rename(here / f"{name}.new", here / f"{name}.json")
signal.pause()
"""
KEYS = ("ROLE", "WORKER_ID", "WORKER_COUNT")
NAMES = ("server_x.py", "all_x.py", "worker_0_x.py", "scheduler_x.py", "some_tool.py", "dump.py")


def upstream(module: str) -> Any:
    """Import one of LMCache's modules."""
    return importlib.import_module(f"{MULTIPROCESS}.{module}")


def parse(*words: str) -> dict[str, Any]:
    """Return LMCache's configuration objects, made by LMCache from a server's command line."""
    config = upstream("config")
    storage = importlib.import_module("lmcache.v1.distributed.config")
    observability = importlib.import_module("lmcache.v1.mp_observability.config")
    parser = argparse.ArgumentParser()
    storage.add_storage_manager_args(parser)
    config.add_mp_server_args(parser)
    config.add_http_frontend_args(parser)
    observability.add_observability_args(parser)
    for name in ("add_p2p_args", "add_coordinator_args"):
        if hasattr(config, name):
            getattr(config, name)(parser)
    arguments = parser.parse_args(["--l1-size-gb", "0.1", "--eviction-policy", "LRU", *words])
    return {
        "mp": config.parse_args_to_mp_server_config(arguments),
        "storage_manager": storage.parse_args_to_config(arguments),
        "observability": observability.parse_args_to_observability_config(arguments),
        "http": config.parse_args_to_http_frontend_config(arguments),
    }


def lmcaches_launcher(configs: dict[str, Any]) -> Any:
    """Return LMCache's launcher, made as its server makes it (http_server.py)."""
    return upstream("mp_runtime_plugin_launcher").MPRuntimePluginLauncher(
        runtime_plugin_config=configs["mp"].runtime_plugin_config,
        mp_config=configs["mp"],
        storage_manager_config=configs["storage_manager"],
        obs_config=configs["observability"],
        http_config=configs["http"],
    )


def context(configs: dict[str, Any], given: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a factory's argument in a server with that configuration."""
    monkeypatch.setattr(upstream("http_server"), "_configs", configs)
    values = {"server_context": None, "mp_config": configs["mp"], "config": given, "modules": ()}
    if not has("ext_server_module"):
        return types.SimpleNamespace(**values)
    made_by_lmcache = upstream("ext_server_module").ExtServerModuleBuildContext
    return made_by_lmcache(coordinator_config=None, **values)


def files_of(directory: Path, pattern: str, number: int) -> list[Path]:
    """Return the files of a directory once it has ``number`` of them."""
    return wait_until(
        lambda: len(files := list(directory.glob(pattern))) >= number and files,
        30,
        f"{number} {pattern} in {directory}",
    )


@pytest.fixture
def dumped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], dict[str, Any]]:
    """Write plugins that dump their variables; return a function that waits for the dumps."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "out").mkdir()
    for name in NAMES:
        (tmp_path / "plugins" / name).write_text(DUMP)
    monkeypatch.setenv("DUMP_DIR", str(tmp_path / "out"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{':'.join(sys.path)}")
    monkeypatch.setenv("LMCACHE_PLUGINS_RUNTIME_DIR", str(tmp_path / "run"))

    def wait(number: int) -> dict[str, Any]:
        files = files_of(tmp_path / "out", "*.json", number)
        return {path.stem: json.loads(path.read_text()) for path in files}

    return wait


def goodbyes(tmp_path: Path, number: int) -> set[str]:
    """Return the names of the plugins that ended on SIGTERM, once there are ``number``."""
    return {path.stem for path in files_of(tmp_path / "out", "*.goodbye", number)}


@pytest.fixture
def module() -> Iterator[list[Any]]:
    """A list of server modules, which are closed at the end."""
    made: list[Any] = []
    yield made
    for one in made:
        one.close()


@pytest.mark.parametrize("parameters", ["{}", '{"plugin.frontend.heartbeat_url": "x", "n": [1]}'])
def test_config_is_that_of_lmcaches_launcher(
    parameters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: list[Any]
) -> None:
    """Keys and values are the same; two more keys follow them."""
    words = ("--runtime-plugin-locations", str(tmp_path), "--runtime-plugin-config", parameters)
    configs = parse(*words)
    theirs = json.loads(lmcaches_launcher(configs)._inner.config.to_json())
    config = _read(context(configs, {}, monkeypatch))
    assert config.problems == ()
    ours = json.loads(config.to_json())
    assert ours.pop("runtime_plugin_locations") == [str(tmp_path)]
    assert ours.pop("extra_config") == json.loads(parameters)
    assert ours == theirs
    assert list(ours) == list(theirs)


def test_role_id_and_count(
    dumped: Callable[[int], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: list[Any],
) -> None:
    """Plugins get the server's, after the filter by role; LMCache's launcher has nothing to run."""
    configs = parse()
    given = {"runtime_plugin_locations": [str(tmp_path / "plugins")]}
    module.append(build_server_modules(context(configs, given, monkeypatch)))
    told = dumped(2)
    assert set(told) == {"server_x.py", "all_x.py"}
    for variables in told.values():
        for prefix in ("LMCACHE_RUNTIME_PLUGIN_", "LMCACHE_PLUGIN_"):
            values = [
                variables[f"{prefix}{name}"] for name in ("ROLE", "WORKER_ID", "WORKER_COUNT")
            ]
            assert values == ["SERVER", "0", "1"]
    launcher = lmcaches_launcher(configs)
    launcher.launch_plugins()
    assert launcher._inner.plugin_processes == []
    module[0].close()
    assert goodbyes(tmp_path, 2) == {"server_x.py", "all_x.py"}


@pytest.mark.parametrize("settings", [{}, {"runtime_plugins": {"filter_by_role": False}}])
def test_locations_of_lmcache_keep_its_rule(
    settings: dict[str, Any],
    dumped: Callable[[int], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: list[Any],
) -> None:
    """The same files run with the same role, id and count as from LMCache's launcher."""

    def told() -> dict[str, list[str]]:
        return {
            name: [variables[f"LMCACHE_RUNTIME_PLUGIN_{key}"] for key in KEYS]
            for name, variables in dumped(len(NAMES)).items()
        }

    configs = parse("--runtime-plugin-locations", str(tmp_path / "plugins"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    launcher = lmcaches_launcher(configs)
    launcher.launch_plugins()
    theirs = told()
    launcher.stop_plugins()
    goodbyes(tmp_path, len(NAMES))
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    module.append(build_server_modules(context(configs, settings, monkeypatch)))
    assert configs["mp"].runtime_plugin_config.locations == []  # LMCache's starts none
    assert told() == theirs
    assert set(theirs) == set(NAMES)
    assert {tuple(values) for values in theirs.values()} == {("", "0", "1")}


def test_the_launcher_of_one_file(
    dumped: Callable[[int], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMCache's launcher starts it, passes the configuration to it, and stops it."""
    parameters = {"runtime_plugin_locations": [str(tmp_path / "plugins")], "foo": {"x": 1}}
    launch = ROOT / "configs" / "server" / "launch.sh"
    configs = parse(
        *("--runtime-plugin-locations", str(launch)),
        *("--runtime-plugin-config", json.dumps(parameters)),
    )
    launcher = lmcaches_launcher(configs)
    theirs = json.loads(launcher._inner.config.to_json())
    launcher.launch_plugins()
    try:
        told = dumped(2)
    finally:
        launcher.stop_plugins()
    assert set(told) == {"server_x.py", "all_x.py"}
    ours = json.loads(told["server_x.py"]["LMCACHE_RUNTIME_PLUGIN_CONFIG"])
    assert ours.pop("runtime_plugin_locations") == parameters.pop("runtime_plugin_locations")
    assert ours.pop("extra_config") == parameters
    assert ours == {**theirs, "runtime_plugin_extra_config": parameters}
    assert goodbyes(tmp_path, 2) == {"server_x.py", "all_x.py"}


@takes_modules
def test_lmcache_loads_the_module(
    dumped: Callable[[int], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mocker: Any,
) -> None:
    """LMCache's own loader, command line, ``report_status`` and ``close`` work with the module."""
    locations = {"runtime_plugin_locations": [str(tmp_path / "plugins")]}
    spec = {"module_path": "lmcache_plugin_adapter.server_module", "config": locations}
    configs = parse("--server-module", json.dumps(spec))
    monkeypatch.setattr(upstream("http_server"), "_configs", configs)
    loaded = upstream("ext_server_module").load_server_module_components(
        configs["mp"].server_modules,
        server_context=None,
        mp_config=configs["mp"],
        coordinator_config=None,
        built_modules=(),
    )
    (ours,) = loaded.modules
    try:
        assert set(dumped(2)) == {"server_x.py", "all_x.py"}
        shared = mocker.create_autospec(
            upstream("engine_context").MPCacheServerContext, instance=True
        )
        shared.storage_manager.report_status.return_value = {"is_healthy": True}
        status = upstream("server").MPCacheServer(shared, [ours]).report_status()
        assert status["is_healthy"] is True
        assert status["runtime_plugins"]["state"] == "running"
    finally:
        ours.close()
    assert goodbyes(tmp_path, 2) == {"server_x.py", "all_x.py"}


@takes_modules
@pytest.mark.parametrize(
    "name", ["server/compose.yaml", "server/kubernetes.yaml", "kubernetes/server.yaml"]
)
def test_the_examples_are_what_lmcache_accepts(name: str) -> None:
    """LMCache's own parser reads each option of their command lines."""
    import yaml

    documents = list(yaml.safe_load_all((ROOT / "configs" / name).read_text()))
    if name == "server/compose.yaml":
        words = documents[0]["services"]["lmcache"]["command"]
    else:
        words = documents[-1]["spec"]["template"]["spec"]["containers"][0]["command"]
    if words[0] == "sh":
        _, *words = shlex.split(words[-1])
        words[-1] = (ROOT / "configs" / "kubernetes" / "module.json").read_text()
    (spec,) = parse(*words[2:])["mp"].server_modules
    factory = getattr(importlib.import_module(spec.module_path), spec.factory_name)
    assert callable(factory)
