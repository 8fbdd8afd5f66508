# SPDX-License-Identifier: Apache-2.0
"""``check``, ``run`` and ``doctor`` for LMCache's multiprocess server."""

from __future__ import annotations

import json
import os
import re
import socket
import urllib.request
from typing import TYPE_CHECKING

import pytest
from cli_under_test import Running, command

from lmcache_plugin_adapter.cli import doctor
from lmcache_plugin_adapter.hosts.lmcache_server.config import server_identity
from lmcache_plugin_adapter.hosts.standin_api import HOST, serve

if TYPE_CHECKING:
    from pathlib import Path

WAIT = """trap 'echo goodbye; exit 0' TERM
echo "$LMCACHE_RUNTIME_PLUGIN_ROLE $LMCACHE_RUNTIME_PLUGIN_ENGINE_PID"
while :; do sleep 1 & wait $!; done
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with plugins of each role, and with a server's configuration."""
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
    """A server is one process; an id that no server has is a warning."""
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


def test_check_server_suggests_its_role(site: Path) -> None:
    """The name of a file without a role becomes one of the server's."""
    (site / "plugins" / "heartbeat.sh").write_text(WAIT)
    table = command("check", "--server", "-c", "config.json", cwd=site).stdout
    assert "; if it is a plugin, name it 'server_heartbeat.sh', otherwise '_heartbeat.sh'" in table


def test_check_server_without_the_filter(site: Path) -> None:
    """Each file runs."""
    config = {"runtime_plugin_locations": ["plugins"], "runtime_plugins": {"filter_by_role": False}}
    (site / "config.json").write_text(json.dumps(config))
    assert "\n5 plugins, " in command("check", "--server", "-c", "config.json", cwd=site).stdout


def test_run_server(site: Path) -> None:
    """One process stands for the server; plugins get the configuration as in that mode."""
    text = 'echo "$LMCACHE_RUNTIME_PLUGIN_CONFIG" > config.out; echo written\n'
    (site / "plugins" / "server_y.sh").write_text(text)
    with Running(site, "--server", "-c", "module.json", cwd=site) as running:
        running.until_logged("[server_x] SERVER ")
        running.until_logged("[all_x] SERVER ")
        running.until_logged("[server_y] written")
        if "cannot listen on port 8080" not in running.log:  # else it is another program's
            assert urllib.request.urlopen(f"http://{HOST}:8080/status", timeout=20).status == 200
        assert "Running server;" in running.stdout
        assert running.stop() == 0
        assert running.log.count("Started, pid") == 3
        running.until_nothing_is_left()
    config = json.loads((site / "config.out").read_text())
    objects = ("mp_config", "storage_manager_config", "obs_config", "http_config")
    assert tuple(config)[:4] == objects
    assert config["runtime_plugin_extra_config"] == {"foo": 1}


def test_api_of_the_stand_in(capsys: pytest.CaptureFixture[str]) -> None:
    """It answers what plugins read; a port in use is one line."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    config = json.dumps({"mp_config": {}, "http_config": {"http_port": port}})
    serve(server_identity({}), config)
    texts = {"healthcheck": "healthy", "status": '"is_healthy": true', "metrics": "process_start"}
    for path, text in texts.items():
        with urllib.request.urlopen(f"http://{HOST}:{port}/{path}", timeout=20) as answer:
            assert text in answer.read().decode()
    assert capsys.readouterr().err == ""
    serve(server_identity({}), config)
    assert capsys.readouterr().err == (
        f"note: the stand-in serves no HTTP API: cannot listen on port {port} of {HOST}\n"
    )


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
    """The command prints one line and returns 2."""
    (site / "broken.json").write_text('{"config": [1')
    (site / "empty.json").write_text("{}")
    result = command("run", *arguments, cwd=site)
    assert (result.returncode, result.stdout) == (2, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_another_module_path_is_said(site: Path) -> None:
    """LMCache would load another module."""
    (site / "x.json").write_text('{"module_path": "x", "config": {"runtime_plugin_locations": []}}')
    assert (
        "'module_path' is not ours" in command("check", "--server", "-c", "x.json", cwd=site).stdout
    )


def test_a_file_for_the_server_needs_its_option(site: Path) -> None:
    """Without ``--server`` it would be an engine's configuration without locations."""
    text = "error: module.json is a file for --server-module of 'lmcache server': add --server\n"
    for name in ("check", "run"):
        result = command(name, "-c", "module.json", cwd=site)
        assert (result.returncode, result.stdout, result.stderr) == (2, "", text)


@pytest.mark.parametrize(("right", "wrong"), [("module_path", "modul_path"), ("config", "confg")])
def test_misspelt_keys_of_a_server_module(site: Path, right: str, wrong: str) -> None:
    """Each is named, with the right one."""
    text = (site / "module.json").read_text().replace(f'"{right}"', f'"{wrong}"')
    (site / "x.json").write_text(text)
    result = command("check", "--server", "-c", "x.json", cwd=site)
    advice = f"Unknown key '{wrong}' of x.json has no effect: did you mean '{right}'?"
    assert advice in result.stdout
    assert (result.returncode == 1) == (right == "module_path")


def test_doctor_server(capsys: pytest.CaptureFixture[str]) -> None:
    """``doctor`` reports a missing LMCache, with status 1, and does not search for vLLM."""
    assert doctor.doctor(as_json=True, server=True) in (0, 1)
    report = json.loads(capsys.readouterr().out)
    subjects = [finding["subject"] for finding in report["findings"]]
    assert subjects[:2] == ["lmcache", "lmcache server"]
    assert "vllm" not in subjects
    doctor.doctor(server=True)
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
    """``doctor`` reads it from the names in LMCache's sources."""
    directory = tmp_path / "lmcache" / "v1" / "multiprocess"
    directory.mkdir(parents=True)
    (directory / file).write_text(content)
    monkeypatch.setattr(
        "lmcache_plugin_adapter.hosts.upstream_names.package_directory",
        lambda project: str(tmp_path / project) if project == "lmcache" else "",
    )
    finding = doctor._server()
    assert finding.level == level
    assert words in finding.text
