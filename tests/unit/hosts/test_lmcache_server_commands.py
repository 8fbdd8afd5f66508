"""LMCache's multiprocess server as a host: the commands, the launcher of one file, the examples."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cli_under_test import ROOT, Running, command
from harness import Engine, alive, marked, wait_until

from lmcache_plugin_adapter import server_module as door
from lmcache_plugin_adapter.cli import doctor as cli_doctor
from lmcache_plugin_adapter.configuration.settings import read_settings
from lmcache_plugin_adapter.contract.identity import Role
from lmcache_plugin_adapter.hosts.lmcache_server import module as server_module
from lmcache_plugin_adapter.hosts.lmcache_server.config import read_server_config, server_identity
from lmcache_plugin_adapter.hosts.lmcache_server.single_file_launcher import read_handed_over
from lmcache_plugin_adapter.planner.file_names import PluginName, parse_name, runs_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIGS = ROOT / "configs" / "server"
LAUNCH = CONFIGS / "launch.sh"
WAIT = """trap 'echo goodbye; exit 0' TERM
echo "$LMCACHE_RUNTIME_PLUGIN_ROLE $LMCACHE_RUNTIME_PLUGIN_ENGINE_PID"
while :; do sleep 1 & wait $!; done
"""


# --- run, check, doctor -----------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Plugins of every role, and the argument of a server."""
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    for name in ("server_x.sh", "all_x.sh", "worker_x.sh", "scheduler_x.sh", "server_1_x.sh"):
        (plugins / name).write_text(WAIT)
    config = {"runtime_plugin_locations": ["plugins"], "foo": 1, "runtime_plugins": {}}
    module = {"module_path": "lmcache_plugin_adapter.server_module", "config": config}
    (tmp_path / "module.json").write_text(json.dumps(module))
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("name", ["module.json", "config.json"])
def test_check_server(site: Path, name: str) -> None:
    """A fleet of one; ids that no server has are a warning."""
    result = command("check", "--server", "-c", name, "--json", cwd=site)
    report = json.loads(result.stdout)
    assert (report["host"], result.returncode, report["problems"]) == ("lmcache-server", 0, [])
    runs = {
        os.path.basename(file["path"]): file["runs_on"]
        for file in report["files"]
        if file["status"] == "runs"
    }
    server = [{"role": "server", "worker_id": 0, "dp_rank": 0}]
    assert runs == {"all_x.sh": server, "server_x.sh": server}
    (misnamed,) = [file for file in report["files"] if "server_1_x" in file["path"]]
    assert "name it 'server_x.sh'" in misnamed["problems"][0]["text"]
    assert misnamed["problems"][0]["level"] == "warning"
    table = command("check", "--server", "-c", name, cwd=site).stdout
    assert "LMCache's multiprocess server" in table
    assert re.search(r"^server_x\.sh +server +/", table, re.MULTILINE)


def test_check_server_without_the_filter(site: Path) -> None:
    """Every file runs there."""
    config = {"runtime_plugin_locations": ["plugins"], "runtime_plugins": {"filter_by_role": False}}
    (site / "config.json").write_text(json.dumps(config))
    assert "\n5 plugins, " in command("check", "--server", "-c", "config.json", cwd=site).stdout


def test_run_server(site: Path) -> None:
    """One stand-in, with the configuration in the shape of that mode."""
    text = 'echo "$LMCACHE_RUNTIME_PLUGIN_CONFIG" > config.out; echo written\n'
    (site / "plugins" / "server_y.sh").write_text(text)
    with Running(site, "--server", "-c", "module.json", cwd=site) as running:
        running.until_logged("[server_x] SERVER ")
        running.until_logged("[all_x] SERVER ")
        running.until_logged("[server_y] written")
        assert "Running server;" in running.stdout
        assert running.stop() == 0
        assert running.log.count("Started, pid") == 3
        running.until_nothing_is_left()
    config = json.loads((site / "config.out").read_text())
    objects = ("mp_config", "storage_manager_config", "obs_config", "http_config")
    assert tuple(config)[:4] == objects
    assert config["runtime_plugin_extra_config"] == {"foo": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--server",), "-c FILE"),
        (("--server", "-c", "config.json", "--role", "worker"), "a server is one process"),
        (("--role", "server", "-c", "config.json", "--worker-id", "0"), "a server is one process"),
        (("--server", "-c", "broken.json"), "broken.json:1:1"),
        (("--server", "-c", "empty.json"), "no 'runtime_plugin_locations'"),
    ],
)
def test_a_wrong_command_line(site: Path, arguments: tuple[str, ...], said: str) -> None:
    """One line and status 2."""
    (site / "broken.json").write_text('{"config": [1')
    (site / "empty.json").write_text("{}")
    result = command("run", *arguments, cwd=site)
    assert (result.returncode, result.stdout) == (2, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_another_module_path_is_said(site: Path) -> None:
    """It is not ours that would be loaded."""
    (site / "x.json").write_text('{"module_path": "x", "config": {"runtime_plugin_locations": []}}')
    assert (
        "'module_path' is not ours" in command("check", "--server", "-c", "x.json", cwd=site).stdout
    )


def test_doctor_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Where LMCache is not installed it says so, with status 1; vLLM is not looked for."""
    assert cli_doctor.doctor(as_json=True, server=True) in (0, 1)
    report = json.loads(capsys.readouterr().out)
    subjects = [finding["subject"] for finding in report["findings"]]
    assert subjects[:2] == ["lmcache", "lmcache server"]
    assert "vllm" not in subjects
    cli_doctor.doctor(server=True)
    assert "'lmcache server' of this environment" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "content", "level", "words"),
    [
        (
            "ext_server_module.py",
            "class ExtServerModuleBuildContext:\n    config: dict\n",
            "warning",
            "takes --server-module",
        ),
        (
            "mp_runtime_plugin_launcher.py",
            'KEY = "runtime_plugin_extra_config"\n',
            "ok",
            "takes no --server-module",
        ),
        ("x.py", "", "off", "runs no plugins"),
    ],
)
def test_doctor_knows_what_a_version_offers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    content: str,
    level: str,
    words: str,
) -> None:
    """By the names in its sources."""
    directory = tmp_path / "lmcache" / "v1" / "multiprocess"
    directory.mkdir(parents=True)
    (directory / file).write_text(content)
    monkeypatch.setattr(
        "lmcache_plugin_adapter.hosts.upstream_names.package_directory",
        lambda project: str(tmp_path / project) if project == "lmcache" else "",
    )
    finding = cli_doctor._server()
    assert finding.level == level
    assert words in finding.text


# --- the launcher of one file ----------------------------------------------


def start(server: Engine, plugins: Path, **settings: Any) -> int:
    """Have LMCache's launcher start ours, in its way; return the pid."""
    handed_over = {
        "mp_config": {"port": 5555},
        "http_config": {"http_port": 8080},
        "runtime_plugin_extra_config": {
            "runtime_plugin_locations": [str(plugins)],
            "runtime_plugins": settings,
            "foo": 1,
        },
    }
    server.do("import os, subprocess, sys")
    environment = {
        "LMCACHE_RUNTIME_PLUGIN_ROLE": "",
        "LMCACHE_RUNTIME_PLUGIN_CONFIG": json.dumps(handed_over),
    }
    server.do(
        f"child = subprocess.Popen(['/bin/sh', {str(LAUNCH)!r}], env={{**os.environ, "
        f"**{environment!r}}}, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr)"
    )
    return int(server.do("child.pid"))


@pytest.fixture
def server(engine: Callable[..., Engine]) -> Engine:
    """A process that stands for LMCache's server."""
    return engine(launch=False, env={"PYTHONPATH": str(ROOT)})


def test_the_launcher_of_one_file_runs_the_others(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """With roles, the server as their engine, and the whole configuration."""
    for name in ("server_x", "all_x", "worker_x"):
        plugin(f"{name}.sh", WAIT)
    plugin("server_y.sh", 'cat "$LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE" > config; echo written\n')
    start(server, plugins)
    for name in ("server_x", "all_x"):
        server.wait_log(rf"\[{name}\] SERVER {server.pid} ")
    server.wait_log(r"\[server_y\] written")
    assert "[worker_x]" not in server.log()
    config = json.loads((plugins.parent / "config").read_text())
    assert config["mp_config"] == {"port": 5555}
    assert config["runtime_plugin_extra_config"] == {"foo": 1}
    # LMCache's way to stop a plugin.
    server.do("child.terminate()")
    assert server.do("child.wait(10)") == 0
    assert server.log().count("] goodbye (") == 2
    wait_until(lambda: list(marked(str(plugins.parent))) == [server.pid])


def test_a_killed_server_takes_its_plugins_along(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """LMCache tells nobody then; its own plugins stay for ever."""
    plugin("server_x.sh", WAIT)
    child = start(server, plugins)
    server.wait_log(r"\[server_x\] SERVER")
    server.kill(signal.SIGKILL)
    server.wait_log(r"\[server_x\] goodbye")
    wait_until(lambda: not alive(child))
    wait_until(lambda: not marked(str(plugins.parent)))


def test_when_the_starter_is_killed_the_plugins_end(
    server: Engine, plugins: Path, plugin: Callable[..., Path]
) -> None:
    """With their goodbye; the server lives."""
    plugin("server_x.sh", WAIT)
    child = start(server, plugins)
    server.wait_log(r"\[server_x\] SERVER")
    os.kill(child, signal.SIGKILL)
    server.wait_log(r"\[server_x\] goodbye")
    server.do("child.wait()")
    wait_until(lambda: list(marked(str(plugins.parent))) == [server.pid])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("", "cannot read LMCACHE_RUNTIME_PLUGIN_CONFIG"),
        ("[]", "it is no JSON object"),
        ("{}", "no 'runtime_plugin_locations' is given in --runtime-plugin-config"),
        ('{"runtime_plugin_extra_config": [1]}', "found a list"),
    ],
)
def test_a_launcher_with_nothing_to_run_says_why(config: str, said: str) -> None:
    """In one line, with the exit code that means: do not restart me."""
    result = subprocess.run(
        [sys.executable, "-m", "lmcache_plugin_adapter.server_plugin"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LMCACHE_RUNTIME_PLUGIN_CONFIG": config},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert result.returncode == 125
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_what_is_handed_over_is_kept() -> None:
    """All but the settings stays as LMCache gave it."""
    config = read_handed_over('{"a": {"b": 1}, "runtime_plugin_extra_config": {"foo": 1}}')
    assert config.host == {"a": {"b": 1}}
    assert json.loads(config.to_json())["runtime_plugin_extra_config"] == {"foo": 1}


def test_the_documentation_has_the_launcher() -> None:
    """To the letter: it may be all that a reader has."""
    page = (ROOT / "docs" / "server.md").read_text()
    (shown,) = re.findall(
        r"<!-- test: same as configs/server/launch.sh -->\n+```text\n(.*?)```", page, re.DOTALL
    )
    assert shown == LAUNCH.read_text()
    assert os.access(LAUNCH, os.X_OK)


# --- Docker Compose and Kubernetes -----------------------------------------


def compose() -> dict[str, Any]:
    """The service of the Compose example."""
    document = yaml.safe_load((CONFIGS / "compose.yaml").read_text())
    service: dict[str, Any] = document["services"]["lmcache"]
    return service


def kubernetes() -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap and the pod of the Kubernetes example."""
    config_map, daemon_set = yaml.safe_load_all((CONFIGS / "kubernetes.yaml").read_text())
    assert (config_map["kind"], daemon_set["kind"]) == ("ConfigMap", "DaemonSet")
    template = daemon_set["spec"]["template"]
    assert daemon_set["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    return config_map, template["spec"]


def options(words: list[str]) -> dict[str, str]:
    """Return the options of ``lmcache server`` by name."""
    assert words[:2] == ["lmcache", "server"]
    *pairs, last, module = words[2:]
    assert last == "--server-module"
    return {**dict(pair.split("=", 1) for pair in pairs), last: module}


@pytest.mark.parametrize("of", ["compose", "kubernetes"])
def test_the_server_module_of_an_example_is_ours(of: str) -> None:
    """Its path, its factory, its settings; and its locations are where plugins are mounted."""
    if of == "compose":
        words = compose()["command"]
        mounts = [volume.split(":")[1] for volume in compose()["volumes"]]
    else:
        _, pod = kubernetes()
        words = pod["containers"][0]["command"]
        mounts = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
    module = json.loads(options(words)["--server-module"])
    assert module["module_path"] == door.__name__
    assert callable(door.build_server_modules)  # the factory that LMCache takes
    config = read_server_config(module["config"], {}, source="x")
    _, problems = read_settings(config.extra_config)
    assert [*config.problems, *problems] == []
    assert config.runtime_plugin_locations == mounts
    settings, _ = read_settings(config.extra_config)
    assert settings.defaults.stop_grace <= server_module.CLOSE_SECONDS


def test_the_compose_example_fits_together() -> None:
    """What it mounts is there and readable only, and the health check asks the right port."""
    service = compose()
    (volume,) = service["volumes"]
    source, _, mode = volume.split(":")
    assert mode == "ro"
    assert any((CONFIGS / source).resolve().glob("all_*.sh"))
    port = options(service["command"])["--http-port"]
    assert f":{port}/healthcheck" in service["healthcheck"]["test"][-1]
    assert service["init"] is True
    assert "lmcache-plugin-adapter" in service["build"]["dockerfile_inline"]
    config = json.loads(options(service["command"])["--server-module"])["config"]
    parameters = set(config) - {"runtime_plugin_locations", "runtime_plugins"}
    assert parameters == {"all_plugin"}
    text = (ROOT / "examples" / "all_plugin.sh").read_text()
    assert all(f"parameter {name} " in text for name in config["all_plugin"])


def test_the_kubernetes_example_fits_together() -> None:
    """Names that refer to each other do, and every plugin of the ConfigMap is for a server."""
    config_map, pod = kubernetes()
    (container,) = pod["containers"]
    (volume,) = pod["volumes"]
    (mount,) = container["volumeMounts"]
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]
    assert (mount["name"], mount["readOnly"]) == (volume["name"], True)
    assert pod["shareProcessNamespace"] is True
    port = int(options(container["command"])["--http-port"])
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthcheck", "port": port}
    for name in config_map["data"]:
        parsed = parse_name(name)
        assert isinstance(parsed, PluginName)
        assert runs_on(parsed, server_identity({}))
    assert server_identity({}).role is Role.SERVER


def test_the_plugins_of_the_kubernetes_example_run(tmp_path: Path) -> None:
    """In the layout of a mounted ConfigMap, with the settings of the example, each once."""
    config_map, pod = kubernetes()
    data = tmp_path / "mount" / "..2026_11_22"
    data.mkdir(parents=True, mode=0o755)
    (tmp_path / "mount" / "..data").symlink_to(data.name)
    for name, text in config_map["data"].items():
        (data / name).write_text(text)
        (tmp_path / "mount" / name).symlink_to(f"..data/{name}")
    module = json.loads(options(pod["containers"][0]["command"])["--server-module"])
    module["config"]["runtime_plugin_locations"] = ["mount"]
    module["config"]["server_usage"]["interval"] = 0.1
    (tmp_path / "module.json").write_text(json.dumps(module))
    with Running(tmp_path, "--server", "-c", "module.json", cwd=tmp_path) as running:
        running.until_logged("[all_heartbeat] SERVER is alive")
        running.until_logged("LMCache WARNING: [server_usage] cannot reach http://127.0.0.1:8080")
        assert running.stop() == 0
        assert running.log.count("Started, pid") == 2
